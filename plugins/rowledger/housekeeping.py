"""What need not be kept any more, removed: by the retention of each domain (``include/retention.yml``).

In: batches that have ended, as many days ago as their domain says, and the folder of kept files. Out: files, cells of
refused records, staging tables, volumes of the ledger, years of histories and Idempotency-Keys that are gone, parked
records that are given up; a row per batch of what it does not keep any more, an event of it, and a report of the run.
Batches that have not ended, that are being rolled back, or for which something is still to be read from their file are
left alone.

First it is decided, in short transactions under the fences of the batches, and then done: whoever comes after a run that
was killed does the rest. A file is let go when no batch needs it: several may share one.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from psycopg2 import sql

from rowledger import batches, giving_up, histories, staging, uploads
from rowledger.db import Connection, Cursor, queries, row, rows, transaction, trial
from rowledger.errors import SetupError, TryAgain, UnknownCode
from rowledger.pipeline import Worker, again
from rowledger.retention import Retention

_SQL = queries("housekeeping")
log = logging.getLogger("rowledger")
SIZE = 200  # batches, or a hundred times as many keys or records, a transaction
FEW_FILES = 10


@dataclass(frozen=True)
class Removed:
    """What was removed: so many items of a sort, of a domain if they belong to one."""

    domain: str | None
    what: str
    items: int
    bytes: int = 0


@dataclass(frozen=True)
class _Domain:
    domain_id: int
    code: str


def clean(worker: Worker, retention: Retention) -> list[Removed]:
    """Remove what is due; what was removed is kept as a report of its own. Raises SetupError or TryAgain."""
    domains = _domains(worker.connection, retention)
    with transaction(worker.connection) as cursor:
        run = (row(cursor, _SQL["begin"], {"by": worker.by}) or {})["run"]
    done = []
    for removed in _clean(worker, retention, domains):
        with transaction(worker.connection) as cursor:
            cursor.execute(_SQL["report"], vars(removed) | {"run": run})
        done.append(removed)
    with transaction(worker.connection) as cursor:
        cursor.execute(_SQL["end"], {"run": run})
    return done


def forecast(worker: Worker, retention: Retention) -> list[Removed]:
    """What ``clean`` would remove now; removes nothing."""
    domains = _domains(worker.connection, retention)
    with trial(worker.connection):
        return list(_clean(worker, retention, domains))


def runs(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """What the newest runs have removed, the newest first; a run that has removed nothing is one row without a sort."""
    with transaction(connection) as cursor:
        return rows(cursor, _SQL["runs"], {"limit": limit})


def _domains(connection: Connection, retention: Retention) -> list[_Domain]:
    with transaction(connection) as cursor:
        found = [_Domain(**one) for one in rows(cursor, _SQL["domains"])]
    for code in sorted(set(retention.domains) - {one.code for one in found}):
        raise UnknownCode(f'The retention names a domain "{code}" that does not exist.')
    return found


def _clean(worker: Worker, retention: Retention, domains: list[_Domain]) -> Iterator[Removed]:
    for domain in domains:
        # What waits keeps its volume.
        yield from _told(_give_up(worker, domain, retention.days(domain.code, "parked")))
        yield from _volumes(worker, domain, retention.days(domain.code, "ledger"))
        if days := retention.days(domain.code, "history"):
            yield from _years(worker, domain, days)
        for what, key, do in (
            ("cells", "cells", _strip),
            ("staging", "staging", _drop),
            ("file", "files", None),
        ):
            days = retention.days(domain.code, key)
            decided = _decide(worker, domain, what, days) if days else Removed(domain.code, what, 0)
            items = _finish(worker, domain, what, do) if do else decided.items
            yield from _told(
                Removed(domain.code, _WORDS[what], items, decided.bytes if what == "file" else 0)
            )
        yield from _told(Removed(domain.code, "staging tables left behind", _left_behind(worker, domain)))
        if days := retention.days(domain.code, "upload_keys"):
            yield from _told(Removed(domain.code, "Idempotency-Keys", _forget_keys(worker, domain, days)))
    yield from _sweep(worker)


_WORDS = {
    "file": "batches whose file is not needed",
    "cells": "refused records without cells",
    "staging": "failed batches without staging",
}


def _told(removed: Removed) -> Iterator[Removed]:
    if removed.items:
        yield removed


def _give_up(worker: Worker, domain: _Domain, days: int | None) -> Removed:
    """Parked records that have waited for long enough."""
    many = partial(again, worker)
    records = (
        giving_up.give_up_overdue(worker.connection, domain.domain_id, days, by=worker.by, again=many)
        if days
        else 0
    )
    return Removed(domain.code, "parked records given up", records)


def _volumes(worker: Worker, domain: _Domain, days: int | None) -> Iterator[Removed]:
    """Drop the volumes of the ledger whose every batch is over, and those that a run before had no time for.

    Nobody is kept waiting for long: one that is in use goes the next time.
    """
    asked: dict[str, Any] = {"domain_id": domain.domain_id, "what": "ledger", "days": days}
    if days:
        due = sql.SQL(_SQL["due_volumes"]).format(quiet=sql.SQL(_SQL["quiet"]))
        with transaction(worker.connection) as cursor:
            found = rows(cursor, due, asked)
            for one in rows(cursor, _SQL["waited_for"], asked):
                log.info(_WAITED_FOR, domain.code, one["first_seqno"], one["last_seqno"], one["seqno"])
        for volume in found:
            _decide(worker, domain, "ledger", days, volume["first_seqno"], volume["end_seqno"])
    with transaction(worker.connection) as cursor:
        noted = rows(cursor, _SQL["volumes_to_drop"], asked)
    for volume in noted if not worker.connection.trial else ():
        _strip_roll_backs(worker, domain, volume)
    gone = [volume for volume in noted if _drop_volume(worker, domain, volume)]
    records, size = (sum(volume[what] for volume in gone) for what in ("records", "bytes"))
    yield from _told(Removed(domain.code, "volumes of the ledger", len(gone), size))
    yield from _told(Removed(domain.code, "records of the ledger", records))


_WAITED_FOR = (
    "The ledger of domain %s from import batch %s to %s is kept, as records of import batch %s still wait; "
    "see: rowledger parked, rowledger give-up"
)


def _strip_roll_backs(worker: Worker, domain: _Domain, volume: dict[str, Any]) -> None:
    """Remove what roll backs have kept of a volume that is about to go; that takes longer than to drop it."""
    with transaction(worker.connection) as cursor:
        found = rows(cursor, _SQL["rolled_back"], volume | {"domain_id": domain.domain_id})
    for one in found:
        for after, upto in _chunks(one["mark"]):
            again(worker, partial(_run, worker, one["seqno"], ("strip_roll_back",), after, upto))


def _drop_volume(worker: Worker, domain: _Domain, volume: dict[str, Any]) -> bool:
    try:
        with transaction(worker.connection) as cursor:
            cursor.execute(_SQL["impatience"])
            _one_decides(cursor, domain.domain_id)
            # Another run may have dropped it, and somebody asked for a roll back, since it was noted.
            if row(cursor, _SQL["still_to_drop"], volume | {"domain_id": domain.domain_id}) is None:
                return False
            if not worker.connection.trial:
                name = sql.Identifier(*volume["name"].split("."))
                cursor.execute(sql.SQL(_SQL["drop_volume"]).format(name=name))
            for query in ("volume_dropped", "records_removed"):
                cursor.execute(_SQL[query], volume | {"domain_id": domain.domain_id})
    except TryAgain as busy:
        if worker.connection.closed:
            raise
        log.info("The table %s is in use and goes the next time. %s", volume["name"], busy)
        return False
    if not worker.connection.trial:
        log.info("The table %s is dropped: the ledger of batches that are over", volume["name"])
    return True


def _years(worker: Worker, domain: _Domain, days: int) -> Iterator[Removed]:
    for gone in histories.let_go(worker.connection, domain.domain_id, days):
        if not worker.connection.trial:
            log.info("Domain %s: the %s is kept from %s on", domain.code, gone.name, gone.first_day)
        yield from _told(Removed(domain.code, f"years of the {gone.name}", gone.years, gone.bytes))
        yield from _told(Removed(domain.code, f"entries of the {gone.name}", gone.entries))


def _decide(
    worker: Worker, domain: _Domain, what: str, days: int, first: int = 1, before: int = 2**62
) -> Removed:
    asked = {
        "domain_id": domain.domain_id,
        "what": what,
        "days": days,
        "by": worker.by,
        "size": SIZE,
        "before": before,
    }
    items = size = 0
    after = first - 1
    while True:
        found = again(worker, partial(_decide_some, worker, asked | {"after": after}))
        if found is None:
            return Removed(domain.code, what, items, size)
        after, items, size = found[0], items + found[1], size + found[2]


def _decide_some(worker: Worker, asked: dict[str, Any]) -> tuple[int, int, int] | None:
    """Decide about the next batches; the last of them, how many they were and their bytes, or None if none was left."""
    with transaction(worker.connection) as cursor:
        quiet = sql.SQL(_SQL["quiet"])
        seqnos = [r["seqno"] for r in rows(cursor, sql.SQL(_SQL["next"]).format(quiet=quiet), asked)]
        if not seqnos:
            return None
        _fence(cursor, seqnos)
        if asked["what"] == "ledger":
            _one_decides(cursor, asked["domain_id"])
        # A statement of its own: it sees what was committed while the one before waited.
        found = row(cursor, sql.SQL(_SQL["decide"]).format(quiet=quiet), asked | {"seqnos": seqnos})
        assert found
        return seqnos[-1], found["items"], found["bytes"]


def _fence(cursor: Cursor, seqnos: list[int]) -> None:
    """Not on trial: a server has place for some thousands of locks a transaction, not for those of all batches."""
    if not cursor.connection.trial:  # type: ignore[attr-defined]
        cursor.execute(_SQL["fences"], {"seqnos": seqnos})


def _one_decides(cursor: Cursor, domain_id: int) -> None:
    """No roll back is asked for in the domain meanwhile. After the fences, as whoever asks; not on trial, as these."""
    if not cursor.connection.trial:  # type: ignore[attr-defined]
        cursor.execute(queries("roll_back")["one_decides"], {"domain_id": domain_id})


def _finish(worker: Worker, domain: _Domain, what: str, do: Callable[[Worker, int, int], None]) -> int:
    """Do what was decided, also by a run that was killed; the number of records, or of batches where it is about those."""
    with transaction(worker.connection) as cursor:
        found = rows(cursor, _SQL["unfinished"], {"what": what, "domain_id": domain.domain_id})
    records = 0
    for one in found:
        if not worker.connection.trial:
            do(worker, one["seqno"], one["records_in_file"] or 0)
        records += again(worker, partial(_finished, worker, one["seqno"], what))
    return records if what == "cells" else len(found)


def _finished(worker: Worker, seqno: int, what: str) -> int:
    with transaction(worker.connection) as cursor:
        found = row(cursor, _SQL["finish"], {"seqno": seqno, "what": what})
        assert found
        return int(found["records"])


def _strip(worker: Worker, seqno: int, records: int) -> None:
    """Remove the cells of the refused records of a batch, and what reasons and sentences quote of them."""
    for after, upto in _chunks(records):
        again(worker, partial(_run, worker, seqno, ("strip_records", "strip_parked"), after, upto))
    again(worker, partial(_run, worker, seqno, ("strip_examples", "strip_message", "strip_events")))
    log.info("Import batch %s: the cells of its refused records are removed", seqno)


def _chunks(records: int) -> Iterator[tuple[int, int]]:
    """The records of a batch in pieces: the number before each, and its last."""
    size = SIZE * 100
    return ((after, after + size) for after in range(0, records, size))


def _run(worker: Worker, seqno: int, names: tuple[str, ...], after: int = 0, upto: int = 0) -> None:
    with transaction(worker.connection) as cursor:
        _fence(cursor, [seqno])
        for name in names:
            cursor.execute(_SQL[name], {"seqno": seqno, "after": after, "upto": upto})


def _drop(worker: Worker, seqno: int, _records: int) -> None:
    def drop() -> None:
        with transaction(worker.connection) as cursor:
            _fence(cursor, [seqno])
            staging.drop(cursor, batches.read(cursor, seqno))

    again(worker, drop)
    log.info("Import batch %s: its staging table is removed", seqno)


def _left_behind(worker: Worker, domain: _Domain) -> int:
    with transaction(worker.connection) as cursor:
        found = [r["seqno"] for r in rows(cursor, _SQL["left_behind"], {"domain_id": domain.domain_id})]
    for seqno in found if not worker.connection.trial else ():
        _drop(worker, seqno, 0)
    return len(found)


def _forget_keys(worker: Worker, domain: _Domain, days: int) -> int:
    def forget() -> int:
        with transaction(worker.connection) as cursor:
            asked = {"domain_id": domain.domain_id, "days": days, "size": SIZE * 100}
            cursor.execute(_SQL["old_keys"], asked)
            return cursor.rowcount

    return sum(iter(partial(again, worker, forget), 0))


def _sweep(worker: Worker) -> Iterator[Removed]:
    """Let go every kept file that no batch needs, and what uploads and dry runs have left that were killed.

    A file that was kept within a day may be about to become a batch. Raises SetupError if the folder is another one's.
    """
    place, scratch = worker.settings.uploads, worker.settings.scratch
    a_day_ago = time.time() - uploads.ORPHAN_SECONDS
    unneeded, known = _unneeded(worker, uploads.kept(place), a_day_ago)
    let_go = partial(batches.let_file_go, worker.connection, place, kept_before=a_day_ago)
    for what, vanished in (("files", False), ("vanished uploads", True)):
        some = [one for one, never in unneeded if never is vanished]
        if vanished and len(some) >= FEW_FILES and len(some) > known:
            raise SetupError(
                f"{len(some):,} of the kept files in {place} belong to no batch of this database, {known:,} do. "
                f"Nothing of them was removed: is it the right database?"
            )
        gone = [one for one in some if worker.connection.trial or let_go(one.sha256)]
        yield from _told(Removed(None, what, len(gone), sum(one.bytes for one in gone)))
    if not worker.connection.trial:
        left = [*uploads.reap(place), *uploads.reap(scratch, "*")]
        yield from _told(Removed(None, "half files", len(left), sum(left)))


def _unneeded(
    worker: Worker, kept: Iterator[uploads.Kept], kept_before: float
) -> tuple[list[tuple[uploads.Kept, bool]], int]:
    """The files that no batch needs, each with whether none was ever made of it; how many files have or had a batch."""
    found, known = [], 0
    while some := list(itertools.islice(kept, SIZE * 10)):
        with transaction(worker.connection) as cursor:
            asked = {"sha256s": [one.sha256 for one in some]}
            told = {r["sha256"]: r for r in rows(cursor, _SQL["files"], asked)}
        known += sum(not one["vanished"] for one in told.values())
        found += [
            (one, told[one.sha256]["vanished"])
            for one in some
            if not told[one.sha256]["needed"] and one.kept_at < kept_before
        ]
    return found, known
