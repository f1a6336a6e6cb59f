"""Parked records that nobody waits for any more: given up by a person, or by the retention of their domain.

In: a batch that has ended, or one contract or code for which records wait. Out: what waited and still lacks what it waits
for is never replayed again; it stands beside the ledger, which stays as it is, and among the rejects to be mended. What
exists by now is left to the replay.

A chunk is one transaction, under the fence of the batch and the lock of a replay: of the two, one comes to a record. Each
is an event of the batch, who, when, how many and why; what was killed is done by whoever asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from psycopg2 import sql

from rowledger import batches, domains, loading, parked
from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.errors import NotPossible
from rowledger.model import Batch
from rowledger.roll_back import refuse_no_reason

_SQL = queries("parked")
log = logging.getLogger("rowledger")
CHUNK = 50_000  # records; imports of their kind and domain wait meanwhile, some seconds at most
Again = Callable[[Callable[[], Any]], Any]  # does a transaction, once more if the database was busy


@dataclass(frozen=True)
class Thing:
    """What records wait for: a contract by its form id, or a status by its result code."""

    waits_for: Literal["contract", "status"]
    key: str

    @property
    def in_words(self) -> str:
        """As people call it."""
        return f'{"contract" if self.waits_for == "contract" else "result code"} "{self.key}"'


def give_up(connection: Connection, seqno: int, *, by: str, why: str, thing: Thing | None = None) -> int:
    """Give up what waits of a batch, or what waits for one thing; returns how many records that were.

    Raises UnknownCode, NotPossible or TryAgain.
    """
    why = _reason(why)
    with transaction(connection) as cursor:
        _refuse_impossible(cursor, batches.read(cursor, seqno))
    records = _of_batch(connection, seqno, by=by, why=why, thing=thing)
    if not records:
        raise NotPossible(_nothing(connection, seqno, thing))
    return records


def give_up_thing(
    connection: Connection, kind: str, domain: str, thing: Thing, *, by: str, why: str
) -> dict[int, int]:
    """Give up what waits for a thing in all batches of a kind that have ended; for each, how many records that were.

    Raises UnknownCode, NotPossible or TryAgain.
    """
    why = _reason(why)
    with transaction(connection) as cursor:
        asked = {"kind": kind, "domain_id": domains.id_of(cursor, domain)} | vars(thing)
        seqnos = [r["seqno"] for r in rows(cursor, _SQL["batches_waiting"], asked)]
    done = {seqno: _of_batch(connection, seqno, by=by, why=why, thing=thing) for seqno in seqnos}
    done = {seqno: records for seqno, records in done.items() if records}
    if not done:
        raise NotPossible(
            f"What waits for {thing.in_words} is replayed by the next run, because that exists by now."
            if seqnos
            else f"No record of an import batch that has ended waits for {thing.in_words} in domain {domain}."
        )
    return done


def give_up_overdue(connection: Connection, domain_id: int, days: int, *, by: str, again: Again) -> int:
    """Give up what has waited in a domain for longer than so many days since the end of its batch; how many records.

    Raises TryAgain.
    """
    with transaction(connection) as cursor:
        seqnos = rows(cursor, _SQL["batches_overdue"], {"domain_id": domain_id, "days": days})
    why = f"the domain waits for {days} days"
    return sum(_of_batch(connection, one["seqno"], by=by, why=why, again=again) for one in seqnos)


def in_words(records: int) -> str:
    """How many records were given up."""
    return f"{records:,} parked record{'s' * (records != 1)} {'are' if records != 1 else 'is'} given up"


def _of_batch(
    connection: Connection,
    seqno: int,
    *,
    by: str,
    why: str,
    thing: Thing | None = None,
    again: Again = lambda part: part(),
) -> int:
    asked = {"waits_for": None, "key": None} | (vars(thing) if thing else {})
    records, after = 0, 0
    while found := again(partial(_chunk, connection, seqno, asked | {"after": after}, by, why)):
        records, after = records + found["records"], found["last"]
    return records


def _chunk(
    connection: Connection, seqno: int, asked: dict[str, Any], by: str, why: str
) -> dict[str, Any] | None:
    """Give up the next records; how many and the number of the last, or None if there were none."""
    with transaction(connection) as cursor:
        batch = _locked(cursor, seqno)
        if not batch.status.terminal:
            return None
        asked |= {
            "seqno": seqno, "domain_id": batch.domain_id, "size": CHUNK,
            "message": f"Nobody waits for it any more: {why}.",
        }  # fmt: skip
        # A statement of its own: it sees what was committed while the one before waited.
        found = row(cursor, sql.SQL(_SQL["give_up"]).format(exists_now=parked.EXISTS_NOW), asked)
        assert found
        if not found["records"]:
            return None
        if not connection.trial:  # an event would lock its batch until the trial ends
            waited = f"{found['records']:,} parked record{'s' * (found['records'] != 1)}"
            batches.note(cursor, seqno, "given up", by, f"{waited}: {why}")
    if not connection.trial:
        log.info("Import batch %s: %s", seqno, in_words(found["records"]))
    return found


def _locked(cursor: Cursor, seqno: int) -> Batch:
    """The batch under its fence and the lock of a replay. Not on trial: nobody shall wait for the end of that."""
    if cursor.connection.trial:  # type: ignore[attr-defined]
        return batches.read(cursor, seqno)
    batch = batches.take(cursor, seqno)
    loading.lock(cursor, batch)
    return batch


def _reason(why: str) -> str:
    return refuse_no_reason(why, "nobody is to wait any more").removesuffix(".")


def _refuse_impossible(cursor: Cursor, batch: Batch) -> None:
    if not batch.status.terminal:
        raise NotPossible(
            f"Import batch {batch.seqno} has not ended yet; what waits of it then can be given up."
        )
    asked = row(cursor, _SQL["is_rolled_back"], {"seqno": batch.seqno})
    if asked and asked["asked"]:
        raise NotPossible(f"Import batch {batch.seqno} is rolled back, and with it what waited.")


def _nothing(connection: Connection, seqno: int, thing: Thing | None) -> str:
    """Why there was nothing to give up."""
    found = parked.groups(connection, None, None, 1000, seqno=seqno)
    if any(thing is None or (one["waits_for"], one["key"]) == (thing.waits_for, thing.key) for one in found):
        return f"What waits of import batch {seqno} is replayed by the next run: what it waits for exists by now."
    return f"No record of import batch {seqno} waits{f' for {thing.in_words}' if thing else ''}."
