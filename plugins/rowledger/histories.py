"""The histories of contracts and contacts, of which a domain keeps so many days, in whole years.

A history is in volumes, one of a domain and a year each. What comes before the years that are kept is let go a volume at a
time, but for what goes on counting: of a contract its last entry, which says what its status was when the first year
began, with the statuses that it had had by then; of a contact the last entry of each list. These entries become one volume.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg2 import sql

from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.errors import TryAgain

_SQL = queries("histories")
log = logging.getLogger("rowledger")
# By what a history is cut into years, and how a day is written there.
_DAY = {"status_history": "date_result", "subscription_history": "recorded_at"}
_BOUND = {"status_history": "{}", "subscription_history": "{} 00:00:00+00"}
# The kinds whose chunks enter something, in the order in which everybody locks them.
_LOCKED = {"status_history": ("contract", "contract_status"), "subscription_history": ("contact",)}


@dataclass(frozen=True)
class LetGo:
    """What a history of a domain does not keep any more: years, so many entries and bytes, all before a day."""

    history: str
    first_day: date
    years: int
    entries: int
    bytes: int

    @property
    def name(self) -> str:
        """The history as people say."""
        return self.history.replace("_", " ")


def let_go(connection: Connection, domain_id: int, days: int) -> Iterator[LetGo]:
    """Let go the years of a domain's histories that ended so many days ago; on trial say what that would be.

    Imports of the domain wait meanwhile. One whose tables are in use goes the next time. Raises TryAgain.
    """
    with transaction(connection) as cursor:
        due = rows(cursor, _SQL["due"], {"domain_id": domain_id, "days": days})
    for one in due:
        try:
            with transaction(connection) as cursor:
                gone = _let_go(cursor, one | {"domain_id": domain_id, "days": days}, connection.trial)
        except TryAgain as busy:
            if connection.closed:
                raise
            log.info("The %s is in use; it goes the next time. %s", one["history"].replace("_", " "), busy)
            continue
        if gone:
            yield gone


def _let_go(cursor: Cursor, due: dict[str, Any], trial: bool) -> LetGo | None:
    history = due["history"]
    due = due | {"bound": _BOUND[history].format(due["first_day"])}
    for kind in () if trial else _LOCKED[history]:
        cursor.execute(queries("loading")["lock"], due | {"kind": kind})
    # Another run may have done it, and somebody asked for a roll back, while the locks were waited for.
    now_due = [(one["history"], one["first_day"]) for one in rows(cursor, _SQL["due"], due)]
    if (history, due["first_day"]) not in now_due:
        return None
    volumes = rows(cursor, _SQL["volumes"], due)
    names = {"history": sql.Identifier(history), "day": sql.Identifier(_DAY[history])}
    tables = [sql.Identifier(*one["name"].split(".")) for one in volumes]
    entries = row(cursor, sql.SQL(_SQL["entries"]).format(**names), due)
    kept = sql.SQL(_SQL[f"kept_{history}"])
    if trial:
        left = row(cursor, sql.SQL(_SQL["count"]).format(kept=kept), due)
        assert left
        number, size = left["kept"], 0
    else:
        number, size = _exchange(cursor, due, tables, kept, names)
    assert entries
    years = sum(one["a_year"] for one in volumes)
    freed = sum(one["bytes"] for one in volumes) - size
    return LetGo(history, due["first_day"], years, entries["entries"] - number, max(freed, 0))


def _exchange(
    cursor: Cursor,
    due: dict[str, Any],
    tables: list[sql.Identifier],
    kept: sql.SQL,
    names: dict[str, sql.Identifier],
) -> tuple[int, int]:
    """Put one volume with what is kept in the place of the others; the number of its entries and its bytes."""
    made = row(cursor, _SQL["make"], due)
    assert made
    volume = sql.Identifier(*made["name"].split("."))
    cursor.execute(sql.SQL(_SQL["keep"]).format(volume=volume, kept=kept), due)
    number = cursor.rowcount
    cursor.execute(sql.SQL(_SQL["bounded"]).format(volume=volume, **names), due)
    # From here on others wait who read the history.
    cursor.execute(queries("housekeeping")["impatience"])
    for table in tables:
        cursor.execute(sql.SQL(queries("housekeeping")["drop_volume"]).format(name=table))
    cursor.execute(_SQL["attach"], due)
    cursor.execute(_SQL["dropped"], due)
    cursor.execute(sql.SQL(_SQL["unbounded"]).format(volume=volume))
    size = row(cursor, _SQL["size"], made)
    assert size
    return number, size["bytes"]
