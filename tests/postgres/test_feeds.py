"""Files of feeds become batches exactly once, whatever crashes and whoever else looks; what is missing, what is held."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from rowledger import batches, control, db, ledger, pipeline
from rowledger.db import Connection, rows, transaction
from rowledger.errors import PlaceAway, PlaceTrouble, Stopped
from rowledger.feeds import Feed, arrivals, cadence, notices, places, unusual
from rowledger.feeds.arrivals import Look
from rowledger.feeds.model import Expected, Tell, Unusual
from rowledger.feeds.places import Folder, Found
from rowledger.model import Batch
from rowledger.settings import Settings

HEADER = "Customer number,Email,Last name,Country\n"
KILLED = 9


def contacts(prefix: str, count: int = 3, wrong: int = 0) -> str:
    lines = [f"{prefix}{n},{prefix}{n}@example.com,N,{'XX' if n < wrong else 'DE'}\n" for n in range(count)]
    return HEADER + "".join(lines)


@dataclass
class House:
    """A feed with its folder, and who looks at it."""

    connection: Connection
    settings: Settings
    feed: Feed

    @property
    def folder(self) -> Path:
        return self.settings.home / self.feed.place

    def put(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def looker(self) -> arrivals.Looker:
        return arrivals.local(self.connection, self.settings)

    def look(self) -> Look:
        (done,) = arrivals.look(self.looker(), [self.feed])
        return done

    def files(self) -> list[dict[str, Any]]:
        with transaction(self.connection) as cursor:
            return rows(cursor, "SELECT * FROM feed_file ORDER BY feed_file_id")

    def batches(self) -> list[Batch]:
        return list(reversed(batches.listed(self.connection, limit=1000)))

    def left(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir()
        )

    def with_(self, **changes: Any) -> House:
        return replace(self, feed=self.feed.model_copy(update=changes))


@pytest.fixture
def house(connection: Connection, settings: Settings) -> House:
    feed = Feed(
        name="agency", title="Contacts of an agency", place="feeds/agency", pattern="*.csv", kind="contact",
        domain="DEMO", template="contacts", settled_after="0s",
    )  # fmt: skip
    (settings.home / feed.place).mkdir(parents=True)
    return House(connection, settings, feed)


def test_a_file_becomes_a_batch_with_the_choices_of_its_feed_and_is_moved_away(house: House) -> None:
    house = house.with_(origins=("FAIR",), subscriptions=("NEWS",))
    house.put("may.csv", contacts("A"))
    done = house.look()
    (batch,) = house.batches()
    assert (done.seqnos, done.duplicates, done.left) == ([batch.seqno], [], [])
    assert (batch.file_name, batch.uploaded_by, batch.uploaded_through) == ("may.csv", "feed agency", "feed")
    assert batch.status == "waiting"
    assert house.left() == ["taken/may.csv"]
    assert Path(batch.file_path).read_text() == contacts("A")
    with transaction(house.connection) as cursor:
        (codes,) = rows(cursor, db.queries("batches")["codes"], {"seqno": batch.seqno})
    assert (codes["origins"], codes["subscriptions"]) == (["FAIR"], ["NEWS"])
    assert house.look() == Look(house.feed)
    assert len(house.batches()) == 1


def test_the_oldest_file_comes_first_and_the_most_urgent_feed_before_others(house: House) -> None:
    for age, name in enumerate(("c.csv", "a.csv", "b.csv")):
        os.utime(house.put(name, contacts(name[0])), (age, age))
    urgent = house.with_(name="urgent", place="feeds/urgent", priority=1)
    urgent.folder.mkdir()
    urgent.put("u.csv", contacts("U"))
    arrivals.look(house.looker(), [urgent.feed, house.feed])
    assert [batch.file_name for batch in house.batches()] == ["u.csv", "c.csv", "a.csv", "b.csv"]


@pytest.mark.parametrize(("then", "left"), [("mark", ["may.csv"]), ("delete", [])])
def test_a_taken_file_is_left_and_remembered_or_deleted_if_the_feed_says_so(
    house: House, then: str, left: list[str]
) -> None:
    house = house.with_(then=then)
    house.put("may.csv", contacts("A"))
    assert len(house.look().seqnos) == 1
    assert house.left() == left
    assert house.look() == Look(house.feed)
    house.put("may.csv", contacts("B"))  # the next month by the same name
    assert len(house.look().seqnos) == 1
    assert len(house.files()) == 2


def test_a_file_that_is_still_being_written_waits_until_it_stays_as_it_is(house: House) -> None:
    house = house.with_(settled_after="1h")
    path = house.put("may.csv", contacts("A", 1))
    assert (house.look().unsettled, house.batches()) == (1, [])
    past(house)
    path.write_text(contacts("A", 2))
    assert (house.look().unsettled, house.batches()) == (1, [])
    assert (house.look().unsettled, house.batches()) == (1, [])
    past(house)
    assert house.look().unsettled == 0
    (batch,) = house.batches()
    assert Path(batch.file_path).read_text() == contacts("A", 2)
    house.look()
    with transaction(house.connection) as cursor:
        assert rows(cursor, "SELECT * FROM feed_seen") == []


def past(house: House) -> None:
    """What was seen, was seen an hour earlier."""
    with transaction(house.connection) as cursor:
        cursor.execute("UPDATE feed_seen SET seen_at = seen_at - interval '1 hour'")


def test_a_look_waits_for_files_that_settle_within_seconds(house: House) -> None:
    house = house.with_(settled_after="1s")
    house.put("may.csv", contacts("A"))
    done = house.look()
    assert (len(done.seqnos), done.unsettled) == (1, 0)


def test_unfinished_names_wait_for_their_rename(house: House) -> None:
    path = house.put("may.csv.part", contacts("A"))
    assert house.look() == Look(house.feed)
    path.rename(house.folder / "may.csv")
    assert len(house.look().seqnos) == 1


@pytest.mark.parametrize("then", ["move", "mark", "delete"])
def test_the_same_bytes_under_a_new_name_make_no_second_batch_and_no_endless_retry(
    house: House, then: str
) -> None:
    house = house.with_(then=then)
    house.put("may.csv", contacts("A"))
    (seqno,) = house.look().seqnos
    house.put("may (1).csv", contacts("A"))
    assert house.look().duplicates == [("may (1).csv", seqno)]
    assert house.look() == Look(house.feed)
    assert [(file["name"], file["seqno"], file["duplicate"]) for file in house.files()] == [
        ("may.csv", seqno, False), ("may (1).csv", seqno, True),
    ]  # fmt: skip
    told = [(e["event"], e["by"], e["detail"]) for e in batches.events(house.connection, seqno)]
    assert told == [("uploaded", "feed agency", "may.csv"), ("sent again", "feed agency", "may (1).csv")]
    assert {
        "move": ["taken/may (1).csv", "taken/may.csv"], "mark": ["may (1).csv", "may.csv"], "delete": [],
    }[then] == house.left()  # fmt: skip


def test_a_file_that_is_put_back_as_it_was_is_not_taken_again_but_told(house: House) -> None:
    house.put("may.csv", contacts("A"))
    (seqno,) = house.look().seqnos
    (house.folder / "taken" / "may.csv").rename(house.folder / "may.csv")
    (said,) = house.look().left
    assert said.startswith(f'"may.csv" was taken before, as import batch {seqno}, and is left alone')


def test_what_is_no_file_is_left_alone_told_and_keeps_no_other_from_being_taken(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "secret.csv").write_text(contacts("S"))
    (house.folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    os.mkfifo(house.folder / "pipe.csv")
    (house.folder / "folder.csv").mkdir()
    house.put("may.csv", contacts("A"))
    done = house.look()
    assert len(done.seqnos) == 1
    assert len(done.left) == 3
    assert arrivals.known(house.connection)["agency"]["trouble"] == "\n".join(done.left)
    assert house.left() == ["link.csv", "pipe.csv", "taken/may.csv"]


def test_a_file_that_is_too_large_is_left_and_keeps_no_other_from_being_taken(house: House) -> None:
    house = replace(house, settings=replace(house.settings, max_upload_bytes=len(contacts("A"))))
    house.put("large.csv", contacts("A") + "x")
    house.put("may.csv", contacts("A"))
    done = house.look()
    assert len(done.seqnos) == 1
    assert '"large.csv" has' in done.left[0]
    assert house.left() == ["large.csv", "taken/may.csv"]


def test_files_that_are_too_large_take_no_place_of_newer_ones(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "FILES_PER_LOOK", 2)
    monkeypatch.setattr(arrivals, "MAX_ODDITIES", 3)
    house = replace(house, settings=replace(house.settings, max_upload_bytes=len(contacts("A"))))
    for age in range(5):
        os.utime(house.put(f"large_{age}.csv", contacts("A") + "x"), (age, age))
    house.put("may.csv", contacts("A"))
    done = house.look()
    assert len(done.seqnos) == 1
    assert [said.split()[0] for said in done.left] == ['"large_0.csv"', '"large_1.csv"', '"large_2.csv"', "2"]


@pytest.mark.parametrize(
    ("then", "name"), [("move", b"a.csv"), ("delete", b"a.csv"), ("delete", b"r\xe9sultats.csv")]
)
def test_a_taken_file_that_could_not_be_moved_stays_to_be_moved_when_others_are_taken(
    house: House, then: str, name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = house.with_(then=then)
    first = os.fsdecode(name)
    carry = Folder._carry

    def refuse(self: Folder, found: Found, *given: Any) -> str:
        if found.name == first:
            raise PermissionError(errno.EACCES, "Permission denied", found.name)
        return carry(self, found, *given)

    os.utime(house.put(first, contacts("A")), (1, 1))
    os.utime(house.put("b.csv", contacts("B")), (2, 2))
    with monkeypatch.context() as busy:
        busy.setattr(Folder, "_carry", refuse)
        done = house.look()
    assert (len(done.seqnos), house.left()[0]) == (2, first)
    assert ["Permission denied" in said for said in done.left] == [True]
    assert house.look().left == []
    assert house.left() == ([f"taken/{first}", "taken/b.csv"] if then == "move" else [])
    assert len(house.batches()) == 2


def test_a_taken_file_among_more_names_than_are_looked_at_is_not_gone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put("may.csv", contacts("A"))
    with monkeypatch.context() as busy:
        busy.setattr(Folder, "move", in_trouble)
        assert house.look().left == ["It is busy."]
        busy.setattr(places, "MAX_NAMES", 0)
        assert house.look().left == ["The place has more than 0 names; the rest is not looked at."]
    assert house.look().left == []
    assert house.left() == ["taken/may.csv"]


def in_trouble(*_: Any) -> str:
    raise PlaceTrouble("It is busy.")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"domain": "NOWHERE"}, 'There is no domain "NOWHERE"'),
        ({"origins": ("OLD",)}, 'The origin "OLD" is not active'),
        ({"place": "feeds/none"}, "cannot be read (No such file or directory)"),
        ({"place": "s3://conn@bucket/in"}, "is reached through Airflow only"),
        ({"template": "none"}, 'There is no template "none"'),
    ],
)
def test_a_feed_in_trouble_says_so_and_keeps_no_other_from_being_looked_at(
    house: House, changes: dict[str, Any], said: str
) -> None:
    house.put("may.csv", contacts("A"))
    broken = house.feed.model_copy(update={"name": "broken", **changes})
    first, second = arrivals.look(house.looker(), [broken, house.feed])
    assert said in first.left[0]
    assert len(second.seqnos) == 1
    assert said in (arrivals.check(house.looker(), broken) or "")
    assert arrivals.check(house.looker(), house.feed) is None


def test_at_a_place_that_is_gone_no_other_file_is_tried_and_the_next_feed_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def away(self: Folder, found: Found) -> Iterator[bytes]:
        tried.append(found.name)
        raise PlaceAway("It is away.")

    monkeypatch.setattr(Folder, "reading", away)
    other = house.with_(name="other", place="feeds/other")
    other.folder.mkdir()
    for one in (house, other):
        one.put("may.csv", contacts("A"))
        one.put("june.csv", contacts("B"))
    looks = arrivals.look(house.looker(), [house.feed, other.feed])
    assert [done.left for done in looks] == [["It is away."]] * 2
    assert tried == ["may.csv", "may.csv"]


def test_a_name_that_is_no_text_is_taken_and_shown_escaped(house: House) -> None:
    path = house.folder / os.fsdecode(b"r\xe9sultats.csv")
    path.write_text(contacts("A"))
    house.look()
    (batch,) = house.batches()
    assert batch.file_name == "r\\udce9sultats.csv"
    assert [path.name for path in (house.folder / "taken").iterdir()] == [os.fsdecode(b"r\xe9sultats.csv")]


@pytest.mark.parametrize("then", ["move", "mark"])
def test_a_crowd_of_files_is_taken_in_parts(house: House, then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "FILES_PER_LOOK", 3)
    house = house.with_(then=then)
    for number in range(7):
        os.utime(house.put(f"{number}.csv", contacts(f"F{number}-", 1)), (number, number))
    taken = [len(house.look().seqnos) for _ in range(4)]
    assert taken == [3, 3, 1, 0]
    assert [batch.file_name for batch in house.batches()] == [f"{number}.csv" for number in range(7)]


def test_a_hundred_thousand_names_are_looked_at_in_bounded_parts(house: House) -> None:
    house = house.with_(then="mark", settled_after="1h")
    for number in range(100_000):
        os.close(os.open(house.folder / f"{number}.csv", os.O_CREAT | os.O_WRONLY, 0o644))
    assert house.look().unsettled == arrivals.FILES_PER_LOOK
    with transaction(house.connection) as cursor:
        assert rows(cursor, "SELECT count(*) FROM feed_seen")[0]["count"] == arrivals.FILES_PER_LOOK


def killed(house: House, patch: Callable[[], None]) -> None:
    """Look in a process of its own that is killed on the way, without a chance to tidy up."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with contextlib.closing(db.connect(house.connection.url)) as connection:
                patch()
                arrivals.look(arrivals.local(connection, house.settings), [house.feed])
            code = 0
        finally:
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == KILLED, "it was not killed where it should be"
    while _at_the_server(house.connection, child):  # which notices soon
        time.sleep(0.05)


