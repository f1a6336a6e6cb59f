"""Statuses given automatically after N days (docs/rules.md, contract statuses, rule 9).

In: contracts, and statuses with ``automatic_after_days``. Out: entries in the history with the cause ``timer``, each
dated the day it fell due. Where an entry belongs in the history decides whether it is made, not when that happens: a
run that comes late, twice, at once with another, or after one that was killed ends as daily runs would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg2 import sql

from rowledger import domains
from rowledger.db import Connection, Cursor, queries, row, rows, stream, transaction

_SQL = queries("timers")
_ALL = sql.SQL("(%(domain)s::text IS NULL OR domain.code = %(domain)s)")


@dataclass(frozen=True)
class Given:
    """A status that the timers gave: to how many contracts, and of how many it is the current status now."""

    domain: str
    code: str
    description: str
    contracts: int
    current: int


def give(
    connection: Connection, domain: str | None = None, upto: date | None = None, size: int = 20_000
) -> list[Given]:
    """Give what is due up to a day, today if none is named, in one domain or all. Raises UnknownCode.

    One transaction per ``size`` contracts. What is due is found first, without a lock, and looked at again a chunk at a
    time, under the lock that status imports take for a chunk of theirs.
    """
    with transaction(connection) as cursor:
        chosen = _domains(cursor, domain)
        cursor.execute("DROP TABLE IF EXISTS due_contract")
        cursor.execute(_with_due("find", _ALL), {"domain": domain, "day": upto})
        cursor.execute(_SQL["index"])
        cursor.execute("ANALYZE due_contract")
    given: list[Given] = []
    for one in chosen:
        after: int | None = 0
        while after is not None:
            with transaction(connection) as cursor:
                after, more = _give_chunk(cursor, one, after, upto, size)
                given += more
    with transaction(connection) as cursor:
        cursor.execute("DROP TABLE due_contract")
    return _summed(given)


def _domains(cursor: Cursor, domain: str | None) -> list[dict[str, Any]]:
    domain_id = None if domain is None else domains.id_of(cursor, domain)
    return rows(cursor, _SQL["domains"], {"domain_id": domain_id})


def _give_chunk(
    cursor: Cursor, domain: dict[str, Any], after: int, upto: date | None, size: int
) -> tuple[int | None, list[Given]]:
    """Give what is due to the next contracts; the last of them, or None if there was none left, and what was given."""
    here = {"domain_id": domain["domain_id"], "after": after, "size": size}
    found = row(cursor, _SQL["next"], here)
    if not found or found["contract_id"] is None:
        return None, []
    here |= {"upto": found["contract_id"], "day": upto}
    # No chunk of an import, or of another run, at the same time: it would judge by what is not current any more.
    cursor.execute(queries("loading")["lock"], {"kind": "contract_status", "domain_id": domain["domain_id"]})
    cursor.execute(sql.SQL(_SQL["open"]).format(chunk=sql.SQL(_SQL["chunk"])), here)
    which = sql.SQL("contract.contract_id IN ({})").format(sql.SQL(_SQL["chunk"]))
    cursor.execute(_with_due("give", which, "not_given_of_few"), here)
    return found["contract_id"], [Given(domain["code"], **given) for given in cursor]  # type: ignore[arg-type]


def _summed(given: list[Given]) -> list[Given]:
    contracts, current = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for one in given:
        key = (one.domain, one.code, one.description)
        contracts[key] += one.contracts
        current[key] += one.current
    return [Given(*key, contracts[key], current[key]) for key in sorted(contracts)]


def forecast(connection: Connection, days: int, domain: str | None = None) -> Generator[dict[str, Any]]:
    """What the timers will have given in so many days if nothing is imported, contract by contract; writes nothing.

    Rows of due, domain, form_id, previous_code, code, description and historic (whether the current status stays), in
    the order of their days; what is overdue comes first. Raises UnknownCode.
    """
    yield from _forecast(connection, "forecast", days, domain)


def forecast_by_day(
    connection: Connection, days: int, domain: str | None = None
) -> Generator[dict[str, Any]]:
    """The same as numbers of contracts: rows of given_on, domain, code, description and contracts."""
    yield from _forecast(connection, "forecast_by_day", days, domain)


def _forecast(connection: Connection, name: str, days: int, domain: str | None) -> Generator[dict[str, Any]]:
    with transaction(connection) as cursor:
        _domains(cursor, domain)
        found = row(cursor, "SELECT current_date + %(days)s AS day", {"days": days})
        assert found
        query = _with_due(name, _ALL).as_string(cursor)
    yield from stream(connection, query, {"domain": domain, "day": found["day"]})


def _with_due(name: str, which: sql.Composable, not_given: str = "not_given") -> sql.Composed:
    """A query about what is due in the contracts of a condition, up to the parameter ``day``, or today."""
    upto, known = sql.SQL("coalesce(%(day)s::date, current_date)"), sql.SQL(_SQL[not_given])
    return sql.SQL(_SQL[name]).format(
        due=sql.SQL(_SQL["due"]).format(which=which, upto=upto, not_given=known)
    )
