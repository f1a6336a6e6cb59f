"""What is known of a contract: which status it had when, and as we knew it when (docs/rules.md, rule 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from rowledger.db import Connection, Cursor, queries, row, transaction
from rowledger.errors import UnknownCode

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
    def from_row(cls, row: Mapping[str, Any]) -> StatusEntry:
        return cls(**{field.name: row[field.name] for field in fields(cls)})


def contract_id(cursor: Cursor, domain: str, form_id: str) -> int:
    """The contract of that form id. Raises UnknownCode if there is no such domain or contract."""
    found = row(cursor, _SQL["contract"], {"domain": domain, "form_id": form_id})
    if not found:
        raise UnknownCode(f'There is no domain "{domain}".')
    if found["contract_id"] is None:
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

    Without ``on`` the last status of all, without ``known_at`` as we know it now. Raises UnknownCode.
    """
    with transaction(connection) as cursor:
        asked = {"contract_id": contract_id(cursor, domain, form_id), "on": on, "known_at": known_at}
        found = row(cursor, _SQL["status_as_of"], asked)
        return StatusEntry.from_row(found) if found else None
