"""What is measured of a kind's batches, by name; ``rowledger.airflow.metrics`` sends it."""

from __future__ import annotations

from rowledger.db import Connection, queries, rows, transaction
from rowledger.model import Batch, BatchStatus

_SQL = queries("metrics")
UNFINISHED = (BatchStatus.WAITING, BatchStatus.IN_PROGRESS, BatchStatus.PAUSED)
ENDED = ("succeeded", "failed", "cancelled")


def unfinished(connection: Connection, kind: str) -> dict[str, float]:
    """Gauges: batches that have not ended, by state, and the age in seconds of the one that waits longest."""
    with transaction(connection) as cursor:
        found = {r["status"]: r for r in rows(cursor, _SQL["unfinished"], {"kind": kind})}
    counts = {
        f"batches.{kind}.{status}": found[status]["batches"] if status in found else 0
        for status in UNFINISHED
    }
    waiting = found.get(BatchStatus.WAITING)
    return counts | {f"waiting_seconds.{kind}": waiting["age"] if waiting else 0.0}


def lapsed(connection: Connection, kind: str, run_id: str) -> set[int]:
    """The batches whose worker has fallen silent: whoever reserves one takes it over."""
    with transaction(connection) as cursor:
        return {r["seqno"] for r in rows(cursor, _SQL["lapsed"], {"kind": kind, "run_id": run_id})}


def ended(batch: Batch) -> dict[str, int]:
    """Counters of a batch that has ended: itself, and its records by outcome."""
    succeeded, failed, cancelled = ENDED
    how = succeeded if batch.succeeded else failed if batch.failed else cancelled
    counts = {f"records.{batch.kind}.{outcome}": count for outcome, count in batch.counts.items() if count}
    return {f"batches_ended.{batch.kind}.{how}": 1} | counts


def seconds(batch: Batch) -> float | None:
    """For how long it was worked on, from the first claim to the end."""
    if batch.started_at is None or batch.processed_at is None:
        return None
    return (batch.processed_at - batch.started_at).total_seconds()


def rate(batch: Batch) -> float | None:
    """Records a second."""
    took = seconds(batch)
    return batch.records_in_file / took if took and batch.records_in_file else None
