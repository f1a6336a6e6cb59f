"""One contact as people look at it: fields by their titles, values as people write them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from typing import Any

from rowledger import contacts, loading
from rowledger.contacts import Profile
from rowledger.db import Connection
from rowledger.desk.problems import Refused
from rowledger.errors import UnknownCode

KIND = ("contact",)
FIRST, MOST = 50, 1000  # records and subscription changes that a page shows
_OWN = ("created_at", "updated_at", "lead", "roles")  # shown in places of their own


def find(connection: Connection, domain: str, key: str) -> int:
    """The contact that has an external id or an email. Raises Refused."""
    try:
        return contacts.find(connection, domain.strip(), key)
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None


def by_id(connection: Connection, contact_id: int, limit: int) -> Profile:
    """The profile. Raises Refused."""
    try:
        return contacts.profile_by_id(connection, contact_id, limit)
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None


def name(profile: Profile) -> str:
    """What a contact is called: by name, else by a key."""
    fields = profile.fields
    parts = (fields[part] for part in ("first_name", "middle_name", "last_name"))
    return (
        " ".join(filter(None, parts)) or fields["company"] or fields["external_id"] or fields["email"] or ""
    )


def known(profile: Profile) -> list[tuple[str, str]]:
    """Title and value of every field that is known, in the order of the kind; then attributes, by name."""
    return [
        (title(field), value(profile.fields[field]))
        for field in in_order(profile.fields)
        if field not in _OWN and profile.fields[field] is not None
    ]


def changed(record: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Title, value before and value after of every field that a record changed."""
    changes = record["changes"]
    return [
        (title(field), _lead_or(field, changes[field]["before"]), _lead_or(field, changes[field]["after"]))
        for field in in_order(changes)
    ]


def in_order(fields: Iterable[str]) -> list[str]:
    """As the kind lists its fields; then attributes, by name."""
    kind = [field.name for field in loading.kinds()["contact"].fields]
    return sorted(fields, key=lambda field: (kind.index(field) if field in kind else len(kind), field))


def title(field: str) -> str:
    """What people call a field."""
    titles = {one.name: one.title for one in loading.kinds()["contact"].fields}
    return titles.get(field) or field.removeprefix("attributes.")


def value(given: Any) -> str:
    """A value as people write it."""
    if isinstance(given, list):
        return ", ".join(map(str, given))
    if isinstance(given, bool):
        return "yes" if given else "no"
    return str(given) if isinstance(given, str | date) else json.dumps(given, ensure_ascii=False)


def _lead_or(field: str, given: Any) -> str:
    if field == "lead":
        return {True: "lead", False: "contact"}.get(given, "nothing")
    return "nothing" if given is None else value(given)
