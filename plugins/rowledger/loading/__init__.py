"""Typed rows -> targets, one module per import kind, each with the same names.

``KIND`` declares the kind; ``CHANGES`` is the query that tells what the records of a chunk changed, before and after;
``arrange(cursor, batch, template)`` runs once before the first chunk and may change match keys; ``make_room(cursor,
batch)`` then opens what lanes would open one after the other; ``merge(cursor, batch, template, after, upto)`` merges the
staged records with ``after < match_key <= upto``, writes their ledger rows and returns how many had which outcome. A kind
that parks records also has ``replay`` with the arguments of ``merge``: it merges the batch's parked records that are due,
and notes with them what became of each. A module in this folder is a kind; there is no list.

For a roll back (``roll_back``): ``EFFECTS`` is the query that tells what the records of a chunk did, each with the
reason why it cannot be undone, if there is one; ``settle(cursor, batch)`` then adds reasons that depend on one another;
``restore(cursor, batch)`` undoes what has none. ``LOCKED`` are the kinds whose chunks are kept out meanwhile.

Chunks are cut between match keys, never through one: everything a file says about one contract or contact is merged
in one transaction, so the result cannot depend on the size of chunks. A merge touches no target but those of its own
keys, so that lanes (``lanes``) merge side by side.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections import Counter
from types import ModuleType
from typing import Any, Protocol, cast

from psycopg2 import sql

from rowledger import parked, staging
from rowledger.db import Cursor, queries, row, savepoint
from rowledger.errors import RecordRefused
from rowledger.model import Batch, Kind, Reason
from rowledger.templates import ImportTemplate

_SQL = queries("loading")


class Loader(Protocol):
    """What a module of this folder has."""

    KIND: Kind
    CHANGES: str
    EFFECTS: str
    LOCKED: tuple[str, ...]

    def arrange(self, cursor: Cursor, batch: Batch, template: ImportTemplate) -> None: ...

    def make_room(self, cursor: Cursor, batch: Batch) -> None: ...

    def merge(
        self, cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
    ) -> Counter[str]: ...

    def settle(self, cursor: Cursor, batch: Batch) -> None: ...

    def restore(self, cursor: Cursor, batch: Batch) -> None: ...


class Replayer(Loader, Protocol):
    """What the module of a kind has whose records can be parked."""

    def replay(
        self, cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
    ) -> Counter[str]: ...


@functools.cache
def _modules() -> dict[str, ModuleType]:
    return {m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}


def kinds() -> dict[str, Kind]:
    """Every import kind by its name."""
    return {name: module.KIND for name, module in _modules().items()}


def loader(kind: str) -> Loader:
    """The loader of a kind."""
    return cast("Loader", _modules()[kind])


def next_key(
    cursor: Cursor, batch: Batch, after: str | None, size: int, end: str | None = None
) -> str | None:
    """The last match key of the next chunk of about ``size`` records; None when everything up to ``end`` is loaded."""
    return _next_key(cursor, staging.table(batch), {"after": after, "size": size, "end": end})


def next_due_key(cursor: Cursor, batch: Batch, after: str | None, size: int) -> str | None:
    """The same for the batch's parked records that are due."""
    asked = {"kind": batch.kind, "seqno": batch.seqno, "after": after, "size": size, "end": None}
    return _next_key(cursor, _DUE, asked)


_DUE = sql.SQL("({}) AS due").format(parked.DUE)


def _next_key(cursor: Cursor, source: sql.Composable, asked: dict[str, Any]) -> str | None:
    found = row(cursor, sql.SQL(_SQL["next_key"]).format(staging=source), asked)
    return found["key"] if found else None


def merge(
    cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
) -> Counter[str]:
    """Merge a chunk. Values that the database refuses are narrowed down to their record, which is rejected."""
    try:
        with savepoint(cursor):
            return loader(batch.kind).merge(cursor, batch, template, after, upto)
    except RecordRefused as refusal:
        middle = _middle_key(cursor, staging.table(batch), batch, after, upto)
        if middle is None:
            return _reject_key(cursor, batch, upto, refusal)
    return merge(cursor, batch, template, after, middle) + merge(cursor, batch, template, middle, upto)


