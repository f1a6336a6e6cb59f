"""Pause, resume, cancel: in effect at the next chunk in every phase, and nothing lost or doubled by it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rowledger import batches, control, db, ledger, pipeline, uploads
from rowledger.db import Connection
from rowledger.errors import Fenced, NotPossible, RecordRefused, SetupError, Stopped, TryAgain, UnknownCode
from rowledger.model import Batch
from rowledger.settings import Settings

Submit = Callable[..., int]
CONTACTS = "External ID,Email,Last name\n" + "".join(
    f"C{n},{'no address' if n == 3 else f'c{n}@example.org'},Name {n}\n" for n in range(1, 8)
)
STATUSES = "".join(
    f"{form};{day:02}-02-2026;{code};;\n"
    for form, day, code in [
        ("F1", 1, 20),
        ("F2", 2, 20),
        ("F9", 3, 20),
        ("F3", 4, 99),
        ("F1", 5, 20),
        ("F2", 6, 35),
    ]
)
FILES = [("contacts", CONTACTS), ("result_codes", STATUSES)]


@pytest.fixture
def other(database_url: str) -> Iterator[Connection]:
    """A connection of the person who asks."""
    with contextlib.closing(db.connect(database_url)) as opened:
        yield opened


@pytest.fixture
def worker(connection: Connection, settings: Settings) -> pipeline.Worker:
    """Chunks of a few records, so that there are many edges."""
    return pipeline.Worker(
        connection, replace(settings, validate_chunk=4, load_chunk=2, load_lanes=1), "tester"
    )


class Edges:
    """Counts the chunks of a worker, and does something before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed, self.at, self.act = 0, 0, lambda: None
        for name in ("hold", "hold_shared"):
            monkeypatch.setattr(batches, name, self._around(getattr(batches, name)))

    def _around(self, hold: Callable[..., None]) -> Callable[..., None]:
        def at_the_edge(*arguments: Any) -> None:
            self.passed += 1
            if self.passed == self.at:
                self.act()
            hold(*arguments)

        return at_the_edge

    def before(self, edge: int, act: Callable[[], object]) -> None:
        self.passed, self.at, self.act = 0, edge, act


@pytest.fixture
def edges(monkeypatch: pytest.MonkeyPatch) -> Edges:
    return Edges(monkeypatch)


def story(connection: Connection, seqno: int) -> list[Any]:
    """What a batch ended with: its state, its boxes, and every record with its reasons and cells."""
    batch = batches.get(connection, seqno)
    told = [(r["record_no"], r["outcome"], r["reasons"], r["raw"]) for r in ledger.records(connection, seqno)]
    return [batch.status, batch.import_completed, batch.processed, batch.counts, told]


def violations(connection: Connection) -> list[dict[str, Any]]:
    return [check for check in ledger.check(connection) if check["violations"]]


@pytest.mark.parametrize(("template", "content"), FILES, ids=[name for name, _ in FILES])
def test_a_pause_at_any_edge_stops_the_worker_there_and_a_resume_goes_on(
    template: str, content: str, submit: Submit, worker: pipeline.Worker, other: Connection, edges: Edges
) -> None:
    undisturbed = submit(content, template)
    edges.before(0, lambda: None)
    pipeline.work(worker, undisturbed)
    count = edges.passed
    assert count > 6
    for edge in range(1, count + 1):
        # Other contacts and contracts each time would be other records; the same ones are unchanged the second time.
        seqno = submit(content, template)
        edges.before(edge, lambda seqno=seqno: control.pause(other, seqno, by="anna", why="lunch"))  # type: ignore[misc]
        with pytest.raises(Stopped, match=rf"Import batch {seqno} was paused at record \d+ by anna: lunch"):
            pipeline.work(worker, seqno)
        paused = batches.get(other, seqno)
        assert paused.status == "paused"
        assert edges.passed == edge
        with pytest.raises(Stopped):
            pipeline.work(worker, seqno)
        assert batches.reserve(other, paused.kind, "run", 10, 60) == []
        assert control.resume(other, seqno, by="anna").status == "waiting"
        edges.before(0, lambda: None)
        pipeline.work(worker, seqno)
        ended = batches.get(other, seqno)
        assert ended.succeeded
        assert ended.validated_records == ended.records_in_file
        words = [event["event"] for event in batches.events(other, seqno)]
        assert words == ["uploaded", "paused", "resumed", "executed"]
    assert violations(other) == []


