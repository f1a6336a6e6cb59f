"""A huge file in parts: a task each, one fence, one balance, and the end that one worker alone would have brought about."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from rowledger import batches, control, db, ledger, pipeline, staging, suites
from rowledger.db import Connection
from rowledger.errors import Fenced, FileError, SetupError, Stopped, TryAgain
from rowledger.model import Batch
from rowledger.pipeline import Worker
from rowledger.settings import Settings

Submit = Callable[..., int]
Became = Callable[[int], list[tuple[Any, ...]]]
RECORDS = 20
CONTACTS = "Customer number,Email,Last name\n" + "".join(
    f"C{n},{'no address' if n in (3, 14) else f'c{n}@example.org'},Name {n}\n" for n in range(1, RECORDS + 1)
)
PARTS = 3
RANGES = [(1, 6), (7, 13), (14, 20)]


@pytest.fixture
def workers(database_url: str, settings: Settings) -> Iterator[list[Worker]]:
    """One for each part, with chunks of a few records."""
    with contextlib.ExitStack() as stack:
        small = replace(settings, validate_chunk=2, load_chunk=2, load_lanes=1)
        yield [
            Worker(stack.enter_context(contextlib.closing(db.connect(database_url))), small, f"worker {part}", "run", part)
            for part in range(1, PARTS + 1)
        ]  # fmt: skip


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deriving a suite takes longer than working such a file off, and each comes many times."""
    judge = functools.cache(lambda template, thread: real(template))
    real = suites.judge
    monkeypatch.setattr(suites, "judge", lambda template: judge(template, threading.get_ident()))


@pytest.fixture
def in_parts(submit: Submit, connection: Connection) -> Callable[..., int]:
    """Submit a file and let it be worked in three parts."""

    def in_parts(content: str = CONTACTS, template: str = "contacts", **options: Any) -> int:
        seqno = submit(content, template, **options)
        batches.reserve(connection, batches.get(connection, seqno).kind, "run", 100, 60)
        assert shared_out(connection, seqno) == [[seqno, part] for part in range(1, PARTS + 1)]
        return seqno

    return in_parts


def shared_out(connection: Connection, *seqnos: int, part_bytes: int = 1, most: int = 100) -> list[list[int]]:
    return batches.shared_out(connection, list(seqnos), part_bytes, PARTS, most, 60)


def finish(workers: list[Worker], seqno: int) -> Batch:
    """What the tasks of a run do, one after another."""
    for step in (pipeline.validate, pipeline.load):
        for worker in workers:
            step(worker, seqno)
    for worker in reversed(workers):
        pipeline.close(worker, seqno)
    return batches.get(workers[0].connection, seqno)


def marks(connection: Connection, seqno: int) -> list[int | None]:
    with db.transaction(connection) as cursor:
        query = "SELECT validated FROM import_batch_part WHERE seqno = %(seqno)s ORDER BY part"
        return [one["validated"] for one in db.rows(cursor, query, {"seqno": seqno})]


def violations(connection: Connection) -> list[dict[str, Any]]:
    return [check for check in ledger.check(connection) if check["violations"]]


