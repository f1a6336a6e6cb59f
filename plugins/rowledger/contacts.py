"""What is known of a contact: its fields, where it came from, its subscriptions, and every record about it."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from rowledger import domains
from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.errors import UnknownCode

_SQL = queries("contacts")
_INTERNAL = ("contact_id", "domain_id", "domain", "rank", "attributes")


@dataclass(frozen=True)
class Profile:
    """A contact of a domain. ``fields`` has them all, ``attributes.NAME`` among them, null where nothing is known.

    ``contracts`` are those made with the contact, the newest first, with their current status. ``subscription_history``
    and ``records`` are the newest, the newest first; ``totals`` says how many there are in all. A record has
    ``changes``: per field it changed, the value before and after; and ``rolled_back_at`` if they were taken back.
    ``history_kept_from`` is the day from which on the history of subscriptions is complete, if that is not all; of what
    came before there is the last entry of each list.
    """

    contact_id: int
    domain: str
    fields: dict[str, Any]
    contracts: list[dict[str, Any]]
    origins: list[dict[str, Any]]
    subscriptions: list[dict[str, Any]]
    subscription_history: list[dict[str, Any]]
    records: list[dict[str, Any]]
    totals: dict[str, int]
    history_kept_from: date | None

    def as_dict(self) -> dict[str, Any]:
        """What is shown to programs."""
        return asdict(self)


def profile(connection: Connection, domain: str, key: str, limit: int) -> Profile:
    """The contact that has an external id or, if none has, an email. Raises UnknownCode."""
    with transaction(connection) as cursor:
        return _profile(cursor, _found(cursor, domain, key) | {"domain": domain}, limit)


def profile_by_id(connection: Connection, contact_id: int, limit: int) -> Profile:
    """The same of the contact that a record of the ledger names as its target. Raises UnknownCode."""
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["contact_by_id"], {"contact_id": contact_id})
        if not found:
            raise UnknownCode("There is no such contact.")
        return _profile(cursor, found, limit)


def find(connection: Connection, domain: str, key: str) -> int:
    """The ``contact_id`` of the contact that has an external id or, if none has, an email. Raises UnknownCode."""
    with transaction(connection) as cursor:
        return int(_found(cursor, domain, key)["contact_id"])


def _found(cursor: Cursor, domain: str, key: str) -> dict[str, Any]:
    key = unicodedata.normalize("NFC", key.strip())
    found = row(cursor, _SQL["contact"], {"domain_id": domains.id_of(cursor, domain), "key": key})
    if not found:
        raise UnknownCode(f'Nobody in domain {domain} has the external id or the email "{key}".')
    return found


def _profile(cursor: Cursor, found: dict[str, Any], limit: int) -> Profile:
    asked = {"contact_id": found["contact_id"], "domain_id": found["domain_id"], "limit": limit}
    fields = _fields(found)
    records = rows(cursor, _SQL["records"], asked)
    _add_changes(records, fields)
    return Profile(
        found["contact_id"],
        found["domain"],
        fields,
        rows(cursor, _SQL["contracts"], asked),
        rows(cursor, _SQL["origins"], asked),
        rows(cursor, _SQL["subscriptions"], asked),
        rows(cursor, _SQL["subscription_history"], asked),
        records,
        row(cursor, _SQL["totals"], asked) or {},
        (row(cursor, _SQL["kept"], asked) or {}).get("first_day"),
    )


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    """The row of the contact, each attribute a field of its own."""
    fields = {name: value for name, value in found.items() if name not in _INTERNAL}
    attributes = found["attributes"] or {}
    return fields | {f"attributes.{name}": attributes[name] for name in sorted(attributes)}


def _add_changes(records: list[dict[str, Any]], fields: dict[str, Any]) -> None:
    """What each record made of a field is what the next one found there; the newest made what is there now.

    What was rolled back made what the roll back took away, and nobody has found it there since.
    """
    now = dict(fields)
    for record in records:
        before, removed = record.pop("before") or {}, record.pop("removed")
        made = removed["fields"] if removed else now
        record["changes"] = {name: {"before": before[name], "after": made.get(name)} for name in before}
        if removed:
            record["origins_added"] = [origin["code"] for origin in removed["origins"]]
        else:
            now |= before
