"""What a batch changed, taken back: from its ledger and the histories, set-based, whole or as far as others allow.

In: a batch that has ended, and who wants it rolled back and why. Out: its targets as they were before it; one row for
each record that had changed something, which says that it was restored or why it was spared; an event. What another
batch has changed or confirmed since is spared, and so is what something else hangs on. The ledger of the batch stays.

A chunk is one transaction: check the fence, keep imports out, restore, note it, move the mark, commit. A roll back that
was killed goes on where it stopped; of two at once the second finds less to do; done twice it changes nothing.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from psycopg2 import sql

from rowledger import batches, loading, pipeline
from rowledger.db import Connection, Cursor, queries, row, rows, savepoint, transaction
from rowledger.errors import NotPossible, RecordRefused, UnknownCode
from rowledger.model import Batch
from rowledger.pipeline import Worker

_SQL = queries("roll_back")
log = logging.getLogger("rowledger")
PLAN_CHUNK = 5_000  # records; what is told of them passes through memory


@dataclass(frozen=True)
class RollBack:
    """That a batch is to be rolled back: who asked when and why, how far it has come (``mark`` is a record number)."""

    seqno: int
    asked_at: datetime
    asked_by: str
    why: str
    mark: int
    restored: int
    spared: int
    finished_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """What is shown to programs."""
        return asdict(self)

    @property
    def in_words(self) -> str:
        """How many records were restored and spared."""
        restored = f"{self.restored:,} record{'s' * (self.restored != 1)} restored"
        return f"{restored}, {self.spared:,} spared"


@dataclass(frozen=True)
class Plan:
    """What a roll back would do now: counts of records, and the first of those that it would restore and spare.

    ``withdrawn`` counts parked records that still wait. A row has record_no, about, outcome and result; and either
    ``removed`` (what would be taken away) and ``restores`` (what fields would be again), or reason, later_seqno,
    later_record_no and detail (see ``why_spared``).
    """

    restored: int
    spared: int
    withdrawn: int
    restored_records: list[dict[str, Any]]
    spared_records: list[dict[str, Any]]


def ask(connection: Connection, seqno: int, *, by: str, why: str) -> RollBack:
    """Ask for the roll back of a batch that has ended; who has asked before stays the one.

    Raises UnknownCode or NotPossible.
    """
    why = refuse_no_reason(why)
    with transaction(connection) as cursor:
        batch = batches.take(cursor, seqno)
        if not row(cursor, _SQL["roll_back"], {"seqno": seqno}):
            cursor.execute(_SQL["one_decides"], {"domain_id": batch.domain_id})
            _refuse_impossible(cursor, batch)
        cursor.execute(_SQL["ask"], {"seqno": seqno, "by": by, "why": why})
        if cursor.rowcount:
            batches.note(cursor, seqno, "roll back asked", by, why)
        return _read(cursor, seqno)


def refuse_no_reason(why: str, what: str = "it is rolled back") -> str:
    """The reason of something as it is kept. Raises UnknownCode if it is none."""
    why = unicodedata.normalize("NFC", " ".join(why.split()))
    if not why or len(why) > 255 or not why.isprintable():
        raise UnknownCode(f"Say why {what}, in one line of at most 255 characters.")
    return why


def of(connection: Connection, seqno: int) -> RollBack | None:
    """The roll back of a batch, if anybody has asked for it."""
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["roll_back"], {"seqno": seqno})
        return RollBack(**found) if found else None


def pending(connection: Connection, kind: str) -> list[int]:
    """The seqnos of the batches whose roll back is asked for and not finished, in the order in which to do them."""
    with transaction(connection) as cursor:
        return [r["seqno"] for r in rows(cursor, _SQL["pending"], {"kind": kind})]


def work(worker: Worker, seqno: int) -> RollBack:
    """Do a roll back that was asked for, or what is left of it. Raises UnknownCode."""
    while True:
        found = pipeline.again(worker, partial(_work_chunk, worker, seqno))
        if found.finished_at is not None:
            return found


def plan(connection: Connection, seqno: int, limit: int) -> Plan:
    """What a roll back would do now, as numbers and the first rows of both lists; writes nothing.

    Raises UnknownCode or NotPossible.
    """
    counts, lists = {"restored": 0, "spared": 0}, {"restored": list[dict[str, Any]](), "spared": []}
    for one in planned(connection, seqno):
        counts[one["result"]] += 1
        if len(lists[one["result"]]) < limit:
            lists[one["result"]].append(one)
    with transaction(connection) as cursor:
        waiting = row(cursor, _SQL["waiting"], {"seqno": seqno})
    assert waiting
    return Plan(counts["restored"], counts["spared"], waiting["records"], lists["restored"], lists["spared"])


def planned(connection: Connection, seqno: int) -> Generator[dict[str, Any]]:
    """The same record by record, in flat memory. Raises UnknownCode or NotPossible."""
    with transaction(connection) as cursor:
        batch = batches.read(cursor, seqno)
        _refuse_impossible(cursor, batch)
    told = set[int]()  # beside a record of an earlier chunk that wants a key back from them
    for after in range(0, batch.records_in_file or 0, PLAN_CHUNK):
        with transaction(connection) as cursor:
            _find(cursor, batch, after, after + PLAN_CHUNK)
            found = rows(cursor, _SQL["planned"])
            cursor.execute("DROP TABLE effect")
        found = [one for one in found if one["record_no"] > after and one["record_no"] not in told]
        told |= {one["record_no"] for one in found if one["record_no"] > after + PLAN_CHUNK}
        yield from found


def why_spared(record: Mapping[str, Any]) -> str:
    """The reason of a spared record as a sentence."""
    by = f"Import batch {record['later_seqno']}, record {record['later_record_no']},"
    return _WHY[record["reason"]].format(by=by, detail=record["detail"])


_WHY = {
    "changed_later": "{by} has changed it since.",
    "confirmed_later": "{by} has said the same since.",
    "timer": 'The status "{detail}" has been given automatically since.',
    "has_status": "{by} has given it a status.",
    "changed_by_reference": "A reference file, loaded by {detail}, has changed it since.",
    "changed_by_hand": "It has been opted in to or out of a list by hand since.",
    "named_by_contract": 'Contract "{detail}" names it.',
    "key_taken": '"{detail}", which it had before, belongs to another contact now.',
    "contact_gone": 'The contact "{detail}", which it had before, does not exist any more.',
    "gone": "It does not exist any more.",
    "history_not_kept": "What it was before is not kept any more.",
    "not_noted": "What it was before was not noted at that time.",
    "refused_by_database": "The database does not take what it had before ({detail}).",
}


def _refuse_impossible(cursor: Cursor, batch: Batch) -> None:
    if not batch.status.terminal:
        raise NotPossible(
            f"Import batch {batch.seqno} is {batch.status.replace('_', ' ')}; cancel it first, then it can be rolled back."
        )
    if gone := batches.records_not_kept(cursor, batch.seqno):
        raise NotPossible(gone)
    later = row(cursor, _SQL["lost"], {"domain_id": batch.domain_id, "started_at": batch.started_at})
    if later and later["seqno"]:
        raise NotPossible(
            f"Import batch {batch.seqno} cannot be rolled back: import batch {later['seqno']} ended after it had begun, "
            "and its records, which would say what it has changed since, are not kept any more."
        )


def _work_chunk(worker: Worker, seqno: int) -> RollBack:
    with transaction(worker.connection) as cursor:
        batch = batches.take(cursor, seqno)
        found = _read(cursor, seqno)
        if found.finished_at is not None:
            return found
        loading.lock_out(cursor, batch)
        last = batch.records_in_file or 0
        upto = min(found.mark + worker.settings.load_chunk, last)
        counts = _roll_back(cursor, batch, found.mark, upto)
        cursor.execute(_SQL["withdraw_parked"], {"seqno": seqno, "after": found.mark, "upto": upto})
        cursor.execute(_SQL["mark"], counts | {"seqno": seqno, "upto": upto, "finished": upto == last})
        now = _read(cursor, seqno)
        if now.finished_at is not None:
            batches.note(cursor, seqno, "rolled back", worker.by, now.in_words)
    log.info("Import batch %s: rolled back up to record %s", seqno, f"{upto:,}")
    return now


def _roll_back(cursor: Cursor, batch: Batch, after: int, upto: int) -> dict[str, int]:
    """Undo what the records after ``after`` up to ``upto`` did; returns how many were restored and spared.

    What the database refuses is narrowed down to its record, which is spared.
    """
    try:
        with savepoint(cursor):
            return _restore(cursor, batch, after, upto)
    except RecordRefused as refusal:
        if upto - after == 1:
            return _restore(cursor, batch, after, upto, refusal.sqlstate)
    middle = (after + upto) // 2
    first, second = _roll_back(cursor, batch, after, middle), _roll_back(cursor, batch, middle, upto)
    return {result: first[result] + second[result] for result in first}


def _restore(
    cursor: Cursor, batch: Batch, after: int, upto: int, refused: str | None = None
) -> dict[str, int]:
    _find(cursor, batch, after, upto)
    if refused:
        cursor.execute(_SQL["spare_all"], {"detail": f"SQLSTATE {refused}"})
    loading.loader(batch.kind).restore(cursor, batch)
    counts = row(cursor, _SQL["record"], {"seqno": batch.seqno})
    cursor.execute("DROP TABLE effect")
    assert counts
    return counts


def _find(cursor: Cursor, batch: Batch, after: int, upto: int) -> None:
    """Make the temporary table ``effect``: what the records did, and what keeps each from being undone."""
    loader = loading.loader(batch.kind)
    parts = {name: sql.SQL(_SQL[name]) for name in ("records", "replayed")}
    later = {"later": _later(batch.kind), "later_status": _later("contract_status")}
    effects = sql.SQL(loader.EFFECTS).format(**parts, **later)
    asked = {"seqno": batch.seqno, "domain_id": batch.domain_id, "started_at": batch.started_at}
    oldest = (row(cursor, _SQL["oldest"], asked) or {})["seqno"]
    asked |= {"after": after, "upto": upto, "oldest": oldest}
    # However large a table is, a chunk finds its few rows by index; the planner would rather read all of it.
    cursor.execute("SET LOCAL enable_seqscan = off")
    cursor.execute(sql.SQL(_SQL["find"]).format(effects=effects), asked)
    cursor.execute("ANALYZE effect")
    loader.settle(cursor, batch)


def _later(kind: str) -> sql.Composed:
    return sql.SQL(_SQL["later"]).format(kind=sql.Literal(kind))


def _read(cursor: Cursor, seqno: int) -> RollBack:
    found = row(cursor, _SQL["roll_back"], {"seqno": seqno})
    if not found:
        raise UnknownCode(f"Nobody has asked for a roll back of import batch {seqno}.")
    return RollBack(**found)
