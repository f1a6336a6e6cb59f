"""The way of a batch, on one screen: validate, load, close; ``work`` does all three.

Each step claims the batch first. A chunk is one transaction: check the fence, write, move the mark, commit. A step
that is tried again goes on at the first record not done; a step that is done does nothing. A load works in lanes, side
by side, each a range of match keys with a connection and a mark of its own.

A huge file is worked in parts, each step of a part by a worker of its own: each validates a range of the records, and
the last of them finishes the validation for all; each loads some of the lanes; the first part closes, once all are loaded.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rowledger import batches, lanes, ledger, loading, reference, staging, uploads
from rowledger.db import Connection, Cursor, connect, transaction
from rowledger.errors import Fenced, FileError, RowledgerError, SetupError, TryAgain, WorkerLost, where
from rowledger.feeds import unusual
from rowledger.lanes import Lane
from rowledger.model import Batch, Outcome
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate, parse_template

if TYPE_CHECKING:
    from rowledger.records_in import Chunk
    from rowledger.validation import Judged, Validation

T = TypeVar("T")
log = logging.getLogger("rowledger")
CHUNK_TRIES = 5
INTERNAL = "internal_error"  # the rule of a batch that fails by a fault of ours


@dataclass(frozen=True)
class Worker:
    """Who works: a connection of its own, the settings, a name for the ledger's events, the Airflow run if any.

    ``part`` is that of a huge file, None for the whole; ``retried`` a worker in a task that was tried before. Of an
    ``excerpt`` of a file nothing is said about the whole of it.
    """

    connection: Connection
    settings: Settings
    by: str
    run_id: str | None = None
    part: int | None = None
    retried: bool = False
    excerpt: bool = False

    def claim(self, seqno: int, step: str) -> Batch:
        return batches.claim(
            self.connection, seqno, self.by, self.settings.lease_seconds, run_id=self.run_id, step=step,
            part=self.part, retried=self.retried,
        )  # fmt: skip

    def closes(self, batch: Batch) -> bool:
        """Whether it is this worker who closes the batch: of several parts it is the first."""
        return self.part in (None, 1) or batch.parts == 1

    @contextmanager
    def chunk(self, batch: Batch) -> Iterator[Cursor]:
        """A transaction that begins with the fence."""
        with transaction(self.connection) as cursor:
            batches.hold(cursor, batch, self.settings.lease_seconds)
            yield cursor

    def file(self, batch: Batch) -> AbstractContextManager[Path]:
        """The file of a batch, on this machine for as long as it is used."""
        settings = self.settings
        return uploads.fetched(batch.file_path, batch.file_sha256, settings.uploads, settings.scratch)

    @contextmanager
    def another(self) -> Iterator[Worker]:
        """The same worker once more, with a connection of its own."""
        with closing(connect(self.connection.url)) as connection:
            yield replace(self, connection=connection)


def work(worker: Worker, seqno: int) -> Batch:
    """Validate, load and close a batch. Raises FileError if the file is wrong."""
    validate(worker, seqno)
    load(worker, seqno)
    return close(worker, seqno)


def validate(worker: Worker, seqno: int) -> Batch:
    """Give every record a verdict; stage the accepted ones, enter the rejected ones in the ledger."""
    batch = worker.claim(seqno, "validate")
    if batch.validated_at is not None:
        return batch
    with _ending(worker, batch):
        template = template_of(worker.connection, batch)
        if not _validated(batch):
            _validate_records(worker, batch, template)
        now = batches.get(worker.connection, seqno)
        if now.validated_records == now.records_in_file:  # else others are still at their parts
            _check_threshold(worker, now, template)
            again(worker, lambda: _finish_validation(worker, batch))
        _end_part(worker, batch)
    return batches.get(worker.connection, seqno)


def _end_part(worker: Worker, batch: Batch) -> None:
    """A part of which there was nothing to do has lost no worker either."""
    if batch.part:
        with transaction(worker.connection) as cursor:
            batches.mark_part(cursor, batch)


def _validated(batch: Batch) -> bool:
    """Whether nothing is left to do for the claimed part of a batch."""
    if batch.part is None or batch.records_in_file is None:
        return False
    after, upto = batch.part.left(batch.records_in_file)
    return after == upto


@contextmanager
def _on_disk() -> Iterator[None]:
    """A full disk, a file that may not be read: time or an administrator mends it, not the sender of the file."""
    import duckdb

    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        why = f"{error.strerror or type(error).__name__}{place}"
        raise TryAgain(f"The worker cannot use its disk: {why}.") from error
    except (
        duckdb.IOException,
        duckdb.TransactionException,
    ) as error:  # its words end with those of the system
        why = str(error).partition("\n")[0].rpartition(": ")[2]
        raise TryAgain(f"The worker cannot use its disk: {why}.") from error


@_on_disk()
def _validate_records(worker: Worker, batch: Batch, template: ImportTemplate) -> None:
    import pyarrow

    from rowledger.records_in import Records
    from rowledger.validation import Validation

    kind = loading.kinds()[batch.kind]
    lists = sorted({column.reference for column in template.columns if column.reference})
    references = reference.value_lists(worker.connection, lists, batch.domain_id)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # Arrow's own pool keeps what it no longer needs
    with worker.file(batch) as path, Records(path, template, worker.settings.scratch) as records:
        columns = {
            c.field: name for c, name in zip(template.columns, records.layout.names, strict=True) if c.field
        }
        with worker.chunk(batch) as cursor:
            batches.set_records(cursor, batch, records.count, records.warnings, columns)
            staging.create(cursor, batch, kind, template)
        validation = Validation(template, kind, records, references)
        # The database takes in one chunk while the next is judged.
        with ThreadPoolExecutor(max_workers=1) as writer:
            writing: Future[None] | None = None
            after, upto = batch.validated_records, records.count
            if batch.part:
                after, upto = batch.part.left(records.count)
            for chunk in records.chunks(after, worker.settings.validate_chunk, upto):
                judged = validation.judge(chunk)
                if writing:
                    writing.result()
                writing = writer.submit(
                    copy_context().run, again, worker, partial(_keep, worker, batch, validation, judged)
                )
            if writing:
                writing.result()


def _keep(worker: Worker, batch: Batch, validation: Validation, judged: Judged) -> None:
    verdicts, last, records = validation.verdicts(judged), judged.chunk.last, judged.chunk.records
    with transaction(worker.connection) as cursor:
        batches.hold_shared(cursor, batch)
        ledger.write_rejects(cursor, batch, verdicts.rejects)
        staged = staging.copy_in(cursor, batch, verdicts.accepted)
        lease = worker.settings.lease_seconds
        batches.mark_validated(cursor, batch, last, records, staged, len(verdicts.rejects), lease)
    log.info("Import batch %s: validated up to record %s", batch.seqno, f"{last:,}")


def _check_threshold(worker: Worker, now: Batch, template: ImportTemplate) -> None:
    limit = None if worker.excerpt else template.policies.max_rejected_share
    if limit is None or not now.records_in_file or now.counts["rejected"] <= limit * now.records_in_file:
        return
    common = ledger.common_reasons(worker.connection, now.seqno, [Outcome.REJECTED], 3)
    named = "; ".join(f"{r['records']:,} × {r['rule']}, such as: {r['example']}" for r in common)
    raise FileError(
        "too_many_rejects",
        f"{now.counts['rejected']:,} of {now.records_in_file:,} records are wrong, more than the {limit:.0%} that this "
        f"template allows, so nothing was loaded. The commonest reasons: {named}",
    )


def _finish_validation(worker: Worker, batch: Batch) -> None:
    with worker.chunk(batch) as cursor:
        if batches.read(cursor, batch.seqno).validated_at is not None:
            return  # by who was at another part
        staging.finish(cursor, batch)
        batches.finish_validation(cursor, batch)
        unusual.hold(cursor, batches.read(cursor, batch.seqno))


def load(worker: Worker, seqno: int) -> Batch:
    """Merge the staged records into their targets, lane by lane side by side, chunk by chunk in key order."""
    batch = worker.claim(seqno, "load")
    if batch.succeeded:
        return batch
    with _ending(worker, batch):
        template = template_of(worker.connection, batch)
        cut = again(worker, lambda: _arrange(worker, batch, template))
        if part := batch.part:
            cut = [lane for lane in cut if lane.number % part.of == part.number % part.of]
        _load_lanes(worker, batch, template, cut)
        _end_part(worker, batch)
    return batches.get(worker.connection, seqno)


def _arrange(worker: Worker, batch: Batch, template: ImportTemplate) -> list[Lane]:
    """Settle the match keys and cut them into lanes, unless an earlier try has; returns the lanes."""
    with worker.chunk(batch) as cursor:
        found = lanes.of(cursor, batch)
        if found:
            return found
        loading.lock(cursor, batch)
        loading.loader(batch.kind).arrange(cursor, batch, template)
        loading.loader(batch.kind).make_room(cursor, batch)
        settings = worker.settings
        alone = batch.staged_records <= settings.load_chunk
        lanes.cut(cursor, batch, 1 if alone else settings.load_lanes * batch.parts)
        return lanes.of(cursor, batch)


def arranged(connection: Connection, batch: Batch) -> bool:
    """Whether the lanes of a batch are cut."""
    with transaction(connection) as cursor:
        return bool(lanes.of(cursor, batch))


def _load_lanes(worker: Worker, batch: Batch, template: ImportTemplate, cut: list[Lane]) -> None:
    """Work all lanes off at once. The first error is raised when the other lanes have done the chunk they are at."""
    if not cut:  # fewer lanes than parts
        return
    stop = threading.Event()
    with ExitStack() as stack:
        workers = [worker, *(stack.enter_context(worker.another()) for _ in cut[1:])]
        pool = stack.enter_context(ThreadPoolExecutor(len(cut)))
        stack.callback(stop.set)
        running = [
            pool.submit(copy_context().run, _load_lane, one, batch, template, lane, stop)
            for one, lane in zip(workers, cut, strict=True)
        ]
        for ended in as_completed(running):
            ended.result()


def _load_lane(
    worker: Worker, batch: Batch, template: ImportTemplate, lane: Lane, stop: threading.Event
) -> None:
    while not stop.is_set():
        upto = again(worker, partial(_load_chunk, worker, batch, template, lane))
        if upto is None:
            return
        lane = replace(lane, after=upto)


def _load_chunk(worker: Worker, batch: Batch, template: ImportTemplate, lane: Lane) -> str | None:
    """Load one chunk; returns its last key, or None if there was nothing left."""
    with transaction(worker.connection) as cursor:
        batches.hold_shared(cursor, batch)
        upto = loading.next_key(cursor, batch, lane.after, worker.settings.load_chunk, lane.upto)
        if upto is not None:
            loading.lock_shared(cursor, batch)
            outcomes = loading.merge(cursor, batch, template, lane.after, upto)
            lanes.mark(cursor, batch, lane, upto)
            batches.mark_part(cursor, batch)
            batches.count_loaded(cursor, batch, outcomes, worker.settings.lease_seconds)
            log.info("Import batch %s: %s more records loaded", batch.seqno, f"{outcomes.total():,}")
    return upto


def close(worker: Worker, seqno: int) -> Batch:
    """Complete the ledger and let the database balance it."""
    batch = batches.get(worker.connection, seqno)
    if not worker.closes(batch):
        return batch
    batch = worker.claim(seqno, "close")
    if batch.succeeded:
        return batch
    if batch.loaded_records != batch.staged_records:
        raise SetupError(f"Import batch {seqno} is not loaded yet; run its step load first.")
    with _ending(worker, batch):
        if ledger.lacks_raw(worker.connection, batch):
            _add_raw_cells(worker, batch, worker.chunk)
        again(worker, lambda: _finish(worker, batch))
    return batches.get(worker.connection, seqno)


@_on_disk()
def _add_raw_cells(
    worker: Worker, batch: Batch, chunk: Callable[[Batch], AbstractContextManager[Cursor]]
) -> None:
    """Read the file again for the cells of records that were refused while loading."""
    from rowledger.records_in import Records, raw_cells

    template = template_of(worker.connection, batch)
    with worker.file(batch) as path, Records(path, template, worker.settings.scratch) as records:
        for part in records.chunks(0, worker.settings.validate_chunk):

            def keep(part: Chunk = part) -> None:
                with chunk(batch) as cursor:
                    missing = ledger.without_raw(cursor, batch, part.first, part.last)
                    ledger.add_raw(cursor, batch, raw_cells(part, missing))

            again(worker, keep)


def _finish(worker: Worker, batch: Batch) -> None:
    with worker.chunk(batch) as cursor:
        lanes.forget(cursor, batch)
        staging.drop(cursor, batch)
        batches.finish(cursor, batch, worker.by)


def template_of(connection: Connection, batch: Batch) -> ImportTemplate:
    """The template version that the batch was uploaded with."""
    name, source = batches.template_source(connection, batch)
    return parse_template(source, name, loading.kinds(), f"template {name} of import batch {batch.seqno}")


def complete_raw(worker: Worker, seqno: int) -> None:
    """The same for a batch that failed or was cancelled before its close. Raises TryAgain."""
    batch = _ended(worker, seqno)
    fenced = partial(_fenced, worker)
    try:
        _add_raw_cells(worker, batch, fenced)
    except FileError as error:  # never to be had any more
        log.warning("Import batch %s: the cells of its refused records are lost. %s", seqno, error.in_log)
        with fenced(batch) as cursor:
            ledger.give_up_raw(cursor, batch)


def count_unread(worker: Worker, seqno: int) -> None:
    """A batch that was cancelled before anybody read it: its records were never reached. Raises TryAgain."""
    batch = _ended(worker, seqno)
    try:
        records = _count(worker, batch)
    except FileError as error:  # what cannot be read has no records
        with _fenced(worker, batch) as cursor:
            batches.note(cursor, seqno, "not counted", worker.by, str(error))
        return
    with _fenced(worker, batch) as cursor:
        if batches.read(cursor, seqno).records_in_file is None:
            ledger.add_unprocessed(cursor, batch, records)
            batches.count_unread(cursor, batch, records)
            batches.note(cursor, seqno, "counted", worker.by, f"{records:,} records, none of them reached")


@_on_disk()
def _count(worker: Worker, batch: Batch) -> int:
    from rowledger.records_in import Records

    template = template_of(worker.connection, batch)
    with worker.file(batch) as path, Records(path, template, worker.settings.scratch) as records:
        return int(records.count)


def _ended(worker: Worker, seqno: int) -> Batch:
    """A batch that has ended, and that nobody who fell silent holds any more."""
    with transaction(worker.connection) as cursor:
        batches.end_silent(cursor, worker.settings.lease_seconds, seqno)
    return batches.get(worker.connection, seqno)


@contextmanager
def _fenced(worker: Worker, batch: Batch) -> Iterator[Cursor]:
    """A transaction about a batch that has ended."""
    with transaction(worker.connection) as cursor:
        batches.fence(cursor, batch)
        yield cursor


@contextmanager
def _ending(worker: Worker, batch: Batch) -> Iterator[None]:
    """Close the batch as failed when an error comes that trying again does not mend; let it wait when time does."""
    try:
        _refuse_lost_workers(worker, batch)
        yield
    except Fenced:
        raise
    except TryAgain as error:
        _wait(worker, batch, error)
        raise
    except RowledgerError as error:
        _fail(worker, batch, error.rule, str(error))
        raise
    except Exception as error:
        log.error("Import batch %s: Rowledger itself failed\n%s", batch.seqno, where(error))
        message = f"Rowledger itself failed ({type(error).__name__}); the log of the run has the details."
        _fail(worker, batch, INTERNAL, message)
        raise


def _refuse_lost_workers(worker: Worker, batch: Batch) -> None:
    """A batch that takes every worker down with it must not keep the others waiting for ever."""
    lost = batch.attempts - 1
    if lost >= worker.settings.max_attempts:
        raise WorkerLost(
            f"{lost} workers in a row were lost at this batch without a word and without getting any further than "
            f"{batch.reached}. Most likely they ran out of memory: give them more, or cut the file in parts. "
            f"What is loaded stays loaded; clearing the task goes on from there."
        )


def _wait(worker: Worker, batch: Batch, trouble: TryAgain) -> None:
    """Say why the batch waits, if the database can be told. Raises Fenced: the trouble was that it was taken over."""

    def tell(teller: Worker) -> None:
        with transaction(teller.connection) as cursor:
            batches.wait(cursor, batch, str(trouble))

    if worker.connection.trial:
        return
    try:
        try:
            tell(worker)
        except TryAgain:  # the connection may be what was lost
            with worker.another() as other:
                tell(other)
    except Fenced:
        raise
    except RowledgerError as error:
        log.warning("Import batch %s: nor could it be told why it waits: %s", batch.seqno, error)


def _fail(worker: Worker, batch: Batch, rule: str, message: str) -> None:
    with worker.chunk(batch) as cursor:
        now = batches.read(cursor, batch.seqno)
        unprocessed = ledger.add_unprocessed(cursor, now, now.records_in_file or 0)
        if now.validated_at is None:  # the next try starts from the first record
            staging.drop(cursor, now)
        if now.parts > 1:  # whoever opens it again takes it in one piece
            batches.in_one_piece(cursor, now)
        batches.fail(cursor, now, worker.by, rule, message, unprocessed)


def again(worker: Worker, part: Callable[[], T]) -> T:
    """Do a transaction, again after a short wait if the database was busy; give up after five tries."""
    for attempt in range(1, CHUNK_TRIES):
        try:
            return part()
        except TryAgain as error:
            if worker.connection.closed:
                raise
            log.warning("%s Trying again.", error)
            time.sleep(random.uniform(0.1, 0.3) * 2**attempt)  # noqa: S311 - spreads retries, guards nothing
    return part()
