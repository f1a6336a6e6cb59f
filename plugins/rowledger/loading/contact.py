"""Contacts: find each by the template's match keys, create or update it, link origins and subscriptions.

Of several records about one contact in a file the last wins (docs/rules.md).
"""

from __future__ import annotations

from collections import Counter

from psycopg2 import sql

from rowledger import loading, staging
from rowledger.db import Cursor, queries, row
from rowledger.model import Batch, Kind, TargetField
from rowledger.templates import Column, ImportTemplate

_TEXT = ("text", "code")
KIND = Kind(
    name="contact",
    title="contacts",
    fields=(
        TargetField("external_id", "text", _TEXT, "External ID"),
        TargetField("email", "text", ("email",), "Email"),
        TargetField("first_name", "text", _TEXT, "First name"),
        TargetField("last_name", "text", _TEXT, "Last name"),
        TargetField("company", "text", _TEXT, "Company"),
        TargetField("phone", "text", ("phone",), "Phone"),
        TargetField("mobile", "text", ("phone",), "Mobile"),
        TargetField("street", "text", _TEXT, "Street"),
        TargetField("postal_code", "text", _TEXT, "Postal code"),
        TargetField("city", "text", _TEXT, "City"),
        TargetField("country", "text", _TEXT, "Country"),
        TargetField("language", "text", _TEXT, "Language"),
        TargetField("birth_date", "date", ("date",), "Birth date"),
    ),
    required_fields=(),
    match_keys=("external_id", "email"),
    policies=("match", "max_rejected_share"),
)


def arrange(cursor: Cursor, batch: Batch, template: ImportTemplate) -> None:
    """Give records that share any key, with each other or through a stored contact, one match key.

    A record whose keys contradict each other is set apart first. Needed only where a template fills more than one
    key. A key that the template does not match by links records too: no two contacts can have it, so who comes first
    would depend on the chunks. Repeated until nothing changes.
    """
    if len({column.field for column in template.columns} & set(KIND.match_keys)) < 2:
        return
    parts = _parts(batch, template)
    parts["owners"] = _sql("owners", **parts, records=_sql("all_records", **parts))
    here = {"domain_id": batch.domain_id}
    cursor.execute(_sql("strays", **parts), here)
    cursor.execute(_sql("set_apart", **parts))
    found = row(cursor, _sql("links", **parts))
    cursor.execute("DROP TABLE stray")
    changed = -1 if found and found["found"] else 0
    while changed:
        cursor.execute(_sql("arrange", **parts), here)
        changed = cursor.rowcount


def merge(
    cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
) -> Counter[str]:
    """Create and update the chunk's contacts, link their origins and subscriptions, write the ledger."""
    parts = _parts(batch, template)
    # Whose other key belongs to somebody else has been set apart; here only what finds a contact is looked up.
    keys = {key: parts[key] if key in _keys(template) else sql.SQL("NULL::text") for key in KIND.match_keys}
    parts["owners"] = _sql("owners", **parts | keys, records=_sql("chunk", **parts))
    values = {
        "seqno": batch.seqno,
        "domain_id": batch.domain_id,
        "after": after,
        "upto": upto,
        "key_columns": " and ".join(batch.columns[key] for key in KIND.match_keys if key in batch.columns),
    }
    # However large contact is, a chunk finds its few rows by index; the planner would rather read the whole table.
    cursor.execute("SET LOCAL enable_seqscan = off")
    cursor.execute(_sql("find", **parts), values)
    cursor.execute(_sql("merge", **parts), values)
    outcomes = loading.outcomes(cursor)
    cursor.execute("DROP TABLE source")
    return outcomes


def _sql(name: str, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(queries("contact")[name]).format(**parts)


def _parts(batch: Batch, template: ImportTemplate) -> dict[str, sql.Composable]:
    """What the queries need of the template: which fields it fills, and by which it finds a contact."""
    columns = [column for column in template.columns if column.field]
    filled, keys = {column.field for column in columns}, _keys(template)
    found = sql.SQL("coalesce({}, NULL)").format(
        sql.SQL(", ").join(sql.Identifier(f"by_{key}") for key in keys)
    )
    return {
        "staging": staging.table(batch),
        "fields": _list("{field}", columns),
        "staged": _list("s.{field}", columns),
        "theirs": _list("r.{field}", columns),
        "last": _list("l.{field}", columns),
        "changed": sql.SQL(" OR ").join(
            _new(column, "{new} IS DISTINCT FROM t.{field}") for column in columns
        ),
        "assignments": sql.SQL(", ").join(_new(column, "{field} = {new}") for column in columns),
        "external_id": sql.SQL("s.external_id" if "external_id" in filled else "NULL::text"),
        "email": sql.SQL("s.email" if "email" in filled else "NULL::text"),
        "other_key": sql.SQL('lower(s.email COLLATE "C")' if keys[0] == "external_id" else "s.external_id"),
        "found": found,
        "conflicting": _sql("conflicting_two" if len(keys) > 1 else "conflicting_one", found=found),
    }


def _keys(template: ImportTemplate) -> list[str]:
    mapped = {column.field for column in template.columns}
    return [key for key in template.policies.match or KIND.match_keys if key in mapped]


def _list(form: str, columns: list[Column]) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL(form).format(field=sql.Identifier(column.field or "")) for column in columns
    )


_NEW_VALUE = {
    "overwrite": "coalesce(s.{field}, t.{field})",  # a blank cell leaves alone
    "fill_if_empty": "coalesce(t.{field}, s.{field})",
    "never": "t.{field}",
}


def _new(column: Column, form: str) -> sql.Composable:
    """An expression with the value that the field has after an update, by the column's write rule."""
    field = sql.Identifier(column.field or "")
    return sql.SQL(form).format(field=field, new=sql.SQL(_NEW_VALUE[column.on_update]).format(field=field))
