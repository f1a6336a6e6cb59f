"""Lanes: a load cut into ranges of match keys, one for each connection that works at it, each with a mark of its own.

Merges of one batch that have no match key in common touch no target in common (see ``loading``), so they can run side
by side. Lanes are cut once, when no match key changes any more, and live as long as the staging table.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2 import sql

from rowledger import staging
from rowledger.db import Cursor, queries, rows
from rowledger.model import Batch

_SQL = queries("lanes")


@dataclass(frozen=True)
class Lane:
    """What a connection still has to load: the staged records with ``after < match_key <= upto``; None is no bound."""

    number: int
    after: str | None
    upto: str | None


def cut(cursor: Cursor, batch: Batch, number: int) -> None:
    """Cut the staged records into lanes of about the same size; fewer than ``number`` where keys repeat much."""
    places = [batch.staged_records * share // number for share in range(1, number)]
    query = sql.SQL(_SQL["cut"]).format(staging=staging.table(batch))
    cursor.execute(query, {"seqno": batch.seqno, "places": places})


def of(cursor: Cursor, batch: Batch) -> list[Lane]:
    """The lanes of a batch in the order of their keys; none before they are cut."""
    found = rows(cursor, _SQL["lanes"], {"seqno": batch.seqno})
    return [Lane(one["lane"], one["after"], one["upto"]) for one in found]


def mark(cursor: Cursor, batch: Batch, lane: Lane, key: str) -> None:
    """Move the lane's mark to a match key."""
    cursor.execute(_SQL["mark"], {"seqno": batch.seqno, "lane": lane.number, "key": key})


def forget(cursor: Cursor, batch: Batch) -> None:
    """Nothing is left to load: the staging table goes."""
    cursor.execute(_SQL["forget"], {"seqno": batch.seqno})
