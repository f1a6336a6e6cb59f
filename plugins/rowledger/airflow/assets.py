"""What is loaded, as Airflow's assets: one for each import kind, with an event for every batch that went in.

The task that closes a batch has an alias as its outlet: an asset would have an event after every success of the task,
also when it is cleared and finds nothing to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Asset, AssetAlias, get_current_context

from rowledger.model import Batch

if TYPE_CHECKING:
    from pydantic import JsonValue


def loaded(kind: str) -> Asset:
    """What DAGs are scheduled on that want to know of new data of a kind."""
    return Asset(f"rowledger/{kind}")


def outlet(kind: str) -> AssetAlias:
    """What the closing task of a kind names as its outlet, and as its inlet, to see what it has told before."""
    return AssetAlias(f"rowledger/{kind}/closed")


def announced(batch: Batch) -> bool:
    """Whether Airflow has been told of a batch that went in: a worker may be lost between the close and its report.

    Asks the API server, by the inlet of the closing task.
    """
    events = get_current_context()["inlet_events"][outlet(batch.kind)]
    since = events.after(batch.processed_at.isoformat()) if batch.processed_at else events
    return any((event.extra or {}).get("seqno") == batch.seqno for event in since)


def announce(batch: Batch) -> None:
    """Tell Airflow of a batch that went in: its number, its domain and its counts, never a value."""
    extra: dict[str, JsonValue] = {
        "seqno": batch.seqno, "kind": batch.kind, "domain": batch.domain, "template": batch.template,
        "records": batch.records_in_file or 0,
        "counts": {outcome: count for outcome, count in batch.counts.items() if count},
    }  # fmt: skip
    get_current_context()["outlet_events"][outlet(batch.kind)].add(loaded(batch.kind), extra=extra)
