"""What people ask of a batch: pause, resume, cancel.

A request takes the fence, as a chunk does: it waits for the chunk that is being written, at most, and is in effect when
the call returns, whatever becomes of the worker. The worker finds out at its next chunk and stops (``errors.Stopped``).
Every request is an event of the batch: who, when, why. To roll back what a cancelled batch has written is a step of its
own (``roll_back``).
"""

from __future__ import annotations

from rowledger import batches, lanes, ledger, staging
from rowledger.db import Connection, Cursor, queries, transaction
from rowledger.errors import NotPossible
from rowledger.model import Batch, BatchStatus

_SQL = queries("control")


def pause(connection: Connection, seqno: int, *, by: str, why: str = "") -> Batch:
    """Stop work on a batch until it is resumed; what is written stays. Raises UnknownCode, NotPossible or TryAgain."""
    with transaction(connection) as cursor:
        batch = batches.take(cursor, seqno)
        if batch.status.terminal:
            raise NotPossible(f"{_ended(batch)}, so it cannot be paused any more.")
        if batch.status is not BatchStatus.PAUSED:
            put_aside(cursor, batch, by=by, why=why)
        return batches.read(cursor, seqno)


def put_aside(cursor: Cursor, batch: Batch, *, by: str, why: str) -> None:
    """Pause a batch within a transaction that has its fence."""
    cursor.execute(_SQL["pause"], {"seqno": batch.seqno})
    batches.note(cursor, batch.seqno, "paused", by, _detail(f"at {batch.reached}", why))


def resume(connection: Connection, seqno: int, *, by: str, why: str = "") -> Batch:
    """Let a paused batch wait for the next run, which goes on where it was. Raises UnknownCode, NotPossible or TryAgain."""
    with transaction(connection) as cursor:
        batch = batches.take(cursor, seqno)
        if batch.status.terminal:
            raise NotPossible(f"{_ended(batch)}, so it cannot be resumed.")
        if batch.status is BatchStatus.PAUSED:
            cursor.execute(_SQL["resume"], {"seqno": seqno})
            batches.note(cursor, seqno, "resumed", by, _detail("", why))
        return batches.read(cursor, seqno)


def cancel(connection: Connection, seqno: int, *, by: str, why: str = "") -> Batch:
    """End a batch where it is: what is written stays, records not reached are unprocessed.

    A batch that is cancelled already stays as it is. Raises UnknownCode, NotPossible or TryAgain.
    """
    with transaction(connection) as cursor:
        batch = batches.take(cursor, seqno)
        if batch.status is BatchStatus.EXECUTED:
            raise NotPossible(
                f"{_ended(batch)}, so it cannot be cancelled any more. To undo what it has written, roll it back."
            )
        if batch.status is not BatchStatus.CANCELLED:
            unprocessed = ledger.add_unprocessed(cursor, batch, batch.records_in_file or 0)
            staging.drop(cursor, batch)
            lanes.forget(cursor, batch)
            cursor.execute(_SQL["cancel"], {"seqno": seqno, "unprocessed": unprocessed})
            batches.note(cursor, seqno, "cancelled", by, _detail(f"at {batch.reached}", why))
        return batches.read(cursor, seqno)


def _ended(batch: Batch) -> str:
    how = (
        "was cancelled" if batch.status is BatchStatus.CANCELLED else "failed" if batch.failed else "is done"
    )
    return f"Import batch {batch.seqno} {how}"


def _detail(place: str, why: str) -> str | None:
    return ": ".join(filter(None, [place, why.strip()])) or None
