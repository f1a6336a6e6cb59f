"""Parked records: what waits for what, and what of it is due because the code or contract exists by now.

A record is parked by the loader of its kind, in the transaction that enters it in the ledger as parked. Its row has all
that is needed to replay it. The ledger of its batch never changes; what became of it stands here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from psycopg2 import sql

from rowledger import domains
from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.model import Batch, Outcome, Reason

_SQL = queries("parked")
WITHDRAWN = (
    "withdrawn"  # beside the outcomes of the ledger: the batch was rolled back while the record waited
)
GIVEN_UP = "given_up"  # another one: nobody waits for it any more, see ``giving_up``
DUE = sql.SQL(_SQL["due"])
EXISTS_NOW = sql.SQL(_SQL["exists_now"])


def anything_due(connection: Connection, kind: str) -> bool:
    """Whether a replay of the kind would find something to do; quick, however much waits."""
    with transaction(connection) as cursor:
        found = row(cursor, sql.SQL(_SQL["is_due"]).format(due=DUE), {"kind": kind, "seqno": None})
        return bool(found and found["due"])


def batches_due(connection: Connection, kind: str) -> list[int]:
    """The seqnos of the batches that have such records, the oldest first."""
    with transaction(connection) as cursor:
        query = sql.SQL(_SQL["batches_due"]).format(due=DUE)
        return [r["seqno"] for r in rows(cursor, query, {"kind": kind, "seqno": None})]


def refuse(cursor: Cursor, batch: Batch, key: str, reason: Reason) -> int:
    """Give the due records of a match key, which the database does not take, the outcome rejected; how many."""
    asked = {"kind": batch.kind, "seqno": batch.seqno, "key": key} | reason.as_dict()
    cursor.execute(sql.SQL(_SQL["refuse"]).format(due=DUE), asked)
    return cursor.rowcount


def groups(
    connection: Connection,
    kind: str | None,
    domain: str | None,
    limit: int,
    *,
    kinds: Sequence[str] | None = None,
    seqno: int | None = None,
) -> list[dict[str, Any]]:
    """What waits for what: how many records, of which batches, since when; most records first. Raises UnknownCode.

    Of a kind, or of some; of all batches, or of one.
    """
    among = [kind] if kind else None if kinds is None else list(kinds)
    with transaction(connection) as cursor:
        domain_id = None if domain is None else domains.id_of(cursor, domain)
        asked = {"kinds": among, "domain_id": domain_id, "seqno": seqno, "limit": limit}
        return rows(cursor, sql.SQL(_SQL["groups"]).format(exists_now=EXISTS_NOW), asked)


def became(connection: Connection, seqno: int) -> dict[str, int]:
    """How many of a batch's parked records were replayed with which outcome, and how many are still parked."""
    with transaction(connection) as cursor:
        return {r["outcome"]: r["records"] for r in rows(cursor, _SQL["became"], {"seqno": seqno})}


def waiting(became: dict[str, int]) -> int:
    """How many of them still wait."""
    return became.get(Outcome.PARKED, 0)


def in_words(became: dict[str, int], see: str = "") -> str:
    """What became of the records that the ledger calls parked; ``see`` is said of those that wait."""
    of = Counter(became)
    told = [f"{of[Outcome.PARKED]:,} still wait{'s' * (of[Outcome.PARKED] == 1)}{see}"] * (
        of[Outcome.PARKED] > 0
    )
    told += [f"{of[one]:,} became {one}" for one in Outcome if of[one] and one is not Outcome.PARKED]
    for one, words in ((GIVEN_UP, "given up"), (WITHDRAWN, "withdrawn by the roll back")):
        told += [f"{of[one]:,} {'was' if of[one] == 1 else 'were'} {words}"] * (of[one] > 0)
    return f"Of the parked records {', '.join(told)}."
