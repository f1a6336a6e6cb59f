"""Reference data as operations: create, change, retire and restore; load a file; read; who changed what.

In: a connection and checked items (``reference_data``). Each operation is one transaction and waits for the one
before it. What is unchanged is not written; every change is recorded by the database itself, with who made it.
Retired codes stay for history. Errors name the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.extras import Json

from rowledger import domains
from rowledger.db import Connection, Cursor, queries, rows, transaction
from rowledger.errors import ChangedMeanwhile, RecordRefused, SetupError, UnknownCode, WrongValue
from rowledger.reference_data import (
    AnItem,
    Contract,
    Domain,
    Item,
    Origin,
    Phase,
    Reference,
    Status,
    Subscription,
    make,
    read,
)

__all__ = [
    "DOMAIN_LISTS", "Change", "Contract", "Domain", "Item", "Loaded", "Origin", "Phase", "Reference", "Status",
    "Subscription", "add_values", "change", "changes", "contents", "create", "get", "list_values", "listed", "load", "make",
    "make_initial", "read", "remove_values", "set_in_use", "value_lists",
]  # fmt: skip

_SQL = queries("reference")

# Active origins; mailing lists that can be chosen; all mailing lists. The names of other lists never begin with @.
DOMAIN_LISTS = ("@origins", "@subscriptions", "@lists")


@dataclass(frozen=True)
class Loaded:
    """Of one sort, how many rows were created, changed, or found to be as they should."""

    created: int = 0
    changed: int = 0
    unchanged: int = 0

    def __add__(self, other: Loaded) -> Loaded:
        return Loaded(
            self.created + other.created, self.changed + other.changed, self.unchanged + other.unchanged
        )


@dataclass(frozen=True)
class Change:
    """One recorded change; ``before`` is None for what was created, ``after`` for what was removed."""

    change_id: int
    changed_at: datetime
    by: str
    file: str | None
    domain: str | None
    sort: str
    code: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    def fields(self) -> list[tuple[str, Any, Any]]:
        """(field, before, after) of every field that changed."""
        before, after = self.before or {}, self.after or {}
        names = dict.fromkeys([*after, *before])
        return [(n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)]


# Operations ------------------------------------------------------------------------------------------------------


def create(connection: Connection, item: Item, domain: str | None = None, *, by: str | None = None) -> None:
    """Create a domain, or an item of a domain. Raises WrongValue, also if the code is there already."""
    with _changing(connection, by) as cursor:
        domain_id = _domain_id(cursor, type(item), domain)
        stored = _find(cursor, type(item), item.id, domain_id)
        if stored:
            remedy = "change it instead" if stored.in_use else "restore it instead"
            where = f" in domain {domain}" if domain_id else ""
            raise WrongValue(item.key, f'{item.key} "{item.id}" exists already{where}; {remedy}.')
        _save(cursor, domain_id, [item])


def change(
    connection: Connection,
    item: Item,
    domain: str | None = None,
    *,
    by: str | None = None,
    seen: str | None = None,
) -> bool:
    """Bring an item that exists up to date; True if anything changed.

    ``seen`` is the ``version`` that the person has seen: if it was changed since, ChangedMeanwhile is raised.
    """
    with _changing(connection, by) as cursor:
        domain_id = _domain_id(cursor, type(item), domain)
        _seen(cursor, type(item), item.id, domain_id, domain, seen)
        return bool(_save(cursor, domain_id, [item]).changed)


def set_in_use(
    connection: Connection,
    sort: type[Item],
    code: str,
    in_use: bool,
    domain: str | None = None,
    *,
    by: str | None = None,
    seen: str | None = None,
) -> bool:
    """Retire an item, or restore it; False if it was so. What is retired stays for history and cannot be chosen."""
    switch, out_of_use = sort.switch
    with _changing(connection, by) as cursor:
        domain_id = _domain_id(cursor, sort, domain)
        stored = _seen(cursor, sort, code, domain_id, domain, seen)
        switched = make(sort, stored.model_dump() | {switch: out_of_use != in_use})
        return bool(_save(cursor, domain_id, [switched]).changed)


def make_initial(
    connection: Connection, code: str, domain: str, *, by: str | None = None, seen: str | None = None
) -> bool:
    """Make a status the domain's initial one, in the place of the one that was. False if it was already."""
    with _changing(connection, by) as cursor:
        domain_id = domains.id_of(cursor, domain)
        new = _seen(cursor, Status, code, domain_id, domain, seen)
        old = [status for status in _all(cursor, Status, domain_id) if status.initial and status.code != code]
        moved = [make(Status, status.model_dump() | {"initial": False}) for status in old]
        moved.append(make(Status, new.model_dump() | {"initial": True}))
        return bool(_save(cursor, domain_id, moved).changed)