@pytest.mark.parametrize(("template", "content"), FILES, ids=[name for name, _ in FILES])
def test_a_batch_that_was_paused_again_and_again_ends_as_one_that_was_not(
    template: str, content: str, submit: Submit, worker: pipeline.Worker, other: Connection, edges: Edges,
    fresh_database: Any, tmp_path: Path,
) -> None:  # fmt: skip
    seqno = submit(content, template)
    with fresh_database() as url, contextlib.closing(db.connect(url)) as elsewhere:
        batch = batches.get(other, seqno)
        chosen = pipeline.template_of(other, batch)
        upload = uploads.Upload(batch.file_name, batch.file_path, batch.file_bytes, batch.file_sha256)
        same = batches.register(
            elsewhere, upload, chosen, batch.suite_hash, "DEMO", by="tester", through="api"
        )
        pipeline.work(replace(worker, connection=elsewhere), same)
        undisturbed = story(elsewhere, same)
    pauses = 0
    while not batches.get(other, seqno).succeeded:
        edges.before(2 + pauses // 2, lambda: control.pause(other, seqno, by="anna"))
        for step in (pipeline.validate, pipeline.load, pipeline.close):
            with contextlib.suppress(Stopped, SetupError):
                step(worker, seqno)
        if batches.get(other, seqno).status == "paused":
            pauses += 1
            control.resume(other, seqno, by="anna")
    assert pauses > 2
    assert story(other, seqno) == undisturbed


@pytest.mark.parametrize(("template", "content"), FILES, ids=[name for name, _ in FILES])
def test_the_records_of_a_batch_that_was_cancelled_unread_are_counted_as_never_reached(
    template: str, content: str, submit: Submit, worker: pipeline.Worker, other: Connection
) -> None:
    seqno = submit(content, template)
    cancelled = control.cancel(other, seqno, by="anna")
    assert cancelled.records_in_file is None
    assert batches.unread(other, cancelled.kind) == [seqno]
    for _ in range(2):  # once more changes nothing
        pipeline.count_unread(worker, seqno)
        *_, counted, records = story(other, seqno)
        assert counted["unprocessed"] == len(records) == content.count("\n") - (template == "contacts")
        assert [event["event"] for event in batches.events(other, seqno)] == [
            "uploaded",
            "cancelled",
            "counted",
        ]
    assert batches.unread(other, cancelled.kind) == []
    assert violations(other) == []
    with pytest.raises(RecordRefused, match="import_batch_terminal"), db.transaction(other) as cursor:
        cursor.execute(
            "UPDATE import_batch SET records_in_file = NULL, unprocessed = 0 WHERE seqno = %s", (seqno,)
        )


def test_a_batch_that_was_cancelled_unread_and_whose_file_cannot_be_read_says_so_once(
    submit: Submit, worker: pipeline.Worker, other: Connection
) -> None:
    seqno = submit("External ID;Email;Last name\nC1;c1@example.org;One\n")
    control.cancel(other, seqno, by="anna")
    pipeline.count_unread(worker, seqno)
    event = batches.events(other, seqno)[-1]
    assert event["event"] == "not counted"
    assert "semicolon" in event["detail"]
    assert batches.unread(other, "contact") == []
    assert violations(other) == []


@pytest.mark.parametrize(("template", "content"), FILES, ids=[name for name, _ in FILES])
def test_a_cancel_at_any_edge_keeps_what_is_written_and_balances_the_ledger(
    template: str, content: str, submit: Submit, worker: pipeline.Worker, other: Connection, edges: Edges
) -> None:
    edge, reached = 0, set()
    while True:
        edge += 1
        seqno = submit(content, template)
        edges.before(edge, lambda seqno=seqno: control.cancel(other, seqno, by="anna", why="wrong file"))  # type: ignore[misc]
        with contextlib.suppress(Stopped):
            pipeline.work(worker, seqno)
            break
        with pytest.raises(Stopped, match=r"was cancelled at record \d+ by anna: wrong file"):
            pipeline.work(worker, seqno)
        batch = batches.get(other, seqno)
        assert batch.status == "cancelled"
        assert not batch.processed
        reached.add(batch.counts["unprocessed"])
        if ledger.lacks_raw(other, batch):
            assert batches.lacking_raw(other, batch.kind) == [seqno]
            pipeline.complete_raw(worker, seqno)
        assert batches.lacking_raw(other, batch.kind) == []
        assert all(r["raw"] for r in ledger.records(other, seqno, ["rejected", "ignored"]))
        assert violations(other) == []
    assert len(reached) > 2
    assert batches.get(other, seqno).succeeded


def test_a_request_waits_for_the_chunk_that_is_being_written_and_no_longer(
    submit: Submit, worker: pipeline.Worker, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqno, asked, began = submit(CONTACTS), threading.Event(), threading.Event()
    write = ledger.write_rejects

    def slowly(*arguments: Any) -> None:
        began.set()
        asked.wait(10)
        time.sleep(0.3)
        write(*arguments)

    monkeypatch.setattr(ledger, "write_rejects", slowly)

    def ask() -> None:
        began.wait(10)
        asked.set()
        control.pause(other, seqno, by="anna")

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(Stopped):
        pipeline.work(worker, seqno)
    asking.join()
    assert batches.get(other, seqno).validated_records in (4, 7)


def test_a_lane_stops_when_its_batch_is_paused(
    submit: Submit, connection: Connection, other: Connection
) -> None:
    batch = batches.claim(connection, submit(CONTACTS), "tester", 60)
    control.pause(other, batch.seqno, by="anna")
    with pytest.raises(Stopped, match="paused at record 0 by anna"), db.transaction(connection) as cursor:
        batches.hold_shared(cursor, batch)


def test_a_pause_survives_the_death_of_the_worker(
    submit: Submit, worker: pipeline.Worker, other: Connection
) -> None:
    seqno = submit(CONTACTS)
    batches.claim(other, seqno, "somebody who is killed now", 60)
    assert control.pause(other, seqno, by="anna").status == "paused"
    with pytest.raises(Stopped, match="paused at record 0 by anna"):
        pipeline.work(worker, seqno)
    control.resume(other, seqno, by="anna")
    assert pipeline.work(worker, seqno).succeeded


def test_requests_come_twice_late_and_for_what_does_not_exist(
    submit: Submit, worker: pipeline.Worker, other: Connection
) -> None:
    with pytest.raises(UnknownCode):
        control.pause(other, 99, by="anna")
    waiting = submit(CONTACTS)
    assert control.pause(other, waiting, by="anna").status == "paused"
    assert control.pause(other, waiting, by="bert").status == "paused"
    assert control.resume(other, waiting, by="anna").status == "waiting"
    assert control.resume(other, waiting, by="bert").status == "waiting"
    assert [e["by"] for e in batches.events(other, waiting)] == ["tester", "anna", "anna"]
    cancelled = control.cancel(other, waiting, by="anna", why="wrong file")
    assert (cancelled.status, cancelled.counts["unprocessed"]) == ("cancelled", 0)
    assert control.cancel(other, waiting, by="bert").status == "cancelled"
    with pytest.raises(NotPossible, match="was cancelled, so it cannot be resumed"):
        control.resume(other, waiting, by="anna")
    done = submit(CONTACTS)
    pipeline.work(worker, done)
    for request in (control.pause, control.resume, control.cancel):
        with pytest.raises(NotPossible, match=f"Import batch {done} is done"):
            request(other, done, by="anna")
    assert batches.get(other, done).succeeded


def test_a_cancelled_file_may_be_uploaded_again(submit: Submit, other: Connection) -> None:
    control.cancel(other, submit(CONTACTS, again=False), by="anna")
    submit(CONTACTS, again=False)


def test_a_batch_that_loses_every_worker_fails_and_says_so(
    submit: Submit, worker: pipeline.Worker, other: Connection
) -> None:
    seqno = submit(CONTACTS)
    for _ in range(worker.settings.max_attempts):
        batches.claim(other, seqno, "killed", 60)
    with pytest.raises(SetupError, match="5 workers in a row were lost at this batch"):
        pipeline.work(worker, seqno)
    failed = batches.get(other, seqno)
    assert (failed.failed, failed.error_rule) == (True, "worker_lost")
    assert pipeline.work(worker, seqno).succeeded  # cleared by a person


def test_workers_that_get_further_are_not_counted(
    submit: Submit, worker: pipeline.Worker, edges: Edges
) -> None:
    seqno = submit(CONTACTS)

    def killed() -> None:
        raise Fenced  # leaves without a word

    for _ in range(worker.settings.max_attempts + 3):
        edges.before(4, killed)
        with contextlib.suppress(Fenced):
            pipeline.work(worker, seqno)
    edges.before(0, killed)
    assert pipeline.work(worker, seqno).succeeded


@pytest.mark.parametrize(
    "forward",
    [
        lambda cursor, batch: batches.mark_validated(cursor, batch, 1, 1, 0, 0, 1),
        lambda cursor, batch: batches.finish_validation(cursor, batch),
        lambda cursor, batch: batches.count_loaded(cursor, batch, Counter(), 60),
        lambda cursor, batch: batches.wait(cursor, batch, "the disk is full"),
    ],
    ids=[
        "a chunk is validated",
        "the validation is done",
        "a chunk is loaded",
        "the worker says why it stops",
    ],
)
def test_one_step_forward_and_the_workers_lost_before_are_forgotten(
    forward: Callable[[db.Cursor, Batch], None], submit: Submit, connection: Connection
) -> None:
    seqno = submit(CONTACTS)
    batches.claim(connection, seqno, "killed", 60)
    batch = batches.claim(connection, seqno, "tester", 60)
    assert batch.attempts == 2
    with db.transaction(connection) as cursor:
        forward(cursor, batch)
    assert batches.get(connection, seqno).attempts == 0


def test_what_time_mends_lets_the_batch_wait_and_says_why(
    submit: Submit, worker: pipeline.Worker, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqno = submit(CONTACTS)
    monkeypatch.setattr(pipeline, "CHUNK_TRIES", 1)

    def full(*_: Any) -> None:
        raise TryAgain("The disk of the database server is full (SQLSTATE 53100).")

    with monkeypatch.context() as trouble:
        trouble.setattr(ledger, "write_rejects", full)
        for _ in range(worker.settings.max_attempts + 2):  # waiting is no lost worker
            with pytest.raises(TryAgain):
                pipeline.work(worker, seqno)
    batch = batches.get(other, seqno)
    assert (batch.status, batch.waits_because) == (
        "waiting",
        "The disk of the database server is full (SQLSTATE 53100).",
    )
    done = pipeline.work(worker, seqno)
    assert (done.succeeded, done.waits_because) == (True, None)


def test_a_full_disk_of_the_worker_lets_the_batch_wait(
    submit: Submit, worker: pipeline.Worker, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqno = submit(CONTACTS)
    settings = worker.settings
    settings.scratch.parent.mkdir(parents=True, exist_ok=True)
    settings.scratch.write_text("a file where the folder should be")
    with pytest.raises(TryAgain, match="The worker cannot use its disk"):
        pipeline.work(worker, seqno)
    assert "cannot use its disk" in (batches.get(other, seqno).waits_because or "")
    settings.scratch.unlink()
    assert pipeline.work(worker, seqno).succeeded


def reserved(connection: Connection, kind: str, run: str, lease: int = 60) -> list[int]:
    return batches.reserve(connection, kind, run, 10, lease)


def test_an_earlier_batch_of_the_same_kind_and_domain_goes_first(
    submit: Submit, worker: pipeline.Worker, other: Connection
) -> None:
    first, second = submit(CONTACTS), submit(CONTACTS)
    statuses = submit(STATUSES, "result_codes")
    assert reserved(other, "contact", "one") == [first, second]
    assert reserved(other, "contract_status", "one") == [statuses]

    def ahead(seqno: int) -> int | None:
        return batches.ahead(other, batches.get(other, seqno), 60)

    assert (ahead(first), ahead(second), ahead(statuses)) == (None, first, None)
    control.pause(other, first, by="anna")  # who pauses a batch lets the others pass
    assert ahead(second) is None
    control.resume(other, first, by="anna")
    assert ahead(second) is None  # until a run takes it on again
    assert reserved(other, "contact", "two") == [first]
    assert ahead(second) == first
    pipeline.work(worker, first)
    assert ahead(second) is None


def test_a_batch_that_waits_its_turn_stays_with_its_run_while_the_run_works(
    submit: Submit, other: Connection
) -> None:
    first, second = submit(CONTACTS), submit(CONTACTS)
    assert reserved(other, "contact", "one", lease=1) == [first, second]
    batches.claim(other, first, "worker", 60, run_id="one")
    time.sleep(1.1)
    assert reserved(other, "contact", "two") == []
    assert batches.ahead(other, batches.get(other, second), 60) == first


def test_a_lost_worker_keeps_others_waiting_for_a_lease_and_no_longer(
    submit: Submit, other: Connection
) -> None:
    first, second = submit(CONTACTS), submit(CONTACTS)
    assert reserved(other, "contact", "one") == [first, second]
    batches.claim(other, first, "killed", 1, run_id="one")
    time.sleep(1.1)
    assert batches.ahead(other, batches.get(other, second), 60) is None
    assert reserved(other, "contact", "two") == [first]


def claimed(connection: Connection, seqno: int) -> Batch:
    return batches.claim(connection, seqno, "another", 1)


def given(connection: Connection, seqno: int) -> Batch:
    assert reserved(connection, "contact", "another run", lease=1) == [seqno]
    return claimed(connection, seqno)


@pytest.mark.parametrize("lane", [False, True], ids=["alone", "lane"])
@pytest.mark.parametrize("ask", [claimed, given])
def test_a_worker_that_is_stopped_inside_a_chunk_keeps_its_batch_for_a_lease_and_no_longer(
    ask: Callable[[Connection, int], Batch],
    lane: bool,
    submit: Submit,
    connection: Connection,
    other: Connection,
) -> None:
    seqno = submit(CONTACTS)
    batch = claimed(connection, seqno)
    with contextlib.suppress(TryAgain), db.transaction(connection) as cursor:
        if lane:
            batches.hold_shared(cursor, batch)
        else:
            batches.hold(cursor, batch, 1)
        cursor.execute("UPDATE import_batch SET waits_because = 'never' WHERE seqno = %s", (seqno,))
        time.sleep(1.1)
        assert ask(other, seqno).epoch == batch.epoch + 1
    assert connection.closed
    assert batches.get(other, seqno).waits_because is None


def test_whoever_wants_a_batch_outwaits_a_worker_that_has_fallen_silent_only_now(
    submit: Submit, connection: Connection, other: Connection
) -> None:
    batch = claimed(connection, submit(CONTACTS))
    taken: list[Batch] = []
    with contextlib.suppress(TryAgain), db.transaction(connection) as cursor:
        batches.hold_shared(cursor, batch)
        taken.append(batches.claim(other, batch.seqno, "another", 2))
    assert [one.epoch for one in taken] == [batch.epoch + 1]


def test_a_worker_whose_statement_takes_longer_than_its_lease_is_waited_for(
    submit: Submit, connection: Connection, other: Connection
) -> None:
    seqno = submit(CONTACTS)
    batch = claimed(connection, seqno)
    began = threading.Event()

    def slowly() -> None:
        with db.transaction(connection) as cursor:
            batches.hold(cursor, batch, 1)
            began.set()
            cursor.execute("SELECT pg_sleep(2.5)")
            batches.mark_validated(cursor, batch, 5, 5, 0, 0, 60)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(slowly)
        began.wait()
        time.sleep(1.2)
        assert reserved(other, "contact", "another run", lease=1) == []
        assert claimed(other, seqno).validated_records == 5
        working.result()


def test_a_worker_that_goes_on_after_a_statement_of_more_than_its_lease_is_waited_for(
    submit: Submit, connection: Connection, other: Connection
) -> None:
    """Who waits for it looks first while it is at the long statement, and again when it waits for its client."""
    seqno = submit(CONTACTS)
    batch = claimed(connection, seqno)

    def goes_on() -> None:
        with db.transaction(connection) as cursor:
            batches.hold(cursor, batch, 2)
            cursor.execute("SELECT pg_sleep(2.5)")
            for _ in range(15):
                cursor.execute("SELECT")
                time.sleep(0.1)
            batches.mark_validated(cursor, batch, 5, 5, 0, 0, 60)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(goes_on)
        until_at_work(other, connection)
        assert batches.claim(other, seqno, "another", 2).validated_records == 5
        working.result()


def until_at_work(looking: Connection, worker: Connection) -> None:
    query = "SELECT FROM pg_stat_activity WHERE pid = %(pid)s AND wait_event = 'PgSleep'"
    for _ in range(500):
        with db.transaction(looking) as cursor:
            if db.rows(cursor, query, {"pid": worker.info.backend_pid}):
                return
        time.sleep(0.01)
    raise AssertionError("it is not at work")


@pytest.mark.parametrize("lane", [False, True], ids=["alone", "lane"])
def test_a_worker_whose_lease_is_not_over_is_waited_for(
    lane: bool, submit: Submit, connection: Connection, other: Connection
) -> None:
    seqno = submit(CONTACTS)
    batch = batches.claim(connection, seqno, "tester", 60)
    with db.transaction(connection) as cursor:
        if lane:
            batches.hold_shared(cursor, batch)
        else:
            batches.hold(cursor, batch, 60)
        time.sleep(0.2)
        with db.transaction(other) as asking:
            asking.execute("SET lock_timeout = '300ms'")
        assert batches.reserve(other, "contact", "another run", 10, 60) == []
        with pytest.raises(TryAgain):
            batches.claim(other, seqno, "another", 60)
        batches.mark_validated(cursor, batch, 5, 5, 0, 0, 60)
    assert batches.get(other, seqno).validated_records == 5


def test_only_what_waits_for_a_reader_may_keep_a_transaction_open_for_long(other: Connection) -> None:
    asks = "SELECT current_setting('idle_in_transaction_session_timeout') AS seconds"

    def seconds() -> Any:
        with db.transaction(other) as cursor:
            return db.row(cursor, asks)

    assert seconds() == {"seconds": "1min"}
    with db.trial(other):
        assert seconds() == {"seconds": "10min"}
    assert list(db.stream(other, asks, {})) == [{"seconds": "10min"}]
    assert seconds() == {"seconds": "1min"}


def test_two_runs_at_once_are_given_different_batches_and_do_not_wait_for_each_other(
    submit: Submit, connection: Connection, other: Connection
) -> None:
    """The first has taken its batches and not committed yet, when the second asks."""
    seqnos = [submit(CONTACTS) for _ in range(4)]
    asked = {"kind": "contact", "limit": 2, "lease_seconds": 60}
    with db.transaction(other) as asking:
        asking.execute("SET lock_timeout = '2s'")
    with db.transaction(connection) as cursor:
        cursor.execute(db.queries("batches")["reserve"], asked | {"run_id": "one"})
        assert batches.reserve(other, "contact", "two", 2, 60) == seqnos[2:]
    assert batches.reserve(other, "contact", "three", 2, 60) == []
    assert batches.reserve(connection, "contact", "one", 2, 60) == seqnos[:2]


def test_the_database_says_who_stands_where(
    submit: Submit, worker: pipeline.Worker, other: Connection
) -> None:
    """A batch in its middle: how far it has come is told in records with a verdict, then with an outcome."""
    seqno = submit(CONTACTS)
    told: list[Batch] = []
    pipeline.validate(worker, seqno)
    told.append(batches.get(other, seqno))
    pipeline.load(worker, seqno)
    told.append(batches.get(other, seqno))
    assert [batch.done_records for batch in told] == [1, 7]
