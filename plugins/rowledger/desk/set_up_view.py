"""Reference data as people keep it: which fields each sort has, its items, and who changed what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rowledger import reference
from rowledger.db import Connection, queries, rows, transaction
from rowledger.desk.problems import Refused
from rowledger.errors import UnknownCode, WrongValue
from rowledger.reference import Domain, Item, Origin, Phase, Status, Subscription

_SQL = queries("set_up")
VALUES_A_PAGE = 200
CHANGES_A_PAGE = 50


class Sort(StrEnum):
    """What an item is; the words of the record of changes."""

    DOMAIN = "domain"
    PHASE = "phase"
    STATUS = "status"
    ORIGIN = "origin"
    SUBSCRIPTION = "subscription"


@dataclass(frozen=True)
class Field:
    """A field of a form: ``text``, ``number`` (may be empty), ``switch``, or one of ``choices``; "phases" are the domain's."""

    name: str
    title: str
    form: str = "text"
    help: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class About:
    """What pages say of a sort, and the fields that it has beside the switch that takes it out of use."""

    sort: type[Item]
    title: str
    plural: str
    help: str
    fields: tuple[Field, ...]

    @property
    def names(self) -> list[str]:
        """Of its fields, the switch included."""
        return [*(field.name for field in self.fields), self.sort.switch[0]]


_CODE = "1 to 64 ASCII characters without blanks. It never changes, because files refer to it."
ABOUT = {
    Sort.DOMAIN: About(
        Domain, "Domain", "Domains", "An organisation; everything else belongs to one.",
        (Field("code", "Code", help=_CODE), Field("name", "Name")),
    ),
    Sort.PHASE: About(
        Phase, "Phase", "Contract phases", "Phases group statuses for reporting.",
        (Field("code", "Code", help=_CODE), Field("description", "Description")),
    ),
    Sort.STATUS: About(
        Status, "Status", "Contract statuses", "Statuses are the result codes that files bring.",
        (
            Field("code", "Code", help=_CODE), Field("phase", "Phase", "phases"), Field("description", "Description"),
            Field("initial", "Initial", "switch", "Every new contract begins with it; a domain has one such status."),
            Field("definitive", "Definitive", "switch", "Nothing that comes later overwrites it."),
            Field("churn", "Churn", "switch", "It counts as a customer lost."),
            Field("automatic_after_days", "Given automatically after days", "number", "Days after sign-up; empty: not automatically."),
        ),
    ),
    Sort.ORIGIN: About(
        Origin, "Origin", "Origins", "Origins are the campaigns that contacts come from.",
        (Field("code", "Code", help=_CODE), Field("name", "Name")),
    ),
    Sort.SUBSCRIPTION: About(
        Subscription, "Subscription", "Subscriptions", "Subscriptions are mailing lists.",
        (
            Field("list_id", "List ID", help=_CODE), Field("name", "Name"),
            Field("type", "Type", "choice", choices=("email", "mail", "fax", "phone", "mobile")),
            Field("display_sequence", "Display sequence", "number", "Its place where lists are shown."),
        ),
    ),
}  # fmt: skip
OF_A_DOMAIN = (Sort.PHASE, Sort.STATUS, Sort.ORIGIN, Sort.SUBSCRIPTION)


def shown(sort: Sort, item: Item, domain: str | None) -> dict[str, Any]:
    """An item for programs."""
    fields = item.row()
    return {
        "sort": sort,
        "domain": domain,
        "id": item.id,
        "in_use": item.in_use,
        "version": item.version,
        "fields": fields,
    }


def etag(item: Item) -> str:
    """Changes with the item."""
    return f'"{item.version}"'


def called(sort: Sort, code: str, domain: str | None) -> str:
    """Status "20" of domain DEMO."""
    return f'{ABOUT[sort].title} "{code}"' + (f" of domain {domain}" if domain else "")


def place(sort: Sort, domain: str) -> str | None:
    """Where items of a sort are looked for: domains nowhere, all others in a domain. Raises Refused."""
    if sort is Sort.DOMAIN:
        return None
    if not domain:
        raise Refused(
            422,
            "Say which domain is meant: domain=CODE.",
            errors=[{"field": "domain", "message": "is missing"}],
        )
    return domain


def one(connection: Connection, sort: Sort, code: str, domain: str | None) -> Item:
    """An item. Raises Refused."""
    try:
        return reference.get(connection, ABOUT[sort].sort, code, domain)
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None


def listed(connection: Connection, sort: Sort, domain: str | None) -> list[Item]:
    """All items of a sort, retired ones too. Raises Refused."""
    try:
        return list(reference.listed(connection, ABOUT[sort].sort, domain))
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None


def create(connection: Connection, sort: Sort, given: Mapping[str, Any], domain: str | None, by: str) -> Item:
    """Create an item of the fields given. Raises WrongValue or UnknownCode."""
    _known(sort, given)
    item = reference.make(ABOUT[sort].sort, given)
    reference.create(connection, item, domain, by=by)
    return reference.get(connection, ABOUT[sort].sort, item.id, domain)


def change(
    connection: Connection,
    sort: Sort,
    code: str,
    given: Mapping[str, Any],
    domain: str | None,
    by: str,
    seen: str | None,
) -> tuple[Item, bool]:
    """Change the fields given, if the item is as it was ``seen``; the item, and whether anything changed.

    Raises WrongValue, UnknownCode or ChangedMeanwhile.
    """
    _known(sort, given)
    stored = one(connection, sort, code, domain)
    if given.get(stored.key, code) != code:
        raise WrongValue(
            stored.key, f"{stored.key} never changes, because files and the history refer to it."
        )
    new = reference.make(ABOUT[sort].sort, stored.row() | dict(given))
    changed = reference.change(connection, new, domain, by=by, seen=seen or stored.version)
    return reference.get(connection, ABOUT[sort].sort, code, domain), changed


def _known(sort: Sort, given: Mapping[str, Any]) -> None:
    names = ABOUT[sort].names
    for name in given:
        if name not in names:
            raise WrongValue(
                name, f"{name} is not known here. {ABOUT[sort].plural} have: {', '.join(names)}."
            )


def domains(connection: Connection) -> list[dict[str, Any]]:
    """Every domain, and how many phases, statuses, origins and subscriptions it has in use."""
    with transaction(connection) as cursor:
        return rows(cursor, _SQL["domains"])


def lists(connection: Connection) -> list[dict[str, Any]]:
    """Every value list with the number of its values."""
    with transaction(connection) as cursor:
        return rows(cursor, _SQL["lists"])


@dataclass(frozen=True)
class Values:
    """Some values of a list, and the one after which the next page begins, if there is one."""

    values: list[str]
    next: str | None


def values(
    connection: Connection, name: str, after: str = "", begins: str = "", limit: int = VALUES_A_PAGE
) -> Values:
    """A page of a list, in order."""
    with transaction(connection) as cursor:
        asked = {"list_name": name, "after": after, "begins": begins, "limit": limit + 1}
        found = [r["value"] for r in rows(cursor, _SQL["values"], asked)]
    return Values(found[:limit], found[limit - 1] if len(found) > limit else None)