def add_values(
    connection: Connection, list_name: str, values: Iterable[str], *, by: str | None = None
) -> Loaded:
    """Add values to a list, which is made if need be. Raises WrongValue."""
    with _changing(connection, by) as cursor:
        return _save_values(cursor, _lists({list_name: tuple(values)}))


def remove_values(
    connection: Connection, list_name: str, values: Iterable[str], *, by: str | None = None
) -> int:
    """Take values off a list. Raises UnknownCode, and takes none off, if one of them is not on it."""
    ((name, wanted),) = _lists({list_name: tuple(values)}).items()
    with _changing(connection, by) as cursor:
        asked = {"list_name": name, "values": list(wanted)}
        removed = {r["value"] for r in rows(cursor, _SQL["remove_values"], asked)}
        for value in wanted:
            if value not in removed:
                raise UnknownCode(f'The list "{name}" has no value "{value}".')
    return len(removed)


def load(
    connection: Connection, reference: Reference, *, by: str | None = None, file: str | None = None
) -> dict[str, Loaded]:
    """Bring the database up to date with a reference file; what the file leaves out stays.

    All or nothing. A second time changes nothing. Returns what became of each sort. Raises WrongValue.
    """
    done = dict.fromkeys(
        ("domains", "phases", "statuses", "contracts", "origins", "subscriptions", "list values"), Loaded()
    )
    with _changing(connection, by, file) as cursor:
        for domain in reference.domains:
            for name, loaded in _load_domain(cursor, domain):
                done[name] += loaded
        done["list values"] = _save_values(cursor, reference.lists)
    return done


def _load_domain(cursor: Cursor, domain: Domain) -> Iterator[tuple[str, Loaded]]:
    try:
        yield "domains", _save(cursor, None, [domain])
        domain_id = domains.id_of(cursor, domain.code)
        # Phases that are retired come after the statuses that leave them.
        known = {phase.code for phase in _all(cursor, Phase, domain_id)}
        last = [phase for phase in domain.phases if phase.retired and phase.code in known]
        yield "phases", _save(cursor, domain_id, [phase for phase in domain.phases if phase not in last])
        yield "statuses", _save(cursor, domain_id, domain.statuses)
        yield "phases", _save(cursor, domain_id, last)
        yield "contracts", _save_contracts(cursor, domain_id, domain.contracts)
        yield "origins", _save(cursor, domain_id, domain.origins)
        yield "subscriptions", _save(cursor, domain_id, domain.subscriptions)
    except WrongValue as error:
        raise WrongValue(error.field, f"Domain {domain.code}: {error}") from None


# Reading ---------------------------------------------------------------------------------------------------------


def get(connection: Connection, sort: type[AnItem], code: str, domain: str | None = None) -> AnItem:
    """One item. Raises UnknownCode, which names those that are there."""
    with transaction(connection) as cursor:
        domain_id = _domain_id(cursor, sort, domain)
        return _get(cursor, sort, code, domain_id, domain)


def listed(connection: Connection, sort: type[AnItem], domain: str | None = None) -> list[AnItem]:
    """All items of a sort, retired ones too, in the order people read them."""
    with transaction(connection) as cursor:
        return _all(cursor, sort, _domain_id(cursor, sort, domain))


def contents(connection: Connection, domain: str | None = None) -> Reference:
    """Everything of one domain or of all, and the value lists, in the shape of a reference file; no contracts."""
    with transaction(connection) as cursor:
        chosen = _all(cursor, Domain, None) if domain is None else [_get(cursor, Domain, domain, None, None)]
        lists: dict[str, list[str]] = {}
        for r in rows(cursor, _SQL["all_values"]):
            lists.setdefault(r["list_name"], []).append(r["value"])
        return Reference.model_construct(
            domains=tuple(_with_contents(cursor, one) for one in chosen),
            lists={name: tuple(values) for name, values in lists.items()},
        )


