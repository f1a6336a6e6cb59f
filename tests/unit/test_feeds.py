"""Feeds: what their files may say, when one is missing, what is unusual, and what a place is and is not."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rowledger import feeds, loading
from rowledger.errors import FeedError, FileChanged, PlaceTrouble
from rowledger.feeds import cadence, places, unusual
from rowledger.feeds.model import Expected, Feed, Tell, Unusual, Webhook
from rowledger.feeds.places import Folder, Found

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "include" / "templates"
FEED = """\
title: Results of the partner
place: feeds/partner
pattern: "results_*.csv"
kind: contract_status
domain: DEMO
template: result_codes
"""
CONTACTS = FEED.replace("contract_status", "contact").replace("result_codes", "contacts")


def read(tmp_path: Path, text: str) -> feeds.Feed:
    (tmp_path / "partner.yml").write_text(text, encoding="utf-8")
    return feeds.read_feed(tmp_path / "partner.yml", loading.kinds(), TEMPLATES)


def wrong(tmp_path: Path, text: str) -> str:
    with pytest.raises(FeedError) as caught:
        read(tmp_path, text)
    return str(caught.value).removeprefix(str(tmp_path) + "/")


def test_every_feed_of_the_repository_is_right() -> None:
    good, errors = feeds.read_feeds(ROOT / "include" / "feeds", loading.kinds(), TEMPLATES)
    assert errors == []
    assert good
    assert feeds.read_domains(ROOT / "include" / "feeds") == {}


def test_codes_names_and_times_are_taken_as_they_are_written(tmp_path: Path) -> None:
    text = (
        CONTACTS.replace("DEMO", "NO")
        + "origins: [0815, yes]\nexpected: {by: 18:00, days: [mon, fri]}\npriority: 7\n"
    )
    feed = read(tmp_path, text)
    assert (feed.domain, feed.origins, feed.priority) == ("NO", ("0815", "yes"), 7)
    assert feed.expected
    assert (feed.expected.by, feed.expected.days) == ("18:00", ("mon", "fri"))
    assert (feed.name, feed.then, feed.move_to, feed.settled_after) == ("partner", "move", "taken", "10s")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "partner.yml: is empty or not a mapping"),
        (FEED.replace("domain: DEMO\n", ""), "partner.yml, line 1, domain: is missing; it must be said."),
        (FEED + "colour: red\n", "partner.yml, line 7, colour: is not a known key; check the spelling against docs/feeds.md."),
        (FEED + "name: other\n", "partner.yml, line 7, name: is not a known key"),
        (FEED + "then: burn\n", "partner.yml, line 7, then: must be 'move', 'mark' or 'delete', not 'burn'."),
        (FEED.replace("results_", "in/results_"), "partner.yml, line 3, pattern: is for names in one folder"),
        (FEED.replace("contract_status", "invoice"), "partner.yml, line 4, kind: must be one of contact, contract, contract_status"),
        (FEED.replace("result_codes", "nothing"), 'partner.yml, line 6, template: There is no template "nothing".'),
        (FEED.replace("result_codes", "contacts"), "partner.yml, line 6, template: 'contacts' is for contact, not for contract_status."),
        (FEED + "origins: [FAIR]\n", "partner.yml, line 7, origins: is not for contract_status; only contacts have origins."),
        (FEED + "move_to: ../elsewhere\n", "partner.yml, line 7, move_to: must be a folder in the place, such as taken."),
        (FEED + "move_to: /tmp\n", "partner.yml, line 7, move_to: must be a folder in the place"),
        (FEED + "settled_after: soon\n", "partner.yml, line 7, settled_after: must be a number and s, m, h or d, such as 10s, not 'soon'."),
        (FEED + "expected: {every: 0d}\n", "partner.yml, line 7, expected.every: must be longer than nothing."),
        (FEED + "expected: {every: 1d, by: '06:00'}\n", "partner.yml, line 7, expected: says either every or by"),
        (FEED + "expected: {days: [mon]}\n", "partner.yml, line 7, expected: says either every or by"),
        (FEED + "expected: {by: 6 am}\n", "partner.yml, line 7, expected.by: must be a time of the day in UTC, such as 06:00, not '6 am'."),
        (FEED + "expected: {by: '24:00'}\n", "expected.by: must be a time of the day"),
        (FEED + "expected: {by: '06:00', days: [monday]}\n", "partner.yml, line 7, expected.days.1: must be 'mon', 'tue'"),
        (FEED + "unusual: {more_records: 0.5}\n", "partner.yml, line 7, unusual.more_records: must be greater than 1, not '0.5'."),
        (CONTACTS + "unusual: {more_churn: 2}\n", "partner.yml, line 7, unusual.more_churn: is for contract_status only."),
        (FEED + "tell: {webhook: {url: 'ftp://x', secret: s}}\n", "tell.webhook.url: must be an address such as https://partner.example/hook"),
        (FEED + "title: again\n", 'partner.yml, line 7: "title" is given twice; keep one.'),
    ],
)  # fmt: skip
def test_a_wrong_feed_is_told_with_file_line_fault_and_remedy(tmp_path: Path, text: str, said: str) -> None:
    assert said in wrong(tmp_path, text)


def test_one_wrong_feed_harms_no_other_and_the_most_urgent_comes_first(tmp_path: Path) -> None:
    for name, text in {"a": FEED, "b": FEED + "priority: 2\n", "c": FEED + "then: burn\n"}.items():
        (tmp_path / f"{name}.yml").write_text(text, encoding="utf-8")
    (tmp_path / "domains.yml").write_text("domains: {DEMO: {mail: [ops@example.com]}}\n", encoding="utf-8")
    good, errors = feeds.read_feeds(tmp_path, loading.kinds(), TEMPLATES)
    assert [feed.name for feed in good] == ["b", "a"]
    assert [str(error) for error in errors] == [
        wrong(tmp_path, FEED + "then: burn\n").replace("partner.yml", f"{tmp_path}/c.yml")
    ]
    assert feeds.read_domains(tmp_path)["DEMO"].mail == ("ops@example.com",)


def test_without_a_folder_there_are_no_feeds(tmp_path: Path) -> None:
    assert feeds.read_feeds(tmp_path / "none", loading.kinds()) == ([], [])
    assert feeds.read_domains(tmp_path / "none") == {}


def at(text: str) -> datetime:
    """A moment of January 2026, whose fifth is a Monday: "5 06:00"."""
    day, _, time = text.partition(" ")
    return datetime.fromisoformat(f"2026-01-{int(day):02}T{time}+00:00")


WORKDAYS = Expected(by="06:00", days=("mon", "tue", "wed", "thu", "fri"))


@pytest.mark.parametrize(
    ("expected", "now", "since", "files", "due"),
    [
        (WORKDAYS, "6 05:59", "1 00:00", ["5 05:00"], None),
        (WORKDAYS, "6 06:01", "1 00:00", ["5 05:00"], "6 06:00"),
        (WORKDAYS, "6 06:01", "1 00:00", ["6 05:59"], None),
        (WORKDAYS, "6 06:01", "1 00:00", ["5 07:00"], None),  # nobody has missed that one
        (WORKDAYS, "6 06:01", "5 07:00", ["5 07:00"], "6 06:00"),  # it made up for the one of the fifth
        (WORKDAYS, "6 06:01", "5 07:00", ["5 07:00", "5 07:01"], None),
        (WORKDAYS, "5 06:01", "1 00:00", ["3 12:00"], None),  # on a Saturday, for Monday
        (WORKDAYS, "4 12:00", "1 00:00", ["1 12:00"], None),  # on a Sunday, for Friday
        (WORKDAYS, "4 12:00", "1 00:00", [], "2 06:00"),
        (WORKDAYS, "4 12:00", "2 06:00", [], None),  # the feed did not exist yet
        (Expected(by="06:00", days=("mon",)), "12 05:00", "1 00:00", [], "5 06:00"),
        (Expected(every="1d"), "2 00:00", "1 00:00", [], None),
        (Expected(every="1d"), "2 00:01", "1 00:00", [], "2 00:00"),
        (Expected(every="1d"), "2 12:01", "1 00:00", ["1 12:00"], "2 12:00"),
        (Expected(every="1d"), "2 11:59", "1 00:00", ["1 12:00"], None),
    ],
)  # fmt: skip
def test_when_a_file_is_missing(
    expected: Expected, now: str, since: str, files: list[str], due: str | None
) -> None:
    came = [at(file) for file in files]

    def between(after: datetime, upto: datetime) -> bool:
        return any(after < file <= upto for file in came)

    found = cadence.missing(expected, at(now), at(since), max(came, default=None), between)
    assert found == (at(due) if due else None)
    assert found is None or found.tzinfo is UTC or found.utcoffset() is not None


@pytest.mark.parametrize(
    ("expected", "now", "since", "last", "due"),
    [
        (WORKDAYS, "6 05:59", "1 00:00", "5 05:00", "6 06:00"),
        (WORKDAYS, "6 05:59", "1 00:00", "5 07:00", "7 06:00"),  # today's is there already
        (WORKDAYS, "6 05:59", "5 07:00", "5 07:00", "6 06:00"),  # it made up for the one of the fifth
        (WORKDAYS, "6 05:59", "1 00:00", None, "6 06:00"),
        (WORKDAYS, "6 06:00", "1 00:00", "6 05:00", "7 06:00"),
        (WORKDAYS, "9 07:00", "1 00:00", "9 05:00", "12 06:00"),  # on a Friday, for Monday
        (WORKDAYS, "10 12:00", "1 00:00", "10 11:00", "13 06:00"),  # Monday's came on Saturday
        (Expected(by="06:00", days=("mon",)), "5 06:00", "1 00:00", "5 05:00", "12 06:00"),
        (Expected(every="1d"), "1 13:00", "1 00:00", "1 12:00", "2 12:00"),
        (Expected(every="1d"), "1 13:00", "1 00:00", None, "2 00:00"),
        (Expected(every="1d"), "3 13:00", "1 00:00", "1 12:00", "2 12:00"),  # missing already
    ],
)  # fmt: skip
def test_when_the_next_file_is_due(
    expected: Expected, now: str, since: str, last: str | None, due: str
) -> None:
    assert cadence.next_due(expected, at(now), at(since), at(last) if last else None) == at(due)


USUAL = {"records": 1000.0, "rejected_share": 0.02, "churn": 10.0}


@pytest.mark.parametrize(
    ("limits", "records", "rejected", "churn", "said"),
    [
        ({"fewer_records": 0.5}, 500, 0, 0, []),
        ({"fewer_records": 0.5}, 499, 0, 0, ["499 records, 1,000 are usual (fewer than 0.5 times as many)"]),
        ({"more_records": 2}, 2000, 0, 0, []),
        ({"more_records": 2}, 2001, 0, 0, ["2,001 records, 1,000 are usual (more than 2 times as many)"]),
        ({"more_rejected": 0.1}, 100, 12, 0, []),
        ({"more_rejected": 0.1}, 100, 13, 0, ["13.0% of the records are rejected, 2.0% are usual"]),
        ({"more_churn": 3}, 100, 0, 30, []),
        ({"more_churn": 3}, 100, 0, 31, ["31 churn statuses, 10 are usual (more than 3 times as many)"]),
        ({"more_churn": 3}, 100, 0, None, []),
        ({}, 0, 0, 1000, []),
    ],
)
def test_what_is_unusual(
    limits: dict[str, float], records: int, rejected: int, churn: int | None, said: list[str]
) -> None:
    now = {"records": records, "rejected": rejected, "churn": churn}
    assert list(unusual.reasons(limits, now, USUAL)) == said


def test_where_nothing_churns_a_few_are_no_alarm() -> None:
    nothing: dict[str, Any] = {"records": 0.0, "rejected_share": 0.0, "churn": None}
    limits = {"more_churn": 3, "more_records": 3, "fewer_records": 0.5}
    assert list(unusual.reasons(limits, {"records": 3, "rejected": 0, "churn": 3}, nothing)) == []
    assert len(list(unusual.reasons(limits, {"records": 4, "rejected": 0, "churn": 4}, nothing))) == 2


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    folder = tmp_path / "place"
    folder.mkdir()
    return Folder(folder)


def put(place: Folder, name: str, content: str = "a,b\n") -> Found:
    (place.path / name).write_text(content, encoding="utf-8")
    return next(found for found in place.files("*").files if found.name == name)


def content(blocks: Iterator[bytes]) -> bytes:
    return b"".join(blocks)


def test_a_place_lists_files_of_the_pattern_that_look_finished(place: Folder) -> None:
    for name in ("a.csv", "b.CSV", ".c.csv", "d.csv.part", "e.csv~", "f.txt", "g.csv.filepart"):
        put(place, name) if name[0] in "ab" else (place.path / name).write_text("x")
    assert [found.name for found in place.files("*.csv").files] == ["a.csv"]
    assert sorted(found.name for found in place.files("*").files) == ["a.csv", "b.CSV", "f.txt"]


def test_what_is_named_like_a_file_and_is_none_is_left_alone_with_a_warning(
    place: Folder, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (place.path / "link.csv").symlink_to(secret)
    os.link(secret, place.path / "hard.csv")
    (place.path / "folder.csv").mkdir()
    os.mkfifo(place.path / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(place.path)  # the path of a socket is short
        listener.bind("socket.csv")
        os.chdir(here)
        listing = place.files("*.csv")
    assert listing.files == []
    assert sorted(listing.oddities) == [
        '"folder.csv" is a folder and is left alone.',
        '"hard.csv" has another name elsewhere (a hard link) and is left alone.',
        '"link.csv" is a link and is left alone.',
        '"pipe.csv" is a pipe and is left alone.',
        '"socket.csv" is no regular file and is left alone.',
    ]


def test_a_link_put_in_the_place_of_a_file_is_not_followed(place: Folder, tmp_path: Path) -> None:
    found = put(place, "a.csv")
    (tmp_path / "secret").write_text("secret")
    (place.path / "a.csv").unlink()
    (place.path / "a.csv").symlink_to(tmp_path / "secret")
    with pytest.raises(PlaceTrouble, match=r'"a.csv" in .* cannot be used'):
        content(place.reading(found))
    with pytest.raises(FileChanged):
        place.move(found, "taken", 1)
    assert (place.path / "a.csv").is_symlink()


@pytest.mark.parametrize("how", ["written", "replaced", "touched", "gone"])
def test_a_file_that_is_not_the_one_that_was_seen_is_neither_read_nor_moved_nor_deleted(
    place: Folder, how: str
) -> None:
    found = put(place, "a.csv")
    change(place.path / "a.csv", how)
    for act in (
        lambda: content(place.reading(found)),
        lambda: place.move(found, "taken", 1),
    ):
        with pytest.raises(FileChanged):
            act()
    if how == "gone":
        place.delete(found, 1)
    else:
        with pytest.raises(FileChanged):
            place.delete(found, 1)
        assert (place.path / "a.csv").exists()


def change(path: Path, how: str) -> None:
    if how == "written":
        path.write_text("other content\n")
    elif how == "replaced":
        path.with_name(".new").write_text("a,b\n")
        os.utime(path.with_name(".new"), ns=(0, path.stat().st_mtime_ns))
        path.with_name(".new").rename(path)
    elif how == "touched":
        os.utime(path, (1, 1))
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["written", "replaced", "touched", "gone"])
def test_a_file_that_changes_while_it_is_read_is_noticed(place: Folder, how: str) -> None:
    found = put(place, "a.csv", "x" * (3 << 20))
    blocks = place.reading(found)
    next(blocks)
    change(place.path / "a.csv", how)
    with pytest.raises(FileChanged):
        content(blocks)


def test_a_file_replaced_between_the_last_look_and_its_move_is_put_back(
    place: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = put(place, "a.csv")
    rename = os.rename

    def late(source: Any, target: Any, **where: Any) -> None:
        monkeypatch.setattr(os, "rename", rename)
        change(place.path / "a.csv", "replaced")
        rename(source, target, **where)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(FileChanged):
        place.move(found, "taken", 1)
    assert sorted(path.name for path in place.path.iterdir()) == ["a.csv", "taken"]
    assert list((place.path / "taken").iterdir()) == []


def test_a_move_overwrites_nothing_and_leaves_the_place_by_no_link(place: Folder, tmp_path: Path) -> None:
    (place.path / "taken").mkdir()
    (place.path / "taken" / "a.csv").write_text("kept")
    assert place.move(put(place, "a.csv", "new"), "taken", 17) == "a.17.csv"
    assert (place.path / "taken" / "a.csv").read_text() == "kept"
    assert (place.path / "taken" / "a.17.csv").read_text() == "new"
    (place.path / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(PlaceTrouble):
        place.move(put(place, "b.csv"), "elsewhere", 18)
    assert place.move(put(place, "c.csv"), "old/2026", 19) == "c.csv"
    assert stat.S_ISREG((place.path / "old" / "2026" / "c.csv").stat().st_mode)


def test_a_delete_that_was_killed_half_way_is_finished(place: Folder) -> None:
    found = put(place, "a.csv")
    (place.path / "a.csv").rename(place.path / ".rowledger.5")
    place.delete(found, 5)
    assert list(place.path.iterdir()) == []


def test_a_name_that_is_no_text_is_shown_escaped(place: Folder) -> None:
    (place.path / os.fsdecode(b"r\xe9sultats\n.csv")).write_text("a\n")
    assert [found.shown for found in place.files("*.csv").files] == ["r\\udce9sultats\\x0a.csv"]


def test_a_listing_is_bounded(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_NAMES", 3)
    for number in range(5):
        (place.path / f"{number}.csv").write_text("a\n")
    listing = place.files("*.csv")
    assert len(listing.files) == 3
    assert listing.oddities == ["The place has more than 3 names; the rest is not looked at."]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        PlaceTrouble, match=f"The folder {tmp_path}/none cannot be read \\(No such file or directory\\)"
    ):
        Folder(tmp_path / "none").files("*")


def test_the_page_about_feeds_says_what_the_model_says_of_every_key() -> None:
    page = (ROOT / "docs" / "feeds.md").read_text(encoding="utf-8")
    for part in (Feed, Expected, Unusual, Tell, Webhook):
        for key, field in part.model_fields.items():
            if key != "name":
                assert f"| `{key}` | " in page
                assert f" | {field.description} |" in page