def _at_the_server(connection: Connection, process: int) -> bool:
    with transaction(connection) as cursor:
        program = {"program": f"rowledger {process}"}
        return bool(
            rows(cursor, "SELECT FROM pg_stat_activity WHERE application_name = %(program)s", program)
        )


def die(*_: Any, **__: Any) -> None:
    os._exit(KILLED)


def at_register() -> None:
    arrivals.batches.register = die  # type: ignore[assignment]


def within_the_transaction() -> None:
    arrivals._row = die  # type: ignore[assignment]


def before_the_move() -> None:
    Folder.move = Folder.delete = die  # type: ignore[method-assign, assignment]


def after_the_move() -> None:
    carry = Folder._carry

    def carry_and_die(*given: Any) -> Any:
        carry(*given)
        os._exit(KILLED)

    Folder._carry = carry_and_die  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("then", ["move", "delete"])
@pytest.mark.parametrize("point", [at_register, within_the_transaction, before_the_move, after_the_move])
def test_whoever_is_killed_on_the_way_the_next_look_ends_it_and_there_is_one_batch(
    house: House, point: Callable[[], None], then: str
) -> None:
    from rowledger.suites import warm

    warm()  # in this process, for the child that is forked
    house = house.with_(then=then)
    house.put("may.csv", contacts("A"))
    killed(house, point)
    assert house.look().left == []
    assert [batch.file_name for batch in house.batches()] == ["may.csv"]
    assert house.left() == (["taken/may.csv"] if then == "move" else [])
    assert [(file["handled_at"] is not None, file["duplicate"]) for file in house.files()] == [(True, False)]
    assert house.look() == Look(house.feed)


