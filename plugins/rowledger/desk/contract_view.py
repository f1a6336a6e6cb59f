"""One contract as people look at it: its history as a picture, an answer to what was known when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

from rowledger import contracts
from rowledger.contracts import Contract, HistoryEntry, StatusEntry
from rowledger.db import Connection
from rowledger.desk.problems import Refused
from rowledger.errors import NotPossible, UnknownCode

KINDS = ("contract", "contract_status")  # the batches that say something of contracts
COLOURS = 6
_OF_A_BATCH = ("file_name", "uploaded_by")


def find(connection: Connection, domain: str, form_id: str) -> Contract:
    """The contract of a form id. Raises Refused."""
    try:
        return contracts.profile(connection, domain.strip(), form_id.strip())
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None


def shown(contract: Contract, kinds: Sequence[str], personal: Sequence[str]) -> dict[str, Any]:
    """A contract for somebody who may read batches of ``kinds``, and what is personal in those of ``personal``."""
    told = asdict(contract)
    told["history"] = [_entry(entry, "contract_status" in kinds) for entry in contract.history]
    told["withdrawn"] = [asdict(entry) for entry in contract.withdrawn]
    told["current"] = told["history"][-1] if told["history"] else None
    told["touches"] = [
        {name: value for name, value in asdict(touch).items() if name != "before" or "contract" in personal}
        for touch in contract.touches
        if "contract" in kinds
    ]
    if "contact" not in personal:
        for name in ("contact_id", "contact", "contact_name"):
            del told[name]
    return told


def _entry(entry: HistoryEntry, readable: bool) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if readable or name not in _OF_A_BATCH}


@dataclass(frozen=True)
class Span:
    """How long a contract had a status: its place in a picture in per cent of it, and the colour of its phase."""

    code: str
    description: str
    phase: str
    start: date
    end: date | None
    x: float
    width: float
    colour: int


def spans(history: Sequence[StatusEntry], today: date) -> list[Span]:
    """The history as spans of time, in order; the last has no end. What was replaced on its own day has no width."""
    if not history:
        return []
    first = history[0].date_result
    last = max(today, history[-1].date_result + timedelta(days=1))
    colours = {phase: n % COLOURS for n, phase in enumerate(dict.fromkeys(entry.phase for entry in history))}
    ends = [entry.date_result for entry in history[1:]]
    days = (last - first).days
    return [
        Span(
            entry.code, entry.description, entry.phase, entry.date_result, end,
            100 * (entry.date_result - first).days / days, 100 * ((end or last) - entry.date_result).days / days,
            colours[entry.phase],
        )
        for entry, end in zip(history, [*ends, None], strict=True)
    ]  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """Which status a contract had on a day, as we knew it at a moment; or what is wrong with the question, by field.

    ``not_kept`` says in a sentence that nobody knows any more.
    """

    day: date | None
    moment: datetime | None
    status: StatusEntry | None
    faults: dict[str, str]
    not_kept: str | None = None


def as_of(connection: Connection, contract: Contract, on: str, known_at: str) -> Answer | None:
    """The answer; None if nothing is asked."""
    if not on and not known_at:
        return None
    faults: dict[str, str] = {}
    day = _read(contracts.day, on, "on", faults)
    moment = _read(contracts.moment, known_at, "known_at", faults)
    if faults:
        return Answer(day, moment, None, faults)
    try:
        status = contracts.status_as_of(connection, contract.domain, contract.form_id, day, moment)
    except NotPossible as unknown:
        return Answer(day, moment, None, {}, str(unknown))
    return Answer(day, moment, status, {})


def _read(read: Any, text: str, field: str, faults: dict[str, str]) -> Any:
    try:
        return read(text.strip()) if text.strip() else None
    except UnknownCode as wrong:
        faults[field] = str(wrong)
        return None