def stop_after(worker: Worker, chunks: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error comes to a worker behind so many chunks of its validation."""
    keep, kept = pipeline._keep, []

    def ends(one: Worker, *arguments: Any) -> None:
        if one.part == worker.part:
            if len(kept) == chunks:
                raise error
            kept.append(1)
        keep(one, *arguments)

    monkeypatch.setattr(pipeline, "_keep", ends)


def test_a_file_above_the_limit_is_shared_out_in_parts_and_others_are_not(
    submit: Submit, connection: Connection
) -> None:
    large, small = submit(CONTACTS), submit("Email,Last name\na@example.org,A\n")
    bytes_of_half = batches.get(connection, large).file_bytes // 2 + 1
    assert shared_out(connection, large, small, part_bytes=bytes_of_half) == [
        [large, 1],
        [large, 2],
        [small, 0],
    ]
    # As it was cut it stays, for the next run too.
    assert shared_out(connection, small, large, part_bytes=10**9) == [[large, 1], [large, 2], [small, 0]]
    assert [batches.get(connection, seqno).parts for seqno in (large, small)] == [2, 1]


def test_a_run_is_never_given_more_than_the_engine_can_map(submit: Submit, connection: Connection) -> None:
    seqnos = [submit(CONTACTS) for _ in range(3)]
    assert shared_out(connection, *seqnos, most=6) == [
        *([seqnos[0], part] for part in (1, 2, 3)), [seqnos[1], 0], [seqnos[2], 0],
    ]  # fmt: skip


def test_a_batch_that_was_begun_in_one_piece_stays_in_one_piece(
    submit: Submit, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqno = submit(CONTACTS)
    worker = Worker(connection, replace(settings, validate_chunk=2), "tester")
    stop_after(worker, 2, Fenced(), monkeypatch)
    with pytest.raises(Fenced):
        pipeline.validate(worker, seqno)
    assert shared_out(connection, seqno) == [[seqno, 0]]


def test_a_worker_that_took_the_whole_and_was_silent_is_fenced_off_by_the_cut(
    submit: Submit, connection: Connection
) -> None:
    seqno = submit(CONTACTS)
    silent = batches.claim(connection, seqno, "silent", 60)
    shared_out(connection, seqno)
    with pytest.raises(Fenced), db.transaction(connection) as cursor:
        batches.hold_shared(cursor, silent)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_in_any_order_end_as_the_whole(
    order: tuple[int, ...], submit: Submit, in_parts: Callable[..., int], workers: list[Worker],
    work: Callable[[int], Batch], became: Became, connection: Connection,
) -> None:  # fmt: skip
    seqno = in_parts()
    for place, part in enumerate(order):
        assert not batches.get(connection, seqno).import_completed
        with pytest.raises(SetupError, match="not validated yet"):
            pipeline.load(workers[part], seqno)
        pipeline.validate(workers[part], seqno)
        assert batches.get(connection, seqno).import_completed == (place == 2)
    assert marks(connection, seqno) == [last for _, last in RANGES]
    for part in order:
        pipeline.load(workers[part], seqno)
        batch = batches.get(connection, seqno)
        assert (batch.loaded_records == batch.staged_records) == (part == order[-1])
        if part != order[-1]:
            assert pipeline.close(workers[1], seqno).status == "in_progress"
            with pytest.raises(SetupError, match="not loaded yet"):
                pipeline.close(workers[0], seqno)
    assert pipeline.close(workers[0], seqno).succeeded
    assert violations(connection) == []
    told = became(seqno)
    assert [record for record, outcome, *_ in told if outcome == "rejected"] == [3, 14]
    assert len(told) == RECORDS
    again = work(submit(CONTACTS))
    assert again.counts["unchanged"] == RECORDS - 2


def test_parts_at_the_same_time_do_not_wait_for_each_other(
    in_parts: Callable[..., int],
    workers: list[Worker],
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each part waits in the middle of a chunk until the others are in the middle of one, too."""
    met, copy_in, met_once = threading.Barrier(PARTS, timeout=60), staging.copy_in, set[int]()

    def meet(cursor: Any, batch: Batch, accepted: Any) -> int:
        assert batch.part
        if batch.part.number not in met_once:
            met_once.add(batch.part.number)
            met.wait()
        return copy_in(cursor, batch, accepted)

    monkeypatch.setattr(staging, "copy_in", meet)
    seqno = in_parts()
    with ThreadPoolExecutor(PARTS) as pool:
        list(pool.map(lambda worker: pipeline.validate(worker, seqno), workers))
    assert batches.get(connection, seqno).import_completed
    with ThreadPoolExecutor(PARTS) as pool:
        list(pool.map(lambda worker: pipeline.load(worker, seqno), workers))
    assert pipeline.close(workers[0], seqno).succeeded
    assert violations(connection) == []


def test_who_takes_a_part_over_fences_off_its_worker_and_nobody_else(
    in_parts: Callable[..., int], workers: list[Worker], connection: Connection
) -> None:
    seqno = in_parts()
    loser, bystander = workers[0].claim(seqno, "validate"), workers[1].claim(seqno, "validate")
    winner = workers[0].claim(seqno, "validate")
    for hold in (batches.hold_shared, lambda cursor, batch: batches.hold(cursor, batch, 60)):
        with pytest.raises(Fenced, match="taken over"), db.transaction(connection) as cursor:
            hold(cursor, loser)
        for batch in (winner, bystander):
            with db.transaction(connection) as cursor:
                hold(cursor, batch)
    assert finish(workers, seqno).succeeded


def test_a_part_goes_on_behind_its_mark(
    in_parts: Callable[..., int],
    workers: list[Worker],
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seqno = in_parts()
    with monkeypatch.context() as patch:
        stop_after(workers[1], 2, Fenced(), patch)
        with pytest.raises(Fenced):
            pipeline.validate(workers[1], seqno)
    assert marks(connection, seqno) == [None, 10, None]
    assert finish(workers, seqno).succeeded
    assert violations(connection) == []


def test_whoever_takes_the_whole_fences_off_all_parts_and_starts_over(
    in_parts: Callable[..., int], workers: list[Worker], connection: Connection, became: Became
) -> None:
    seqno = in_parts()
    pipeline.validate(workers[2], seqno)
    at_work = workers[0].claim(seqno, "validate")
    whole = replace(workers[0], part=None)
    batches.claim(connection, seqno, "somebody", 60)
    with pytest.raises(Fenced), db.transaction(connection) as cursor:
        batches.hold_shared(cursor, at_work)
    with pytest.raises(Stopped, match="not worked in parts any more"):
        pipeline.validate(workers[1], seqno)
    assert pipeline.work(whole, seqno).succeeded
    assert len(became(seqno)) == RECORDS
    assert violations(connection) == []


def test_a_batch_that_fails_in_one_part_is_opened_again_on_request_only_and_in_one_piece(
    in_parts: Callable[..., int], workers: list[Worker], connection: Connection, monkeypatch: pytest.MonkeyPatch,
    became: Became,
) -> None:  # fmt: skip
    seqno = in_parts()
    pipeline.validate(workers[0], seqno)
    at_work = workers[2].claim(seqno, "validate")
    with monkeypatch.context() as patch:
        stop_after(workers[1], 1, SetupError("A list is missing."), patch)
        with pytest.raises(SetupError):
            pipeline.validate(workers[1], seqno)
    assert (batches.get(connection, seqno).failed, len(became(seqno))) == (True, RECORDS)
    with pytest.raises(Stopped, match="worker of another part"), db.transaction(connection) as cursor:
        batches.hold_shared(cursor, at_work)
    # A task that comes late does not open it again, whatever its step is.
    for step in (pipeline.validate, pipeline.load, pipeline.close):
        with pytest.raises(Stopped, match="not worked in parts any more"):
            step(workers[2], seqno)
    assert batches.get(connection, seqno).failed
    # Somebody clears the task that was red, and with it those that follow.
    cleared = replace(workers[1], retried=True)
    pipeline.validate(cleared, seqno)
    pipeline.load(workers[1], seqno)
    assert pipeline.close(workers[1], seqno).succeeded
    assert violations(connection) == []


def test_the_share_of_rejects_is_that_of_the_whole_file(
    in_parts: Callable[..., int], workers: list[Worker], connection: Connection
) -> None:
    lines = ["C1;01-01-2026;20;;"] * 9 + ["C1;31-02-2026;20;;"] * 25
    seqno = in_parts("\n".join(lines) + "\n", "result_codes")
    assert not pipeline.validate(workers[2], seqno).status.terminal  # every record of this part is wrong
    pipeline.validate(workers[0], seqno)
    with pytest.raises(FileError, match="25 of 34 records are wrong"):
        pipeline.validate(workers[1], seqno)
    batch = batches.get(connection, seqno)
    assert (batch.error_rule, batch.counts["rejected"], batch.counts["unprocessed"]) == (
        "too_many_rejects",
        25,
        9,
    )
    assert violations(connection) == []


def test_a_pause_stops_all_parts_and_a_resume_lets_each_go_on(
    in_parts: Callable[..., int],
    workers: list[Worker],
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seqno = in_parts()
    with monkeypatch.context() as patch:
        stop_after(workers[1], 1, Fenced(), patch)
        with pytest.raises(Fenced):
            pipeline.validate(workers[1], seqno)
    pipeline.validate(workers[0], seqno)
    at_work = workers[1].claim(seqno, "validate")
    control.pause(connection, seqno, by="anna", why="lunch")
    with (
        pytest.raises(Stopped, match="was paused at 8 records by anna: lunch"),
        db.transaction(connection) as cursor,
    ):
        batches.hold_shared(cursor, at_work)
    for worker in workers:
        with pytest.raises(Stopped):
            pipeline.validate(worker, seqno)
    control.resume(connection, seqno, by="anna")
    assert marks(connection, seqno) == [6, 8, None]
    workers[2].claim(seqno, "validate")  # the first after the rest
    with pytest.raises(Fenced), db.transaction(connection) as cursor:
        batches.hold_shared(cursor, at_work)
    assert batches.reserve(connection, "contact", "next run", 10, 60) == []
    assert finish(workers, seqno).succeeded


def test_a_cancelled_batch_keeps_what_its_parts_have_written(
    in_parts: Callable[..., int], workers: list[Worker], connection: Connection, became: Became
) -> None:
    seqno = in_parts()
    for worker in workers:
        pipeline.validate(worker, seqno)
    pipeline.load(workers[0], seqno)
    batch = control.cancel(connection, seqno, by="anna", why="wrong file")
    assert batch.loaded_records > 0
    assert batch.counts["unprocessed"] == batch.staged_records - batch.loaded_records > 0
    with pytest.raises(Stopped, match="was cancelled"):
        pipeline.load(workers[1], seqno)
    assert len(became(seqno)) == RECORDS
    assert violations(connection) == []


def test_trouble_of_one_part_does_not_stop_the_others(
    in_parts: Callable[..., int],
    workers: list[Worker],
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seqno = in_parts()
    at_work = workers[0].claim(seqno, "validate")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "CHUNK_TRIES", 1)
        stop_after(workers[1], 1, TryAgain("The disk is full."), patch)
        with pytest.raises(TryAgain):
            pipeline.validate(workers[1], seqno)
    batch = batches.get(connection, seqno)
    assert (batch.status, batch.waits_because) == ("in_progress", "The disk is full.")
    with db.transaction(connection) as cursor:
        batches.hold_shared(cursor, at_work)
    assert finish(workers, seqno).succeeded


def test_workers_lost_at_one_part_are_counted_for_it_alone(
    in_parts: Callable[..., int],
    workers: list[Worker],
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seqno = in_parts()
    workers[1] = replace(workers[1], settings=replace(workers[1].settings, max_attempts=2))
    for _ in range(2):
        workers[1].claim(seqno, "validate")  # and is killed
        pipeline.validate(workers[0], seqno)
    with monkeypatch.context() as patch:  # one step forward and they are forgotten
        stop_after(workers[1], 1, Fenced(), patch)
        patient = replace(workers[1], settings=replace(workers[1].settings, max_attempts=3))
        with pytest.raises(Fenced):
            pipeline.validate(patient, seqno)
    for _ in range(2):
        workers[1].claim(seqno, "validate")
    with pytest.raises(SetupError, match=r"2 workers in a row were lost .* than 8 records"):
        pipeline.validate(workers[1], seqno)
    assert batches.get(connection, seqno).failed


def test_a_later_run_takes_over_what_the_parts_have_left(
    in_parts: Callable[..., int], workers: list[Worker], connection: Connection
) -> None:
    seqno = in_parts()
    pipeline.validate(workers[0], seqno)
    pipeline.validate(workers[2], seqno)
    with db.transaction(connection) as cursor:
        cursor.execute("UPDATE import_batch SET leased_until = now() - interval '1 second'")
    assert batches.reserve(connection, "contact", "next run", 10, 60) == [seqno]
    assert shared_out(connection, seqno) == [[seqno, part] for part in (1, 2, 3)]
    assert finish([replace(worker, run_id="next run") for worker in workers], seqno).succeeded
    assert batches.get(connection, seqno).run_id == "next run"


@pytest.mark.parametrize("records", [0, 1, 2])
def test_a_file_of_fewer_records_than_parts(
    records: int, in_parts: Callable[..., int], workers: list[Worker], connection: Connection, became: Became
) -> None:
    seqno = in_parts("".join(CONTACTS.splitlines(keepends=True)[: records + 1]))
    assert finish(workers, seqno).succeeded
    assert [outcome for _, outcome in became(seqno)] == ["created"] * records
    assert violations(connection) == []


def test_whoever_comes_to_a_part_of_a_batch_that_is_done_changes_nothing(
    in_parts: Callable[..., int], workers: list[Worker], connection: Connection
) -> None:
    seqno = in_parts()
    done = finish(workers, seqno)
    assert finish([replace(worker, retried=True) for worker in workers], seqno) == done
    assert shared_out(connection, seqno) == [[seqno, part] for part in (1, 2, 3)]  # in the same places
