"""One batch as people look at it: how far it is, its timeline, why records were not loaded, a page of its records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg2.extras import Json

from rowledger import batches
from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.desk.context import Engine
from rowledger.model import Batch, BatchStatus, Outcome

_SQL = queries("desk")
LOOKED_AT = 10_000  # records of a batch at work whose reasons are counted
# From here on an error message has values of the file; what stands before ends with this.
QUOTES_BEGIN = {" The commonest reasons: ": "", ", but reads ": "."}
NOT_LOADED = (Outcome.REJECTED, Outcome.IGNORED, Outcome.PARKED)


def etag(batch: Batch) -> str:
    """Changes with the state of a batch, not with its progress: what is asked of a batch at work must not come too late."""
    state = (batch.seqno, batch.status, batch.import_completed, batch.processed, batch.processed_at)
    return f'"{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}"'


def version(batch: Batch) -> str:
    """Changes with anything that a page shows of a batch."""
    return hashlib.sha256(repr(batch).encode()).hexdigest()[:12]


def state(batch: Batch) -> str:
    """One word for where a batch stands and how it went."""
    if batch.status is not BatchStatus.EXECUTED:
        return str(batch.status)
    return "succeeded" if batch.processed else "failed"


def shown(batch: Batch, personal: bool) -> dict[str, Any]:
    """A batch for programs; without the right on personal data no value of its file."""
    return batch.as_dict() | {
        "state": state(batch),
        "etag": etag(batch),
        "error_message": error_message(batch, personal),
        "warnings": [without_values(w) for w in batch.warnings] if not personal else batch.warnings,
    }


def error_message(batch: Batch, personal: bool) -> str | None:
    """Why a batch failed."""
    message = batch.error_message
    return message if personal or not message else without_quotes(message)


def without_quotes(message: str) -> str:
    """A sentence about a file without what stands in the file."""
    for begin, end in QUOTES_BEGIN.items():
        before, mark, _ = message.partition(begin)
        message = before + end if mark else message
    return message


def without_values(reason: Mapping[str, Any]) -> dict[str, Any]:
    """A reason without what stands in the file."""
    return {name: value for name, value in reason.items() if name in ("rule", "column")}


@dataclass(frozen=True)
class Progress:
    """How far a batch at work is: what is being done, records done and to do, records a second, time left."""

    doing: str
    done: int
    of: int
    rate: float | None
    left: timedelta | None

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.done / self.of) if self.of else 0.0


def progress(batch: Batch, now: datetime) -> Progress | None:
    """None for a batch that is not being worked on, or whose file has not been read yet."""
    if batch.status is not BatchStatus.IN_PROGRESS or not batch.records_in_file:
        return None
    if batch.validated_at is None:
        return _progress("Checking", batch.validated_records, batch.records_in_file, batch.started_at, now)
    return _progress("Loading", batch.loaded_records, batch.staged_records, batch.validated_at, now)


def _progress(doing: str, done: int, of: int, since: datetime | None, now: datetime) -> Progress:
    seconds = (now - since).total_seconds() if since else 0.0
    rate = done / seconds if done and seconds > 0 else None
    left = timedelta(seconds=round((of - done) / rate)) if rate else None
    return Progress(doing, done, of, rate, left)


@dataclass(frozen=True)
class Step:
    """A station of the timeline: what, when if it has happened, and how it is: done, now, wrong, to come."""

    title: str
    at: datetime | None
    how: str


def timeline(batch: Batch) -> list[Step]:
    """The stations of a batch from its upload to its end."""
    ended = batch.status.terminal
    checked = batch.import_completed
    working = batch.status is BatchStatus.IN_PROGRESS
    stopped = {BatchStatus.PAUSED: "paused", BatchStatus.CANCELLED: "cancelled"}.get(batch.status)

    def how(done: bool, now: bool) -> str:
        if done:
            return "done"
        if ended:
            return "wrong" if now else "none"
        return ("stopped" if stopped else "now") if now else "to-come"

    started = batch.started_at is not None
    end = "Cancelled" if stopped == "cancelled" else "Failed" if batch.failed else "Processed"
    return [
        Step("Uploaded", batch.uploaded_at, "done"),
        Step("Started", batch.started_at, how(started, not working and not started)),
        Step("Import completed", batch.validated_at, how(checked, started and not checked)),
        Step(end, batch.processed_at, "done" if batch.processed else how(False, checked or ended)),
    ]


def about(connection: Connection, batch: Batch) -> dict[str, Any]:
    """What a page says of a batch beside its own columns: origins, subscriptions, children, and the database's time."""
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["about"], {"seqno": batch.seqno})
    assert found
    return found


def of_run(connection: Connection, engine: Engine | None, kind: str, run_id: str) -> list[int]:
    """The batches that a run took on, in the order of its mapped tasks.

    What the engine has forgotten is told by the batches; they name only the run that took them on last.
    """
    known = engine.taken_on(kind, run_id) if engine else None
    if known is not None:
        return known
    with transaction(connection) as cursor:
        return [r["seqno"] for r in rows(cursor, _SQL["of_run"], {"run_id": run_id, "kind": kind})]