def test_one_who_is_killed_at_a_duplicate_leaves_one_event(house: House) -> None:
    house.put("may.csv", contacts("A"))
    (seqno,) = house.look().seqnos
    house.put("again.csv", contacts("A"))
    killed(house, before_the_move)
    house.look()
    events = [e["event"] for e in batches.events(house.connection, seqno)]
    assert events == ["uploaded", "sent again"]
    assert house.left() == ["taken/again.csv", "taken/may.csv"]


def test_of_two_who_look_at_once_one_has_the_feed(house: House) -> None:
    house.put("may.csv", contacts("A"))
    with contextlib.closing(db.connect(house.connection.url)) as other:
        with arrivals._alone(other, house.feed) as ours:
            assert ours
            assert arrivals.look(house.looker(), [house.feed]) == []
        assert len(house.look().seqnos) == 1


def test_without_that_lock_the_database_still_lets_one_of_them_take_a_file(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the session of one of them is lost without his noticing."""

    @contextlib.contextmanager
    def nobody_is_alone(*_: Any) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(arrivals, "_alone", nobody_is_alone)
    for number in range(20):
        house.put(f"{number}.csv", contacts(f"F{number}-"))
    together = threading.Barrier(2)

    def race(_: int) -> Look:
        with contextlib.closing(db.connect(house.connection.url)) as connection:
            together.wait()
            (done,) = arrivals.look(arrivals.local(connection, house.settings), [house.feed])
            return done

    with ThreadPoolExecutor(2) as pool:
        looks = list(pool.map(race, range(2)))
    house.look()
    assert sorted(batch.file_name for batch in house.batches()) == sorted(f"{n}.csv" for n in range(20))
    assert sorted(n for one in looks for n in one.seqnos) == [batch.seqno for batch in house.batches()]
    assert house.left() == sorted(f"taken/{n}.csv" for n in range(20))
    assert [file["duplicate"] for file in house.files()] == [False] * 20


def test_a_file_replaced_while_it_is_taken_is_not_taken_under_the_wrong_hash(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = house.put("may.csv", contacts("A"))
    reading = Folder.reading

    def replaced(self: Folder, found: Found) -> Iterator[bytes]:
        for block in reading(self, found):
            yield block
            monkeypatch.setattr(Folder, "reading", reading)
            house.put(".new", contacts("B")).rename(path)

    monkeypatch.setattr(Folder, "reading", replaced)
    assert "waits for the next look" in house.look().left[0]
    assert house.batches() == []
    house.look()
    assert [Path(batch.file_path).read_text() for batch in house.batches()] == [contacts("B")]


def test_a_file_replaced_after_it_was_registered_becomes_a_batch_of_its_own(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = house.put("may.csv", contacts("A"))
    move = Folder.move

    def late(self: Folder, *given: Any) -> str:
        monkeypatch.setattr(Folder, "move", move)
        house.put(".new", contacts("B")).rename(path)
        return move(self, *given)

    monkeypatch.setattr(Folder, "move", late)
    house.look()
    house.look()
    assert [Path(batch.file_path).read_text() for batch in house.batches()] == [contacts("A"), contacts("B")]
    assert house.left() == ["taken/may.csv"]


def alarms(house: House) -> list[dict[str, Any]]:
    with transaction(house.connection) as cursor:
        return rows(cursor, "SELECT feed, cleared_at IS NOT NULL AS cleared FROM feed_alarm ORDER BY 1")


def test_a_missing_file_raises_one_alarm_which_clears_when_it_comes(house: House) -> None:
    house = house.with_(expected=Expected(every="1d"))
    house.look()
    assert cadence.watch(house.connection, house.feed) is None
    with transaction(house.connection) as cursor:
        cursor.execute("UPDATE feed SET since = since - interval '25 hours'")
    since = cadence.watch(house.connection, house.feed)
    assert since
    house.look()
    assert cadence.watch(house.connection, house.feed) == since
    assert alarms(house) == [{"feed": "agency", "cleared": False}]
    assert arrivals.known(house.connection)["agency"]["missing_since"] == since
    house.put("may.csv", contacts("A"))
    house.look()
    assert cadence.watch(house.connection, house.feed) is None
    assert alarms(house) == [{"feed": "agency", "cleared": True}]


def test_a_file_that_was_in_time_is_not_missing_because_nobody_looked_until_it_was_due(house: House) -> None:
    """The run of six o'clock takes the file of ten to six."""
    house = watched_since_ten_days(house)
    house.put("may.csv", contacts("A"))
    assert house.look().seqnos
    assert cadence.watch(house.connection, house.feed) is None
    assert alarms(house) == [{"feed": "agency", "cleared": True}]
    assert notices.write(house.connection, [house.feed], {}) == 0
    assert cadence.watch(house.connection, house.feed) is None  # nor once more


def test_a_file_that_comes_when_it_is_missed_already_is_told_of_once(house: House) -> None:
    house = watched_since_ten_days(house)
    assert cadence.watch(house.connection, house.feed)
    house.put("may.csv", contacts("A"))
    assert house.look().seqnos
    assert cadence.watch(house.connection, house.feed) is None
    assert notices.write(house.connection, [house.feed], {}) == 1
    assert notices.write(house.connection, [house.feed], {}) == 0


def watched_since_ten_days(house: House) -> House:
    """A feed with a file that was due a moment ago, and people who are told when it is missing."""
    with transaction(house.connection) as cursor:
        (now,) = rows(cursor, "SELECT now()")
    tell = Tell(of=("missing",), mail=("ops@example.com",))
    house = house.with_(expected=Expected(by=f"{now['now'].astimezone(UTC):%H:%M}"), tell=tell)
    house.look()
    assert notices.write(house.connection, [house.feed], {}) == 0
    with transaction(house.connection) as cursor:
        cursor.execute("UPDATE feed SET since = since - interval '10 days'")
    return house


@pytest.fixture
def usual(house: House, work: Callable[[int], Batch]) -> House:
    """A feed three of whose batches had 20 records, one of them wrong."""
    house = house.with_(unusual=unusual_limits(more_records=2, fewer_records=0.5, more_rejected=0.2))
    for number in range(3):
        house.put(f"{number}.csv", contacts(f"F{number}-", 20, wrong=1))
        (seqno,) = house.look().seqnos
        assert work(seqno).succeeded
    return house


def unusual_limits(**limits: Any) -> Unusual:
    return Unusual(**limits)


def send(house: House, content: str) -> int:
    house.put("next.csv", content)
    (seqno,) = house.look().seqnos
    return seqno


def validate(house: House, seqno: int) -> Batch:
    return pipeline.validate(pipeline.Worker(house.connection, house.settings, "tester"), seqno)


def test_a_usual_batch_goes_through(usual: House, work: Callable[[int], Batch]) -> None:
    assert work(send(usual, contacts("N", 30, wrong=2))).succeeded
    assert unusual.undecided(usual.connection) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (contacts("N", 41), "41 records, 20 are usual (more than 2 times as many)"),
        (contacts("N", 9), "9 records, 20 are usual (fewer than 0.5 times as many)"),
        (contacts("N", 20, wrong=6), "30.0% of the records are rejected, 5.0% are usual"),
    ],
)
def test_an_unusual_batch_is_held_before_anything_is_loaded_until_it_is_resumed(
    usual: House, work: Callable[[int], Batch], content: str, why: str
) -> None:
    seqno = send(usual, content)
    held = validate(usual, seqno)
    assert (held.status, held.import_completed, held.loaded_records) == ("paused", True, 0)
    assert [(one.seqno, one.feed, one.why) for one in unusual.undecided(usual.connection)] == [
        (seqno, "agency", why)
    ]
    event = batches.events(usual.connection, seqno)[-1]
    assert (event["event"], event["by"]) == ("paused", "feed agency")
    assert event["detail"].endswith(f": {why}")
    with pytest.raises(Stopped, match="by feed agency"):
        work(seqno)
    control.resume(usual.connection, seqno, by="anna", why="a fair")
    assert unusual.undecided(usual.connection) == []
    done = work(seqno)
    assert (done.succeeded, done.records_in_file) == (True, content.count("\n") - 1)
    assert [c for c in ledger.check(usual.connection) if c["violations"]] == []