def _with_contents(cursor: Cursor, domain: Domain) -> Domain:
    domain_id = domains.id_of(cursor, domain.code)
    inside = {
        "phases": tuple(_all(cursor, Phase, domain_id)),
        "statuses": tuple(_all(cursor, Status, domain_id)),
        "origins": tuple(_all(cursor, Origin, domain_id)),
        "subscriptions": tuple(_all(cursor, Subscription, domain_id)),
    }
    return domain.model_copy(update=inside)


def changes(
    connection: Connection,
    domain: str | None = None,
    *,
    sort: str | None = None,
    code: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Change]:
    """Who changed what and when, the newest first; ``before`` a change_id goes on with older ones."""
    with transaction(connection) as cursor:
        if domain is not None:
            domains.id_of(cursor, domain)
        return _changes(cursor, domain=domain, sort=sort, code=code, before=before, limit=limit)


def value_lists(connection: Connection, names: list[str], domain_id: int) -> dict[str, list[str]]:
    """The values of the named lists; of ``DOMAIN_LISTS`` those of the domain, which may be none.

    Raises SetupError if another list does not exist.
    """
    with transaction(connection) as cursor:
        found = _value_lists(cursor, names, domain_id)
    for name, values in found.items():
        if not values and name not in DOMAIN_LISTS:
            raise SetupError(
                f'The template refers to the list "{name}", which is empty; load it with load-reference.'
            )
    return found


def list_values(connection: Connection, names: list[str], domain: str) -> dict[str, list[str]]:
    """The same for a domain's code, and lists that do not exist are empty. Raises UnknownCode."""
    with transaction(connection) as cursor:
        return _value_lists(cursor, names, domains.id_of(cursor, domain))


# Below, everything works inside the caller's transaction ---------------------------------------------------------


@contextmanager
def _changing(connection: Connection, by: str | None, file: str | None = None) -> Iterator[Cursor]:
    """A transaction that no other change of reference data runs beside; what it changes is recorded as theirs."""
    try:
        with transaction(connection) as cursor:
            cursor.execute(_SQL["begin"], {"by": by or "", "file": file or ""})
            yield cursor
    except RecordRefused as error:  # the last line of defence; each rule is told in more words before
        raise WrongValue(
            error.column or error.constraint or "", f"The database refuses this ({error.constraint})."
        ) from error


def _value_lists(cursor: Cursor, names: list[str], domain_id: int | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in names}
    for r in rows(cursor, _SQL["value_lists"], {"names": names, "domain_id": domain_id}):
        if r["list_name"] in found:
            found[r["list_name"]].append(r["value"])
    return found


def _domain_id(cursor: Cursor, sort: type[Item], domain: str | None) -> int | None:
    """Where items of that sort belong; domains themselves belong nowhere."""
    return None if sort is Domain else domains.id_of(cursor, domain)


def _all(cursor: Cursor, sort: type[AnItem], domain_id: int | None, code: str | None = None) -> list[AnItem]:
    asked = {"domain_id": domain_id, "code": code}
    # Not checked: a row from before today's rules must be shown too.
    return [
        sort.model_construct(**{name: r[name] for name in sort.model_fields if name in r})
        for r in rows(cursor, _SQL[f"read_{sort.sort}"], asked)
    ]


def _find(cursor: Cursor, sort: type[AnItem], code: str, domain_id: int | None) -> AnItem | None:
    return next(iter(_all(cursor, sort, domain_id, code)), None)


def _get(cursor: Cursor, sort: type[AnItem], code: str, domain_id: int | None, domain: str | None) -> AnItem:
    if sort is Domain:
        domains.id_of(cursor, code)
    found = _find(cursor, sort, code, domain_id)
    if found is None:
        known = ", ".join(item.id for item in _all(cursor, sort, domain_id)) or "none"
        place = f" in domain {domain}" if domain else ""
        raise UnknownCode(f'There is no {sort.sort} "{code}"{place}. There are: {known}.')
    return found


