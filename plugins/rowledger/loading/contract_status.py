"""Contract statuses: which status each contract gets, by the rules for statuses (docs/rules.md).

A file's records for one contract are applied in the order of their date, then of their number. A record may wait for
its contract or its code; it is replayed by the same rules, as if it had come with its batch but later.
"""

from __future__ import annotations

from collections import Counter
from datetime import date

from psycopg2 import sql

from rowledger import loading, parked, staging
from rowledger.db import Cursor, queries, row
from rowledger.model import Batch, Kind, TargetField
from rowledger.templates import ImportTemplate

_SQL = queries("contract_status")
KIND = Kind(
    name="contract_status",
    title="contract statuses",
    fields=(
        TargetField("form_id", "text", ("code", "text"), "Form ID"),
        TargetField("date_result", "date", ("date",), "Date Result"),
        TargetField("result_code", "text", ("code", "text"), "Result code"),
    ),
    required_fields=("form_id", "date_result", "result_code"),
    match_keys=("form_id",),
    policies=("unknown_contract", "unknown_status", "future_dates", "max_rejected_share"),
)
CHANGES = queries("contract_status")["changes"]
EFFECTS = queries("contract_status")["effects"]
LOCKED = ("contract_status",)


def arrange(cursor: Cursor, batch: Batch, template: ImportTemplate) -> None:
    """One match key: nothing to arrange."""


def make_room(cursor: Cursor, batch: Batch) -> None:
    """Open the years of the history in which something will be entered."""
    _open(cursor, batch, _staged(batch), None, None)


def merge(
    cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
) -> Counter[str]:
    """Enter the chunk's statuses in the history, move the current statuses, write the ledger."""
    chunk = _staged(batch)
    written: sql.Composable = sql.SQL(_SQL["to_ledger"])
    if "park" in (template.policies.unknown_contract, template.policies.unknown_status):
        written = sql.SQL(",\n").join([written, sql.SQL(_SQL["park"])])
    return _merge(cursor, batch, template, after, upto, chunk, written)


def replay(
    cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
) -> Counter[str]:
    """The same with the batch's parked records that are due; what becomes of them stands with them."""
    chunk = sql.SQL(_SQL["from_parked"]).format(due=parked.DUE)
    return _merge(cursor, batch, template, after, upto, chunk, sql.SQL(_SQL["to_parked"]))


def _staged(batch: Batch) -> sql.Composed:
    return sql.SQL(_SQL["from_staging"]).format(staging=staging.table(batch))


def _open(
    cursor: Cursor, batch: Batch, chunk: sql.Composable, after: str | None, upto: str | None
) -> date | None:
    """See that there is a place in the history for what a chunk enters; from which day on the history is kept."""
    values = {
        "seqno": batch.seqno,
        "kind": batch.kind,
        "domain_id": batch.domain_id,
        "after": after,
        "upto": upto,
    }
    found = row(cursor, sql.SQL(_SQL["open"]).format(chunk=chunk), values)
    assert found
    kept_from: date | None = found["kept_from"]
    return kept_from


_OUTCOMES = {"reject": "rejected", "ignore": "ignored", "park": "parked"}


def _merge(
    cursor: Cursor,
    batch: Batch,
    template: ImportTemplate,
    after: str | None,
    upto: str,
    chunk: sql.Composable,
    written: sql.Composable,
) -> Counter[str]:
    policies = template.policies
    kept_from = _open(cursor, batch, chunk, after, upto)
    cursor.execute(
        sql.SQL(_SQL["merge"]).format(chunk=chunk, written=written),
        {
            "kind": batch.kind,
            "seqno": batch.seqno,
            "domain_id": batch.domain_id,
            "domain": batch.domain,
            "after": after,
            "upto": upto,
            "kept_from": kept_from,
            "unknown_contract": _OUTCOMES[policies.unknown_contract or "reject"],
            "unknown_status": _OUTCOMES[policies.unknown_status or "ignore"],
            "future_allowed": policies.future_dates == "allow",
            "date_format": template.column_of("date_result").format,  # to_char reads DD-MM-YYYY as we do
            "form_id_column": batch.columns["form_id"],
            "date_result_column": batch.columns["date_result"],
            "result_code_column": batch.columns["result_code"],
        },
    )
    return loading.outcomes(cursor)


def settle(cursor: Cursor, batch: Batch) -> None:
    """Whose contract may be moved back depends on nothing else."""


def restore(cursor: Cursor, batch: Batch) -> None:
    """Withdraw the entries, and move their contracts back to the last one that is left."""
    for part in ("withdraw", "move_back"):
        cursor.execute(_SQL[part], {"domain_id": batch.domain_id})