def reasons(connection: Connection, batch: Batch) -> list[dict[str, Any]]:
    """Why records were not loaded: outcome, rule, column, records, and three examples, the commonest first.

    Counted once for a batch that has ended. Of a batch at work, only the first ``LOOKED_AT`` records are.
    """
    if not batch.status.terminal:
        with transaction(connection) as cursor:
            return rows(cursor, _SQL["count_reasons"], {"seqno": batch.seqno, "limit": LOOKED_AT})
    if not any(batch.counts[outcome] for outcome in NOT_LOADED):
        return []
    asked = {"seqno": batch.seqno, "reopened": about(connection, batch)["reopened"]}
    with transaction(connection) as cursor:
        kept = rows(cursor, _SQL["reasons"], asked)
        if not kept:
            kept = rows(cursor, _SQL["count_reasons"], {"seqno": batch.seqno, "limit": None})
            numbered = [found | {"place": place} for place, found in enumerate(kept, 1)]
            cursor.execute(_SQL["keep_reasons"], asked | {"reasons": Json(numbered)})
    return kept


def share(records: int, batch: Batch) -> float | None:
    """The share of the file that so many records are, from 0 to 1."""
    return round(records / batch.records_in_file, 6) if batch.records_in_file else None


def records(
    connection: Connection,
    batch: Batch,
    *,
    outcome: str | None = None,
    rule: str | None = None,
    column: str | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Records of the ledger after a number, one more than ``limit`` if there are more."""
    if outcome and not batch.counts[outcome] and batch.status.terminal:
        return []
    asked = {
        "seqno": batch.seqno,
        "outcome": outcome,
        "rule": rule,
        "column": column,
        "after": after,
        "limit": limit + 1,
    }
    with transaction(connection) as cursor:
        cursor.execute(_SQL["in_order"])
        if rule or column:
            numbers: list[int] | None = _with_reasons(cursor, batch, asked)
        else:
            rare = row(cursor, _SQL["numbers_by_outcome"], asked) if outcome else None
            numbers = rare["numbers"] if rare else None
        return rows(cursor, _SQL["page_of_records"], asked | {"numbers": numbers})


def _with_reasons(cursor: Cursor, batch: Batch, asked: dict[str, Any]) -> list[int]:
    """The numbers of enough records among which are those of a page that a rule or a column chooses."""
    both = asked["rule"] and asked["column"]
    outcomes = [asked["outcome"]] if asked["outcome"] else [str(outcome) for outcome in NOT_LOADED]
    numbers: list[int] = []
    told = row(cursor, _SQL["numbers_by_reason"], asked) if batch.status.terminal else None
    if told and told["counted"]:
        outcomes = told["outcomes"]
        if told["up_to"] is None or (len(told["numbers"]) >= asked["limit"] and not both):
            return list(told["numbers"])
        if not both:  # of a common rule and a common column, what has both is found sooner by looking for it
            numbers = told["numbers"]
            asked = asked | {"after": max(asked["after"], told["up_to"])}
    further = rows(cursor, _SQL["look_for_reasons"], asked | {"outcomes": outcomes})
    return numbers + [one["record_no"] for one in further]


def without_personal_data(record: dict[str, Any]) -> dict[str, Any]:
    """A record of the ledger without what stands in the file."""
    plain = {name: value for name, value in record.items() if name != "raw"}
    for name in ("reasons", "warnings"):
        plain[name] = [without_values(reason) for reason in record[name] or ()]
    if plain.get("parked"):
        plain["parked"] = {k: v for k, v in plain["parked"].items() if k not in ("key", "reasons")}
    if plain.get("rolled_back"):
        plain["rolled_back"] = {k: plain["rolled_back"][k] for k in ("result", "reason")}
    return plain


def events(connection: Connection, batch: Batch, personal: bool) -> list[dict[str, Any]]:
    """Who did what when; the reason of a failure without values of the file."""
    found = batches.events(connection, batch.seqno)
    if not personal:
        found = [e | {"detail": without_quotes(e["detail"] or "") or None} for e in found]
    return found


def expectations(
    derived: Sequence[Mapping[str, Any]], columns: Sequence[str], found: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The suite with its result: every expectation, and how many records did not meet it.

    ``derived`` are the expectations of the batch's template, ``columns`` its columns as the file calls them, ``found``
    the batch's reasons.
    """
    broken: dict[tuple[str, str | None], int] = {}
    for reason in found:
        place = (reason["rule"], reason["column"])
        broken[place] = broken.get(place, 0) + reason["records"]
    told = []
    for one in derived:
        column, rule = columns[one["meta"]["column"]], one["meta"]["rule"]
        details = {k: v for k, v in one["kwargs"].items() if k not in ("column", "column_A", "column_B")}
        told.append({
            "type": one["type"], "column": column, "rule": rule, "severity": one["severity"],
            "details": json.dumps(details, ensure_ascii=False, default=str) if details else "",
            "broken_by": broken.get((rule, column), 0),
        })  # fmt: skip
    return told
