"""The bodies of the DAGs' tasks.

What Airflow hands in (connection, run, map index) becomes a worker; what Rowledger raises becomes a task state. Nothing
here is imported for a file to be judged before a file is there: an idle sensor and the DAG processor stay cheap.
"""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from airflow.sdk import Connection as AirflowConnection
from airflow.sdk import get_current_context
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowSkipException,
)
from structlog.contextvars import bound_contextvars

from rowledger import batches, db, housekeeping, metrics, parked, pipeline, retention, roll_back, timers
from rowledger import replay as replays
from rowledger.airflow import assets, feeds
from rowledger.airflow import metrics as sent
from rowledger.airflow.connection import CONNECTION_ID, connection_string
from rowledger.airflow.storage import settings as from_environment
from rowledger.batches import Share
from rowledger.db import Connection
from rowledger.errors import Fenced, RowledgerError, SetupError, TryAgain, WorkerLost, where
from rowledger.model import Batch
from rowledger.settings import MAX_SHARES, Settings

log = logging.getLogger("rowledger.airflow")
LABEL = "batch"  # the variable of the DAGs' map_index_template
TURN_SECONDS = 20
TURN_POLL_SECONDS = 0.5
LINE_CHARACTERS = 80  # Airflow's page cuts what is longer
Step = Callable[[pipeline.Worker, int], Batch]


def sense(kind: str) -> list[Share]:
    """Take the new files of the kind's feeds, and reserve the batches this run will work off, the oldest first.

    The run's tasks are mapped over what it returns: a seqno each, and the part of a huge file or 0. The task ends skipped,
    and with it all that follows, when there are none and nothing is to be settled or replayed.
    """
    run_id = get_current_context()["run_id"]
    with task_states(), worker_of_task() as worker:
        settings = worker.settings
        limit, lease = settings.batches_per_run, settings.lease_seconds
        feeds.look(worker, kind)
        lapsed = metrics.lapsed(worker.connection, kind, run_id)
        seqnos = batches.reserve(worker.connection, kind, run_id, limit, lease)
        sent.sensed(worker.connection, kind, len(lapsed.intersection(seqnos)))
        shares = batches.shared_out(
            worker.connection, seqnos, settings.part_bytes, settings.max_parts, MAX_SHARES, lease
        )
        idle = (
            not seqnos
            and not any(_unsettled(worker, kind))
            and not parked.anything_due(worker.connection, kind)
        )
    if idle:
        raise AirflowSkipException(f"No import batch of the kind {kind} is waiting.")
    log.info("Import batches of this run: %s", ", ".join(f"#{seqno}" for seqno in seqnos) or "none")
    return shares


def replay(kind: str) -> None:
    """Apply the parked records whose code or contract exists by now; the task ends skipped when there are none."""
    with task_states(), worker_of_task() as worker:
        done = replays.replay(worker, kind)
        for seqno, outcomes in done.items():
            label = batches.get(worker.connection, seqno).label
            log.info("Import batch %s: %s", label, replays.in_words(outcomes))
    if not done:
        raise AirflowSkipException(
            f"No parked record of the kind {kind} waits for something that exists by now."
        )


def settle(kind: str) -> None:
    """Complete what ended before its close, and roll back what was asked for; the task ends skipped when there is none."""
    with task_states(), worker_of_task() as worker:
        incomplete, unread, asked = _unsettled(worker, kind)
        for seqno in incomplete:
            with bound_contextvars(seqno=seqno):
                pipeline.complete_raw(worker, seqno)
                log.info("Import batch %s: the cells of its refused records are in the ledger now", seqno)
        for seqno in unread:
            with bound_contextvars(seqno=seqno):
                pipeline.count_unread(worker, seqno)
                log.info("Import batch %s was cancelled unread; its activity says what was counted", seqno)
        for seqno in asked:
            with bound_contextvars(seqno=seqno):
                log.info("Import batch %s is rolled back: %s", seqno, roll_back.work(worker, seqno).in_words)
    if not incomplete and not unread and not asked:
        raise AirflowSkipException(
            f"No ended batch of the kind {kind} lacks anything, and none is to be rolled back."
        )


def _unsettled(worker: pipeline.Worker, kind: str) -> tuple[list[int], list[int], list[int]]:
    """What lacks raw cells, what was never read, and what is to be rolled back."""
    connection = worker.connection
    return (
        batches.lacking_raw(connection, kind),
        batches.unread(connection, kind),
        roll_back.pending(connection, kind),
    )


