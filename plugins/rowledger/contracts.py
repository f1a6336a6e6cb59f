"""What is known of a contract: which status it had when, and as we knew it when (docs/rules.md, rule 10)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time
from typing import Any, Self

from rowledger import domains
from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.errors import NotPossible, UnknownCode

_SQL = queries("contracts")


@dataclass(frozen=True)
class StatusEntry:
    """An entry of a contract's status history, with what its status means.

    ``date_result`` is the day it holds from, ``recorded_at`` the moment we learned of it; ``cause`` is initial, import
    or timer, and only an import has a batch (``seqno``) and a record.
    """

    code: str
    description: str
    phase: str
    phase_description: str
    definitive: bool
    churn: bool
    date_result: date
    recorded_at: datetime
    cause: str
    seqno: int | None
    record_no: int | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        return cls(**{field.name: row[field.name] for field in fields(cls)})


def contract_id(cursor: Cursor, domain: str, form_id: str) -> int:
    """The contract of that form id. Raises UnknownCode if there is no such domain or contract."""
    asked = {"domain_id": domains.id_of(cursor, domain), "form_id": form_id}
    found = row(cursor, _SQL["contract"], asked)
    if not found:
        raise UnknownCode(f'There is no contract "{form_id}" in domain {domain}.')
    return int(found["contract_id"])


def status_as_of(
    connection: Connection,
    domain: str,
    form_id: str,
    on: date | None = None,
    known_at: datetime | None = None,
) -> StatusEntry | None:
    """The status a contract had on a day, as we knew it at a moment; None if it had none.

    Without ``on`` the last status of all, without ``known_at`` as we know it now. Raises UnknownCode, or NotPossible if
    what would tell is not kept any more.
    """
    with transaction(connection) as cursor:
        asked = {
            "domain_id": domains.id_of(cursor, domain),
            "contract_id": contract_id(cursor, domain, form_id),
            "on": on,
            "known_at": known_at,
        }
        found = row(cursor, _SQL["status_as_of"], asked)
        _refuse_what_is_not_kept(cursor, asked, found, form_id)
        return StatusEntry.from_row(found) if found else None


def _refuse_what_is_not_kept(
    cursor: Cursor, asked: Mapping[str, Any], found: Mapping[str, Any] | None, form_id: str
) -> None:
    kept = row(cursor, _SQL["kept"], asked)
    if not kept or (found and found["date_result"] >= kept["first_day"]):
        return
    # What came before the first entry is unknown; so is what was thought of those days before they were let go.
    if (not found and kept["begins"]) or (asked["known_at"] and asked["known_at"] < kept["since"]):
        raise NotPossible(
            f'The history of contract "{form_id}" is not kept before {kept["begins"] or kept["first_day"]}: '
            "which status it had then is not known any more."
        )


def day(text: str) -> date:
    """A day as people write it in such a question. Raises UnknownCode."""
    with contextlib.suppress(ValueError):
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return date.fromisoformat(text)
    raise UnknownCode(f'"{text}" is not a date; write it as in 2026-05-31.')


def moment(text: str) -> datetime:
    """A moment; a date means all that was known when it ended, without a zone it is UTC. Raises UnknownCode."""
    with contextlib.suppress(ValueError):
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return datetime.combine(date.fromisoformat(text), time.max, UTC)
        told = datetime.fromisoformat(text if re.match(r"\d{4}-\d\d-\d\d[T ]", text) else "")
        return told if told.tzinfo else told.replace(tzinfo=UTC)
    raise UnknownCode(f'"{text}" is not a time; write it as in 2026-05-31 or 2026-05-31T12:00.')


@dataclass(frozen=True)
class HistoryEntry(StatusEntry):
    """A status entry with the status before it in the chain, and the file it came from, if it came from one."""

    previous_code: str | None
    file_name: str | None
    uploaded_by: str | None


@dataclass(frozen=True)
class WithdrawnEntry(StatusEntry):
    """A status entry that a roll back has withdrawn: when, why, and who had asked for it."""

    withdrawn_at: datetime
    why: str
    asked_by: str


@dataclass(frozen=True)
class Touch:
    """A record of a file that registered or corrected a contract; ``before`` has what stood in the fields it changed.

    ``rolled_back_at`` is when that was taken back, if it was.
    """

    seqno: int
    record_no: int
    outcome: str
    before: dict[str, Any] | None
    recorded_at: datetime
    file_name: str
    uploaded_by: str
    rolled_back_at: datetime | None


@dataclass(frozen=True)
class Contract:
    """A contract, its history in the order of the chain, what is withdrawn from it, and the records that wrote its
    register entry.

    ``contact`` is the external id of its contact; a contract that came with the reference data has no ``touches``.
    Where the history begins later than the contract, as the rest is not kept, ``had`` has the codes of all statuses it
    had had by then.
    """

    contract_id: int
    domain: str
    form_id: str
    sign_up_date: date
    contact_id: int | None
    contact: str | None
    contact_name: str | None
    history: tuple[HistoryEntry, ...]
    withdrawn: tuple[WithdrawnEntry, ...]
    touches: tuple[Touch, ...]
    had: tuple[str, ...]

    @property
    def current(self) -> HistoryEntry | None:
        return self.history[-1] if self.history else None


def profile(connection: Connection, domain: str, form_id: str) -> Contract:
    """Everything we know of a contract. Raises UnknownCode."""
    with transaction(connection) as cursor:
        return _profile(cursor, contract_id(cursor, domain, form_id))


def profile_by_id(connection: Connection, contract_id: int) -> Contract:
    """The same of the contract that a record of the ledger names as its target. Raises UnknownCode."""
    with transaction(connection) as cursor:
        return _profile(cursor, contract_id)


def _profile(cursor: Cursor, contract_id: int) -> Contract:
    found = row(cursor, _SQL["profile"], {"contract_id": contract_id})
    if not found:
        raise UnknownCode("There is no such contract.")
    asked = {"contract_id": contract_id, "domain_id": found.pop("domain_id")}
    history = tuple(HistoryEntry.from_row(r) for r in rows(cursor, _SQL["history"], asked))
    withdrawn = tuple(WithdrawnEntry.from_row(r) for r in rows(cursor, _SQL["withdrawn"], asked))
    touches = tuple(Touch(**r) for r in rows(cursor, _SQL["touches"], asked))
    had = tuple((row(cursor, _SQL["had"], asked) or {"codes": ()})["codes"])
    return Contract(**found, history=history, withdrawn=withdrawn, touches=touches, had=had)