def _seen(
    cursor: Cursor,
    sort: type[AnItem],
    code: str,
    domain_id: int | None,
    domain: str | None,
    version: str | None,
) -> AnItem:
    """The item as it stands. Raises ChangedMeanwhile if that is not the version somebody has seen."""
    stored = _get(cursor, sort, code, domain_id, domain)
    if version in (None, stored.version):
        return stored
    of = code if sort is Domain else domain
    (last,) = _changes(cursor, domain=of, sort=sort.sort, code=code, before=None, limit=1) or (None,)
    who = f" by {last.by} at {last.changed_at:%Y-%m-%d %H:%M} UTC" if last else ""
    what = "; ".join(f"{field}: {was} → {now}" for field, was, now in last.fields()) if last else ""
    raise ChangedMeanwhile(
        f'The {sort.sort} "{code}" was changed{who} since you looked at it ({what}). Look at it again.'
    )


def _save(cursor: Cursor, domain_id: int | None, items: Sequence[Item]) -> Loaded:
    """Create or bring up to date items of one sort, with one statement."""
    if not items:
        return Loaded()
    lines = [item.row() for item in items]
    asked = {"lines": Json(lines), "domain_id": domain_id}
    if isinstance(items[0], Status):
        _refuse_phase_of_status(cursor, asked)
        _refuse_second_initial(cursor, asked)
    if isinstance(items[0], Phase):
        _refuse_to_retire_phase_in_use(cursor, asked)
    return _write(cursor, f"save_{items[0].sort}", lines, domain_id)


def _write(cursor: Cursor, query: str, lines: list[dict[str, Any]], domain_id: int | None = None) -> Loaded:
    written = rows(cursor, _SQL[query], {"lines": Json(lines), "domain_id": domain_id}) if lines else []
    created = sum(1 for r in written if r["created"])
    return Loaded(created, len(written) - created, len(lines) - len(written))


def _save_contracts(cursor: Cursor, domain_id: int | None, contracts: Sequence[Contract]) -> Loaded:
    """The same for contracts, under the lock that imports of contracts take for a chunk of theirs.

    An import at the same moment would not see them, and the database would refuse its own as doubles.
    """
    if not contracts:
        return Loaded()
    cursor.execute(queries("loading")["lock"], {"kind": "contract", "domain_id": domain_id})
    lines = [contract.model_dump(mode="json") for contract in contracts]
    given = {"domain_id": domain_id, "lines": Json(lines)}
    cursor.execute(_SQL["open_history"], given)
    return _write(cursor, "save_contracts", lines, domain_id)


def _refuse_phase_of_status(cursor: Cursor, asked: Mapping[str, Any]) -> None:
    for wrong in rows(cursor, _SQL["unusable_phases"], asked):
        known = ", ".join(p.code for p in _all(cursor, Phase, asked["domain_id"]) if p.in_use) or "none yet"
        fault = "is retired; restore it, or name another" if wrong["retired"] else "does not exist"
        raise WrongValue(
            "phase",
            f'phase "{wrong["phase"]}" of status "{wrong["code"]}" {fault}. Phases in use are: {known}.',
        )


def _refuse_second_initial(cursor: Cursor, asked: Mapping[str, Any]) -> None:
    for wrong in rows(cursor, _SQL["other_initial"], asked):
        raise WrongValue(
            "initial",
            f'initial must be false for status "{wrong["asked"]}": the initial status is "{wrong["has"]}", and a '
            f'domain has one. Put "{wrong["asked"]}" in its place, or make "{wrong["has"]}" not initial first.',
        )


def _refuse_to_retire_phase_in_use(cursor: Cursor, asked: Mapping[str, Any]) -> None:
    for wrong in rows(cursor, _SQL["phases_in_use"], asked):
        raise WrongValue(
            "retired",
            f'retired must be false: statuses in use belong to phase "{wrong["code"]}". Retire them, or move them to '
            f"another phase, first: {wrong['statuses']}.",
        )


def _save_values(cursor: Cursor, lists: Mapping[str, tuple[str, ...]]) -> Loaded:
    lines = [
        {"list_name": name, "value": value}
        for name, values in lists.items()
        for value in dict.fromkeys(values)
    ]
    return _write(cursor, "save_values", lines)


def _lists(lists: dict[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    return make(Reference, {"lists": lists}).lists


def _changes(cursor: Cursor, **asked: Any) -> list[Change]:
    return [Change(**r) for r in rows(cursor, _SQL["changes"], asked)]