def validate(share: Share) -> None:
    """Give every record a verdict."""
    _step(pipeline.validate, share)


def load(share: Share) -> None:
    """Merge the accepted records into their targets, when the batches that came first are done."""
    _step(_load_in_turn, share)


def _load_in_turn(worker: pipeline.Worker, seqno: int) -> Batch:
    """First come, first served: what two files say about one contact must not depend on whose task is quicker."""

    def busy(batch: Batch) -> str | None:
        if _in_parts(worker, batch) and batch.validated_at is None:
            return "the validation of its other parts"
        if _in_parts(worker, batch) and worker.part != 1 and not pipeline.arranged(worker.connection, batch):
            return "its first part, which settles who loads what"
        first = batches.ahead(worker.connection, batch, worker.settings.lease_seconds)
        return f"import batch {first}, which came first" if first is not None else None

    _wait_while(busy, worker, seqno)
    return pipeline.load(worker, seqno)


def _in_parts(worker: pipeline.Worker, batch: Batch) -> bool:
    """Whether somebody else works, or will work, at other parts of the batch."""
    return worker.part is not None and batch.parts > 1 and not batch.stopped


def _wait_while(busy: Callable[[Batch], str | None], worker: pipeline.Worker, seqno: int) -> None:
    """Wait a while where the task is; then it gives up its place and comes back, so that the one ahead finds a place.

    ``busy`` says what there is to wait for. A batch whose other parts get no further is taken over by a later run.
    """
    deadline = time.monotonic() + TURN_SECONDS
    while True:
        batch = batches.get(worker.connection, seqno)
        if _in_parts(worker, batch) and batch.run_id != worker.run_id:
            raise batches.taken_over(batch)
        what = busy(batch)
        if what is None:
            return
        if time.monotonic() > deadline:
            log.info("Import batch %s waits for %s", batch.label, what)
            raise AirflowRescheduleException(datetime.now(UTC) + timedelta(seconds=TURN_SECONDS))  # type: ignore[no-untyped-call]
        time.sleep(TURN_POLL_SECONDS)


def close(share: Share) -> None:
    """Balance the ledger."""
    _step(_close_and_announce, share)


def _close_and_announce(worker: pipeline.Worker, seqno: int) -> Batch:
    """Announce a batch that went in, once: one that was closed before only if its worker was lost before it could."""

    def busy(batch: Batch) -> str | None:
        loaded = batch.loaded_records == batch.staged_records
        waits = _in_parts(worker, batch) and worker.closes(batch) and not loaded
        return "the load of its other parts" if waits else None

    _wait_while(busy, worker, seqno)
    before = batches.get(worker.connection, seqno)
    batch = pipeline.close(worker, seqno)
    if batch.succeeded and worker.closes(batch) and not (before.succeeded and assets.announced(batch)):
        assets.announce(batch)
    return batch


def give() -> None:
    """Give every contract the statuses that are due; the log says last what was given."""
    with task_states(), worker_of_task() as worker:
        for line in given_table(timers.give(worker.connection)):
            log.info(line)


def given_table(given: list[timers.Given]) -> list[str]:
    """What the timers gave, as aligned lines of plain text."""
    lines = [f"{'domain':<16} {'status':<16} {'contracts':>12} {'history only':>14}"]
    lines += [f"{g.domain:<16} {g.code:<16} {g.contracts:>12,} {g.contracts - g.current:>14,}" for g in given]
    return lines if given else ["Nothing was due."]


def keep_house() -> None:
    """Remove what need not be kept any more; the log says last what was removed."""
    with task_states(), worker_of_task() as worker:
        removed = housekeeping.clean(worker, retention.read(worker.settings.retention))
        for line in removed_table(removed):
            log.info(line)


def removed_table(removed: list[housekeeping.Removed]) -> list[str]:
    """What housekeeping has removed, as aligned lines of plain text."""
    lines = [f"{'domain':<16} {'what':<34} {'number':>12} {'bytes':>16}"]
    lines += [f"{one.domain or '':<16} {one.what:<34} {one.items:>12,} {one.bytes:>16,}" for one in removed]
    return lines if removed else ["There was nothing to remove."]


