"""A whole database as values that two runs can be compared by: without times, with natural keys in place of ids.

Whatever table a migration adds is compared too.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rowledger import db
from rowledger.db import Connection, Cursor

LEFT_OUT = {"migration", "import_turn"}
# How often and when a batch was taken on says what happened to its workers.
OF_WORKERS = {"epoch", "run_id", "reopened", "attempts", "file_path"}
# Entries are numbered as they are made; what counts is their order among those of one target.
IN_ORDER = {
    "status_history": ("history_id", ("contract_id",)),
    "subscription_history": ("history_id", ("contact_id", "subscription_id")),
    "contact_origin": ("entry_id", ("contact_id",)),
}
_COLUMNS = """
    SELECT table_name, array_agg(column_name::text) FILTER (WHERE is_identity = 'YES') AS ids,
           array_agg(column_name::text) FILTER (WHERE data_type LIKE 'timestamp%%') AS times
    FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
    WHERE table_schema = 'rowledger' AND table_type = 'BASE TABLE'
      AND table_name !~ '^(import_record|(status|subscription)_history)_' GROUP BY table_name ORDER BY table_name"""


def contents(connection: Connection) -> dict[str, list[Any]]:
    """Table -> its rows, sorted."""
    with db.transaction(connection) as cursor:
        tables = {t["table_name"]: t for t in db.rows(cursor, _COLUMNS) if t["table_name"] not in LEFT_OUT}
        rows = {
            name: [r["t"] for r in db.rows(cursor, f"SELECT to_jsonb(t) AS t FROM {name} AS t")]
            for name in tables
        }
        found = {"staging": _staged(cursor)}
    events = rows.pop("import_batch_event")
    _number(rows)
    names = _Names(rows)
    for name, table in rows.items():
        own, times = set(tables[name]["ids"] or ()), set(tables[name]["times"] or ())
        found[name] = sorted((names.natural(row, own, times) for row in table), key=repr)
    found["events"] = _events(events)
    return found


def _staged(cursor: Cursor) -> list[Any]:
    return [
        list(r.values())
        for r in db.rows(cursor, "SELECT tablename FROM pg_tables WHERE schemaname = 'rowledger_staging'")
    ]


def _number(rows: dict[str, list[dict[str, Any]]]) -> None:
    for name, (entry, of) in IN_ORDER.items():
        seen: dict[Any, int] = defaultdict(int)
        for row in sorted(rows[name], key=lambda row: row[entry]):
            key = tuple(row[column] for column in of)
            seen[key] += 1
            row["place"] = seen[key]


class _Names:
    """Natural keys of the rows that others refer to by number."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        self._contact = {
            r["contact_id"]: (r["domain_id"], r["external_id"], r["email"], r["last_name"])
            for r in rows["contact"]
        }
        self._contract = {r["contract_id"]: (r["domain_id"], r["form_id"]) for r in rows["contract"]}
        self._status = {r["status_id"]: r["code"] for r in rows["contract_status"]}
        self._kind = {r["seqno"]: r["kind"] for r in rows["import_batch"]}

    def natural(self, row: dict[str, Any], own: set[str], times: set[str]) -> list[Any]:
        found = []
        for column, value in sorted(row.items()):
            if column in OF_WORKERS or (
                column in own and column not in ("contact_id", "contract_id", "seqno")
            ):
                continue
            found.append(
                (column, self._value(row, column, value) if column not in times else value is not None)
            )
        return found

    def _value(self, row: dict[str, Any], column: str, value: Any) -> Any:
        if value is None:
            return None
        if column == "target_id":
            contact = self._kind[row["seqno"]] == "contact"
            return (self._contact if contact else self._contract).get(value, "removed by a roll back")
        names = {"contact_id": self._contact, "contract_id": self._contract, "status_id": self._status}
        return names[column][value] if column in names else value


def _events(events: list[dict[str, Any]]) -> list[Any]:
    """Who did what, in order; a batch that failed, was opened again and failed the same way has failed once."""
    found: list[Any] = []
    for event in sorted(events, key=lambda event: (event["seqno"], event["event_id"])):
        told = [event["seqno"], event["event"], event["by"], event["detail"]]
        if event["event"] == "reopened" and found[-1][1] == "failed" and found[-1][3] == event["detail"]:
            found.append(told)
            continue
        if event["event"] == "failed" and len(found) > 1 and found[-1][1] == "reopened" and found[-2] == told:
            found.pop()
            continue
        found.append(told)
    return found