def replay(
    cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
) -> Counter[str]:
    """Replay a chunk of parked records that are due, in the same way."""
    try:
        with savepoint(cursor):
            return cast("Replayer", loader(batch.kind)).replay(cursor, batch, template, after, upto)
    except RecordRefused as refusal:
        middle = _middle_key(cursor, _DUE, batch, after, upto)
        if middle is None:
            return Counter(rejected=parked.refuse(cursor, batch, upto, _refused(batch, refusal)))
    return replay(cursor, batch, template, after, middle) + replay(cursor, batch, template, middle, upto)


def lock(cursor: Cursor, batch: Batch) -> None:
    """One chunk of a kind and domain at a time: batches cannot deadlock, nor miss each other's new rows."""
    asked = _turn(batch)
    cursor.execute(_SQL["lock"], asked)
    cursor.execute(_SQL["take_turn"], asked)


def lock_shared(cursor: Cursor, batch: Batch) -> None:
    """The same for a lane: it shares the lock with the other lanes of the batch, as long as it is the batch's turn."""
    asked = _turn(batch)
    if row(cursor, _SQL["our_turn"], asked):
        cursor.execute("SAVEPOINT turn")
        cursor.execute(_SQL["lock_shared"], asked)
        if row(cursor, _SQL["our_turn"], asked):
            return
        # Another batch was quicker. The share goes back: two lanes that keep theirs would wait for each other.
        cursor.execute("ROLLBACK TO SAVEPOINT turn")
    lock(cursor, batch)


def lock_out(cursor: Cursor, batch: Batch) -> None:
    """No chunk of the kinds that a roll back of the batch could meet, in its domain, until the transaction ends."""
    for kind in sorted(loader(batch.kind).LOCKED):  # in one order, so that two roll backs cannot deadlock
        cursor.execute(_SQL["lock"], _turn(batch) | {"kind": kind})


def _turn(batch: Batch) -> dict[str, Any]:
    return {"kind": batch.kind, "domain_id": batch.domain_id, "seqno": batch.seqno}


def _middle_key(
    cursor: Cursor, source: sql.Composable, batch: Batch, after: str | None, upto: str
) -> str | None:
    """A key that cuts the chunk in two, or None if all its records have one key."""
    asked = {"kind": batch.kind, "seqno": batch.seqno, "after": after, "upto": upto}
    found = row(cursor, sql.SQL(_SQL["middle_key"]).format(staging=source), asked)
    return found["key"] if found else None


_CONSTRAINT_REASONS = {
    "contact_email_unique": ("conflicting_keys", "The email address belongs to another contact already."),
    "contact_external_id_unique": ("conflicting_keys", "The external id belongs to another contact already."),
}


def _reject_key(cursor: Cursor, batch: Batch, key: str, refusal: RecordRefused) -> Counter[str]:
    query = sql.SQL(_SQL["reject_key"]).format(staging=staging.table(batch))
    asked = {"seqno": batch.seqno, "domain_id": batch.domain_id, "key": key}
    cursor.execute(query, asked | _refused(batch, refusal).as_dict())
    return Counter(rejected=cursor.rowcount)


def _refused(batch: Batch, refusal: RecordRefused) -> Reason:
    rule, message = _CONSTRAINT_REASONS.get(
        refusal.constraint or "",
        (
            "refused_by_database",
            f"The database does not take a value of this record (SQLSTATE {refusal.sqlstate}).",
        ),
    )
    return Reason(rule, batch.columns.get(refusal.column or ""), None, message)


def outcomes(cursor: Cursor) -> Counter[str]:
    """The counts of a merge's last statement: rows of outcome and records."""
    return Counter({r["outcome"]: r["records"] for r in cursor.fetchall()})  # type: ignore[call-overload]
