"""People and Airflow at the same batch: what a request does to its tasks, and who goes first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from engine import LARGE, Engine, Run, contacts

from rowledger import batches, control, ledger
from rowledger.model import Batch


def loading(engine: Engine, seqno: int) -> Run:
    """The run that has begun to load the batch."""
    run = engine.take_on(seqno)
    engine.until(lambda: engine.batch(seqno).loaded_records > 0)
    return run


def ended_skipped(run: Run, said: str) -> None:
    run.wait()
    assert [run.task(step)["state"] for step in ("validate", "load", "close")] == [
        "success",
        "skipped",
        "skipped",
    ]
    assert said in run.whole_log("load")


def violations(engine: Engine) -> list[Any]:
    return [check for check in ledger.check(engine.connection) if check["violations"]]


def test_a_pause_ends_the_task_skipped_and_after_a_resume_the_next_run_goes_on(engine: Engine) -> None:
    seqno = engine.submit(contacts("PA"))
    run = loading(engine, seqno)
    paused = control.pause(engine.connection, seqno, by="anna", why="month end")
    assert 0 < paused.loaded_records < paused.staged_records
    ended_skipped(
        run, f"Import batch {seqno} was paused at record {paused.done_records:,} by anna: month end"
    )
    assert batches.reserve(engine.connection, "contact", "a run", 10, 60) == []
    assert engine.batch(seqno).loaded_records == paused.loaded_records

    control.resume(engine.connection, seqno, by="anna")
    again = engine.work_off(seqno)
    assert again.run_id != run.run_id
    assert again.state() == "success"
    done = engine.batch(seqno)
    assert (done.succeeded, sum(done.counts.values())) == (True, LARGE)
    assert violations(engine) == []


def test_a_cancel_ends_the_task_skipped_and_clearing_it_changes_nothing(engine: Engine) -> None:
    seqno = engine.submit(contacts("CA"))
    run = loading(engine, seqno)
    cancelled = control.cancel(engine.connection, seqno, by="anna", why="wrong file")
    said = f"Import batch {seqno} was cancelled at record {cancelled.done_records:,} by anna: wrong file"
    ended_skipped(run, said)
    settled(engine, seqno)
    before = story(engine, seqno)
    assert before[0].counts["unprocessed"] > 0
    run.clear("load")
    ended_skipped(run, said)
    assert run.task("load")["try_number"] == 2
    assert story(engine, seqno) == before
    assert violations(engine) == []


def test_the_records_of_a_batch_that_was_cancelled_unread_are_counted_by_the_next_run(engine: Engine) -> None:
    seqno = engine.submit(contacts("CU", 10))
    assert control.cancel(engine.connection, seqno, by="anna").records_in_file is None
    run = engine.run("contact_import")
    engine.until(lambda: engine.batch(seqno).records_in_file == 10)
    assert run.wait() == "success"
    assert engine.batch(seqno).counts["unprocessed"] == 10
    assert violations(engine) == []


def settled(engine: Engine, seqno: int) -> None:
    """Let a run fetch the cells of records that were refused while loading, if there are any."""
    if ledger.lacks_raw(engine.connection, engine.batch(seqno)):
        engine.run("contact_import").wait()


def story(engine: Engine, seqno: int) -> tuple[Batch, list[Any], list[Any]]:
    return engine.batch(seqno), engine.ledger(seqno), batches.events(engine.connection, seqno)


@pytest.fixture
def stopped() -> Iterator[list[psutil.Process]]:
    """Processes that are stopped, and go on when the test is over, however it ends."""
    found: list[psutil.Process] = []
    yield found
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.resume()


def test_a_later_batch_of_the_kind_and_domain_gives_up_its_place_and_comes_back_when_the_first_is_done(
    engine: Engine, stopped: list[psutil.Process]
) -> None:
    first = engine.submit(contacts("FI"))
    loading(engine, first)
    stopped.append(engine.task_process())
    stopped[0].send_signal(signal.SIGSTOP)
    second = engine.submit(contacts("FI", 2000).replace("Name", "Later"))
    run = engine.take_on(second)
    engine.until(lambda: engine.batch(second).validated_at)
    engine.until(lambda: run.task("load")["state"] == "up_for_reschedule")
    assert f"waits for import batch {first}, which came first" in run.whole_log("load")
    assert engine.batch(second).loaded_records == 0
    stopped[0].resume()
    assert run.wait() == "success"
    done = [engine.batch(seqno) for seqno in (first, second)]
    assert [batch.succeeded for batch in done] == [True, True]
    assert done[0].processed_at < done[1].processed_at  # type: ignore[operator]
    assert done[1].counts["updated"] > 1900
    assert run.task("load")["try_number"] == 1
    assert violations(engine) == []
