"""Is a batch of a feed far from the feed's last ones? Then it is held until a person approves or refuses it.

The question is asked once, in the transaction that ends the validation: a batch is paused before anything of it is
loaded, whatever crashes. To resume it is to approve it, to cancel it is to refuse it, wherever that is done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2 import sql

from rowledger import control, staging
from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.model import Batch

_SQL = queries("unusual")
LEAST_BATCHES = 3  # with fewer of them nothing is usual yet


@dataclass(frozen=True)
class Held:
    """A batch that waits for a person, and why."""

    seqno: int
    feed: str
    why: str
    held_at: datetime


def hold(cursor: Cursor, batch: Batch) -> None:
    """Measure a validated batch of a feed, and put it before a person if it is unusual and was not before."""
    found = row(cursor, _SQL["of_feed"], {"seqno": batch.seqno})
    if not found:
        return
    measured = {"records": batch.records_in_file or 0, "rejected": batch.counts["rejected"],
                "churn": _churn(cursor, batch)}  # fmt: skip
    cursor.execute(_SQL["measure"], measured | {"feed_file_id": found["feed_file_id"]})
    limits = found["limits"]
    asked = {"feed": found["feed"], "seqno": batch.seqno, "batches": limits.get("batches", LEAST_BATCHES)}
    usual = row(cursor, _SQL["usual"], asked)
    if not usual or usual["batches"] < LEAST_BATCHES:
        return
    why = "; ".join(reasons(limits, measured, usual))
    if why and row(cursor, _SQL["hold"], asked | {"why": why}):
        control.put_aside(cursor, batch, by=f"feed {found['feed']}", why=why)


def _churn(cursor: Cursor, batch: Batch) -> int | None:
    if batch.kind != "contract_status":
        return None
    counting = sql.SQL(_SQL["count_churn"]).format(staging=staging.table(batch))
    found = row(cursor, counting, {"domain_id": batch.domain_id})
    assert found
    return int(found["churn"])


def reasons(limits: Mapping[str, float], now: Mapping[str, Any], usual: Mapping[str, Any]) -> Iterator[str]:
    """What is unusual, in sentences; what is usual is a median of each count."""
    records, most, least = now["records"], limits.get("more_records"), limits.get("fewer_records")
    numbers = f"{records:,} records, {usual['records']:,.0f} are usual"
    if most is not None and records > most * max(usual["records"], 1):
        yield f"{numbers} (more than {most:g} times as many)"
    if least is not None and records < least * usual["records"]:
        yield f"{numbers} (fewer than {least:g} times as many)"
    share, above = now["rejected"] / max(records, 1), limits.get("more_rejected")
    if above is not None and share > usual["rejected_share"] + above:
        yield f"{share:.1%} of the records are rejected, {usual['rejected_share']:.1%} are usual"
    churn, factor = now["churn"], limits.get("more_churn")
    if factor is not None and churn is not None and churn > factor * max(usual["churn"] or 0, 1):
        yield f"{churn:,} churn statuses, {usual['churn'] or 0:,.0f} are usual (more than {factor:g} times as many)"


def undecided(connection: Connection) -> list[Held]:
    """The batches that wait for a person."""
    with transaction(connection) as cursor:
        return [Held(**one) for one in rows(cursor, _SQL["undecided"])]


def take_up(connection: Connection, lease_seconds: int, limit: int) -> list[Held]:
    """Those of them that nobody asks about; they are the caller's to ask about while the lease lasts."""
    asked = {"lease_seconds": lease_seconds, "limit": limit}
    with transaction(connection) as cursor:
        return sorted(
            (Held(**one) for one in rows(cursor, _SQL["take_up"], asked)), key=lambda one: one.seqno
        )


def keep_asking(connection: Connection, seqnos: Collection[int], lease_seconds: int) -> set[int]:
    """Those of some batches that still wait for a person; the lease of whoever asks about them is renewed."""
    asked = {"seqnos": list(seqnos), "lease_seconds": lease_seconds}
    with transaction(connection) as cursor:
        return {one["seqno"] for one in rows(cursor, _SQL["keep_asking"], asked)}
