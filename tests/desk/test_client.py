"""The client for programs, against a real server: what it does, what it repeats, what it raises."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rowledger import batches, client, errors
from rowledger.client import Client
from rowledger.db import Connection, rows, transaction
from rowledger.model import Batch

sys.path.insert(0, str(Path(__file__).parent))
from trouble import PASSWORD, Trouble, served, with_login

CONTACTS = "Customer number,Email,Last name,Country\nK1,a@example.com,Ann,DE\nK2,b@example.com,Ben,XX\nK3,c@example.com,,DE\nK4,d@example.com,D,DE\nK5,e@example.com,E,DE\n"
AS_CONTACTS = {"kind": "contact", "domain": "DEMO", "template": "contacts"}
Work = Callable[[int], Batch]


@pytest.fixture
def trouble(app: Any) -> Trouble:
    return Trouble(with_login(app))


@pytest.fixture
def url(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(client, "WAITS", (0.01, 0.01))
    with served(trouble) as address:
        yield address


@pytest.fixture
def desk(url: str) -> Client:
    return Client(url, user="user", password=PASSWORD)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kontakte äöü & 100%.csv"
    path.write_text(CONTACTS)
    return path


def count(connection: Connection) -> int:
    with transaction(connection) as cursor:
        return len(rows(cursor, "SELECT seqno FROM import_batch"))


def test_a_file_goes_all_the_way(
    desk: Client, file: Path, work: Work, connection: Connection, tmp_path: Path
) -> None:
    sent = desk.upload(file, **AS_CONTACTS, origins=["WEB", "FAIR"], subscriptions=["NEWS"])
    assert (sent.file_name, sent.status, sent.uploaded_by, sent.succeeded) == (
        file.name,
        "waiting",
        "user",
        False,
    )
    work(sent.seqno)
    batch = desk.wait(sent.seqno)
    there = batches.get(connection, sent.seqno)
    assert batch.as_dict() == there.as_dict()
    assert (batch.origins, batch.subscriptions, batch.children) == (["FAIR", "WEB"], ["NEWS"], [])
    assert [(r["record_no"], r["outcome"]) for r in desk.records(batch.seqno)] == [
        (1, "created"), (2, "rejected"), (3, "rejected"), (4, "created"), (5, "created"),
    ]  # fmt: skip
    assert [r["record_no"] for r in desk.records(batch.seqno, outcome=["rejected"], rule="required")] == [3]
    assert [r["record_no"] for r in desk.records(batch.seqno, column="Country")] == [2]
    assert [r["record_no"] for r in desk.records(batch.seqno, after=1, record=3)] == [3]
    assert {(r["rule"], r["records"]) for r in desk.reasons(batch.seqno)} == {
        ("required", 1),
        ("not_in_set", 1),
    }
    assert [e["event"] for e in desk.events(batch.seqno)] == ["uploaded", "executed"]
    for what, begin in (
        ("file", CONTACTS),
        ("rejects.csv", '"Customer number"'),
        ("outcomes.csv", '"record"'),
    ):
        target = io.BytesIO()
        desk.download(batch.seqno, what, target)
        assert target.getvalue().decode().startswith(begin)
    mended = tmp_path / "mended.csv"
    mended.write_text("Customer number,Last name,Country\nK2,Ben,DE\nK3,Cem,DE\n")
    for given, records in ((None, 2), (mended, 2)):
        child = desk.rerun(batch, given)
        assert (child.parent_seqno, work(child.seqno).records_in_file) == (batch.seqno, records)
    assert batches.get(connection, child.seqno).counts["created"] == 2
    assert child.file_name == "mended.csv"
    again = desk.reprocess(batch, "current")
    assert (again.parent_seqno, desk.batch(batch.seqno).children[-1]) == (batch.seqno, again.seqno)


def test_statuses_are_sent_without_a_file(desk: Client, work: Work) -> None:
    records = [{"form_id": "F1", "date_result": "2026-02-01", "result_code": "20", "remark": None}]
    sent = desk.send_statuses(records, "DEMO", key="night")
    assert desk.send_statuses(records, "DEMO", key="night").seqno == sent.seqno
    assert work(sent.seqno).counts["updated"] == 1


def test_batches_come_page_by_page(
    desk: Client, submit: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAGE", 2)
    seqnos = [submit(f"Email,Last name\nm{n}@example.com,M\n") for n in range(5)]
    assert [b.seqno for b in desk.batches()] == seqnos[::-1]
    assert [b.seqno for b in desk.batches(3)] == seqnos[:1:-1]
    assert [b.seqno for b in desk.batches(before=seqnos[3], kind="contact")] == seqnos[2::-1]
    assert list(desk.batches(status="paused")) == []
    with pytest.raises(errors.UnknownCode, match=r"status: Input should be"):
        list(desk.batches(status="lost"))


def test_a_request_about_a_batch_that_was_seen_counts_only_in_its_state(desk: Client, file: Path) -> None:
    seen = desk.upload(file, **AS_CONTACTS)
    paused = desk.pause(seen, "wrong month?")
    assert (paused.status, "is paused" in paused.message) == ("paused", True)
    assert desk.wait(seen.seqno).status == "paused"
    with pytest.raises(errors.ChangedMeanwhile, match="it is paused now"):
        desk.cancel(seen)
    (listed,) = desk.batches()
    assert desk.resume(listed).status == "waiting"
    assert desk.run_now(desk.batch(seen.seqno)).message.startswith("A run was started")
    assert desk.cancel(seen.seqno, "it is", roll_back=True).status == "cancelled"
    asked = desk.batch(seen.seqno).roll_back
    assert asked
    assert (asked["asked_by"], asked["why"]) == ("user", "it is")
    with pytest.raises(errors.NotPossible, match="was cancelled"):
        desk.pause(seen.seqno)


@pytest.mark.parametrize("what", ["away", "lost"])
def test_a_keyed_upload_and_a_read_are_repeated_and_there_is_one_batch(
    desk: Client, file: Path, trouble: Trouble, connection: Connection, what: str
) -> None:
    trouble.coming = [what, what]
    assert desk.upload(file, **AS_CONTACTS).file_bytes == len(CONTACTS)
    trouble.coming = [what, what]
    desk.send_statuses([{"form_id": "F1", "date_result": "2026-02-01", "result_code": "20"}], "DEMO")
    assert count(connection) == 2
    trouble.coming = [what, what]
    assert len(list(desk.batches())) == 2
    assert trouble.coming == []
    trouble.coming = [what] * 3
    with pytest.raises(errors.TryAgain):
        desk.batch(1)


@pytest.mark.parametrize("what", ["away", "lost"])
def test_taking_a_batch_once_more_is_repeated_and_there_is_one_child_of_each(
    desk: Client, submit: Callable[..., int], work: Work, file: Path, trouble: Trouble, what: str
) -> None:
    batch = work(submit(CONTACTS))
    children = []
    for once_more in (
        lambda: desk.reprocess(batch.seqno, "old"),
        lambda: desk.rerun(batch.seqno),
        lambda: desk.rerun(batch.seqno, file),
    ):
        trouble.coming = [what, what]
        children.append(once_more().seqno)
        assert trouble.coming == []
    assert desk.batch(batch.seqno).children == children


@pytest.mark.parametrize("what", ["away", "lost"])
def test_what_has_no_key_is_sent_once(
    desk: Client, submit: Callable[..., int], trouble: Trouble, what: str
) -> None:
    seqno = submit(CONTACTS)
    trouble.coming = [what]
    with pytest.raises(errors.TryAgain):
        desk.pause(seqno)
    assert trouble.seen == [f"POST /imports/api/v1/batches/{seqno}/pause"]


def test_an_upload_whose_key_is_in_use_waits_for_it(
    desk: Client, app: Any, file: Path, monkeypatch: pytest.MonkeyPatch, connection: Connection
) -> None:
    from rowledger.desk.upload_api import key_held

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with key_held(app.state.desk, "user k"):
            held.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(errors.TryAgain, match="still running"):
            desk.upload(file, **AS_CONTACTS, key="k")
        monkeypatch.setattr(client, "WAITS", (0.1,) * 600)
        timer = threading.Timer(0.5, done.set)
        timer.start()
        assert desk.upload(file, **AS_CONTACTS, key="k").status == "waiting"
    finally:
        done.set()
        other.join(60)
    timer.join(60)
    assert count(connection) == 1


@pytest.mark.parametrize("where", ["cut", "cut_at_a_line"])
@pytest.mark.parametrize(
    "read", [lambda desk: list(desk.records(1)), lambda desk: desk.download(1, "file", io.BytesIO())]
)
def test_an_answer_that_breaks_off_is_not_taken_for_the_whole(
    desk: Client, submit: Callable[..., int], work: Work, trouble: Trouble, read: Callable[[Client], Any],
    where: str,
) -> None:  # fmt: skip
    assert work(submit(CONTACTS)).seqno == 1
    trouble.coming = [where]
    with pytest.raises(errors.TryAgain):
        read(desk)
    read(desk)


def test_a_token_that_has_run_out_is_replaced_by_a_login(
    url: str, file: Path, connection: Connection
) -> None:
    desk = Client(url, "expired", user="user", password=PASSWORD)
    assert desk.upload(file, **AS_CONTACTS).uploaded_by == "user"
    with pytest.raises(errors.NotAllowed, match="Not signed in"):
        Client(url, "expired").batch(1)
    with pytest.raises(errors.NotAllowed, match="does not know this user"):
        Client(url, user="user", password="wrong").batch(1)
    with pytest.raises(errors.NotAllowed, match="needs a token"):
        Client(url).batch(1)


def test_what_the_desk_refuses_is_raised_with_its_sentence(
    url: str, desk: Client, file: Path, tmp_path: Path
) -> None:
    first = desk.upload(file, **AS_CONTACTS)
    with pytest.raises(errors.DuplicateUpload, match=f"import batch {first.seqno} ") as same:
        desk.upload(file, **AS_CONTACTS)
    assert same.value.seqno == first.seqno
    assert desk.upload(file, **AS_CONTACTS, again=True).seqno > first.seqno
    with pytest.raises(errors.UnknownCode, match=r"There is no import batch 77\."):
        desk.batch(77)
    with pytest.raises(errors.UnknownCode, match='no template "x"'):
        desk.upload(file, **AS_CONTACTS | {"template": "x"})
    other = tmp_path / "other.csv"
    other.write_text(CONTACTS * 2)
    desk.upload(file, **AS_CONTACTS, again=True, key="k")
    with pytest.raises(errors.UnknownCode, match="belongs to import batch"):
        desk.upload(other, **AS_CONTACTS, key="k")
    for content, rule in ((b"", "empty_file"), (b"PK\x03\x04", "not_text")):
        path = tmp_path / "wrong.csv"
        path.write_bytes(content)
        with pytest.raises(errors.FileError) as wrong:
            desk.upload(path, **AS_CONTACTS)
        assert wrong.value.rule == rule
    (tmp_path / "link.csv").symlink_to(file)
    with pytest.raises(errors.NotReadable, match="it is a link"):
        desk.upload(tmp_path / "link.csv", **AS_CONTACTS)


def test_a_large_file_that_is_refused_before_its_end_is_refused_in_words(url: str, tmp_path: Path) -> None:
    large = tmp_path / "large.csv"
    large.write_text(CONTACTS * 300_000)
    with pytest.raises(errors.NotAllowed, match="not upload or change"):
        Client(url, "viewer").upload(large, **AS_CONTACTS)
    with pytest.raises(errors.UnknownCode, match='no domain "NOWHERE"'):
        Client(url, "user").upload(large, **AS_CONTACTS | {"domain": "NOWHERE"})


def test_who_may_not_see_personal_data_gets_the_rest(
    url: str, submit: Callable[..., int], work: Work
) -> None:
    seqno = submit(CONTACTS)
    work(seqno)
    viewer = Client(url, "viewer")
    assert viewer.batch(seqno).counts["rejected"] == 2
    assert [r["outcome"] for r in viewer.records(seqno, outcome="rejected")] == ["rejected"] * 2
    with pytest.raises(errors.NotAllowed, match="personal data"):
        viewer.download(seqno, "file", io.BytesIO())


def test_what_is_no_desk_is_told_from_one_that_is_away(
    url: str, desk: Client, trouble: Trouble, submit: Callable[..., int]
) -> None:
    trouble.coming = ["another"]
    with pytest.raises(errors.SetupError, match="is no import desk"):
        desk.batch(1)
    with pytest.raises(errors.TryAgain, match=r"127\.0\.0\.1:1 cannot be reached"):
        Client("http://127.0.0.1:1", "user").batch(1)
    for wrong in ("localhost:8080", "ftp://x", "http://user:secret@x", ""):
        with pytest.raises(errors.SetupError, match="is not the address"):
            Client(wrong, "user")
    seqno = submit(CONTACTS)
    assert Client(f"{url}/imports/", "user").batch(seqno).seqno == seqno
    with pytest.raises(errors.TryAgain, match="has not ended within 0 seconds"):
        desk.wait(seqno, seconds=0)