def _step(step: Step, share: Share) -> None:
    """Do one step of one batch under its label; whatever happens, the log says last how the batch stands."""
    _quieten()
    (seqno, part), context = share, get_current_context()
    context[LABEL] = f"#{seqno}"  # type: ignore[literal-required]  # a context takes any key
    # A field of every line of the log, beside those of Airflow: dag_id, run_id, task_id, try_number.
    with bound_contextvars(seqno=seqno), task_states(), worker_of_task() as worker:
        worker = replace(worker, part=part or None, retried=context["ti"].try_number > 1)
        batch = batches.get(worker.connection, seqno)
        context[LABEL] = f"{batch.label}, part {part} of {batch.parts}" if part else batch.label  # type: ignore[literal-required]
        ours = not part
        try:
            step(worker, seqno)
        except Fenced:
            raise
        except Exception:
            ours = True
            raise
        finally:
            with suppress(TryAgain):  # the connection is gone; the error that says so is on its way already
                now = batches.get(worker.connection, seqno)
                for line in outcome_table(now):
                    log.info(line)
                if ours or (part == 1 and not now.failed):  # the end of a batch in parts is counted once
                    sent.stepped(batch, now)


def _quieten() -> None:
    """Great Expectations tells of its temporary folders, one of its modules at a level of its own."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    logging.getLogger("great_expectations.data_context.types.base").addFilter(
        lambda record: record.levelno > logging.INFO
    )


def outcome_table(batch: Batch) -> list[str]:
    """How a batch stands, as aligned lines of plain text."""
    lines = [f"Import batch {batch.label}: {batch.status.replace('_', ' ')}"]
    lines += [f"{title:<17} {'yes' if done else 'no':>12}" for title, done in _boxes(batch)]
    lines += [f"{outcome:<17} {count:>12,}" for outcome, count in batch.counts.items() if count]
    if batch.records_in_file is not None:
        lines.append(f"{'records in file':<17} {batch.records_in_file:>12,}")
    return lines + textwrap.wrap(_why_failed(batch), LINE_CHARACTERS)


def _why_failed(batch: Batch) -> str:
    """The sentence, unless it is about the file and may quote it: a log has no values."""
    if not batch.failed or batch.error_rule in _OUR_RULES:
        return batch.error_message or ""
    return f"The file is wrong: {batch.error_rule}. The page of the import says more, or: rowledger show {batch.seqno}"


_OUR_RULES = (SetupError.rule, WorkerLost.rule, pipeline.INTERNAL)


def _boxes(batch: Batch) -> list[tuple[str, bool]]:
    return [("import completed", batch.import_completed), ("processed", batch.processed)]


@contextmanager
def task_states() -> Iterator[None]:
    """Say in Airflow's words who must act: red at once, tried again later, or somebody else's by now."""
    try:
        yield
    except (TryAgain, AirflowRescheduleException):
        raise
    except Fenced as error:
        raise AirflowSkipException(str(error)) from None
    except RowledgerError as error:
        raise AirflowFailException(error.in_log) from None
    except Exception as error:  # noqa: BLE001 - said in words that quote nothing
        log.error("Rowledger itself failed\n%s", where(error))
        raise AirflowFailException(f"Rowledger itself failed ({type(error).__name__}).") from None


@contextmanager
def worker_of_task() -> Iterator[pipeline.Worker]:
    """Who works in this task, with a connection for as long as it does."""
    settings, context = from_environment(), get_current_context()
    run = context["dag_run"]
    who = getattr(run, "triggering_user_name", None) or "airflow"
    with closing(_connect(settings)) as connection:
        yield pipeline.Worker(connection, settings, f"{who} ({run.dag_id} {run.run_id})", run.run_id)


def _connect(settings: Settings) -> Connection:
    """Connect by Airflow's connection ``rowledger``, else by ``ROWLEDGER_DATABASE_URL``. Raises TryAgain.

    To a task a connection that is not there and an API server that does not answer look the same.
    """
    try:
        address = connection_string(AirflowConnection.get(CONNECTION_ID))
    except AirflowNotFoundException:
        if not settings.database_url:
            raise TryAgain(
                f'There is neither an Airflow connection "{CONNECTION_ID}" nor a ROWLEDGER_DATABASE_URL, or Airflow\'s API '
                "server did not answer."
            ) from None
        address = settings.database_url
    return db.connect(address)