def test_a_held_batch_that_is_cancelled_loads_nothing(usual: House) -> None:
    seqno = send(usual, contacts("N", 41))
    assert validate(usual, seqno).status == "paused"
    done = control.cancel(usual.connection, seqno, by="anna")
    assert (done.counts["unprocessed"], unusual.undecided(usual.connection)) == (41, [])


def test_a_batch_is_held_once_and_a_pause_of_a_person_is_no_hold(usual: House) -> None:
    seqno = send(usual, contacts("N", 41))
    validate(usual, seqno)
    control.resume(usual.connection, seqno, by="anna")
    control.pause(usual.connection, seqno, by="bert")
    assert unusual.undecided(usual.connection) == []


def test_the_first_files_of_a_feed_are_never_unusual(house: House, work: Callable[[int], Batch]) -> None:
    house = house.with_(unusual=unusual_limits(more_records=2))
    for number, records in enumerate((1, 100, 1)):
        assert work(send(house, contacts(f"F{number}-", records))).succeeded


def test_many_churn_statuses_are_unusual(house: House, work: Callable[[int], Batch]) -> None:
    house = house.with_(kind="contract_status", template="result_codes", unusual=unusual_limits(more_churn=2))
    for day in range(1, 4):
        assert work(send(house, f"F1;0{day}-02-2026;20;;\nF3;0{day}-02-2026;20;;\n")).succeeded
    seqno = send(house, "".join(f"F{n};05-02-2026;90;;\n" for n in (1, 2, 3)))
    assert validate(house, seqno).status == "paused"
    (held,) = unusual.undecided(house.connection)
    assert held.why == "3 churn statuses, 0 are usual (more than 2 times as many)"


def test_files_that_do_not_come_by_a_feed_are_never_held(usual: House, submit: Callable[..., int]) -> None:
    assert validate(usual, submit(contacts("N", 100))).status == "in_progress"
