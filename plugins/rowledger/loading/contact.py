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
        TargetField("salutation", "text", _TEXT, "Salutation"),
        TargetField("first_name", "text", _TEXT, "First name"),
        TargetField("middle_name", "text", _TEXT, "Middle name"),
        TargetField("last_name", "text", _TEXT, "Last name"),
        TargetField("company", "text", _TEXT, "Company"),
        TargetField("job_title", "text", _TEXT, "Job title"),
        TargetField("phone", "text", ("phone",), "Phone"),
        TargetField("mobile", "text", ("phone",), "Mobile"),
        TargetField("fax", "text", ("phone",), "Fax"),
        TargetField("street", "text", _TEXT, "Street"),
        TargetField("address_line_2", "text", _TEXT, "Address line 2"),
        TargetField("postal_code", "text", _TEXT, "Postal code"),
        TargetField("city", "text", _TEXT, "City"),
        TargetField("region", "text", _TEXT, "Region"),
        TargetField("country", "text", _TEXT, "Country"),
        TargetField("language", "text", _TEXT, "Language"),
        TargetField("birth_date", "date", ("date",), "Birth date"),
        TargetField("lead", "boolean", ("boolean",), "Lead"),
        TargetField("roles", "text[]", ("list",), "Roles"),
        TargetField("origins", "text[]", ("list",), "Origins", "@origins"),
        TargetField("subscriptions", "text[]", ("list",), "Subscriptions", "@subscriptions"),
        TargetField("opt_outs", "text[]", ("list",), "Opt-outs", "@lists"),
    ),
    required_fields=(),
    match_keys=("external_id", "email"),
    policies=("match", "mode", "max_rejected_share"),
    attributes=True,
)
CHANGES = queries("contact")["changes"]
EFFECTS = queries("contact")["effects"].replace("{holders}", queries("contact")["holders"])
LOCKED = ("contact", "contract")  # a contract names its contact
LINKS = ("origins", "subscriptions", "opt_outs")  # what a contact is linked to; the other fields are its own
ATTRIBUTE = "attributes."


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


def make_room(cursor: Cursor, batch: Batch) -> None:
    """Open the year of the history of subscriptions in which something is entered now, and the one after it."""
    cursor.execute(queries("contact")["open"], {"domain_id": batch.domain_id})


def merge(
    cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
) -> Counter[str]:
    """Create and update the chunk's contacts, link their origins and subscriptions, write the ledger.

    The statement is put together from what the template and the batch have: nobody pays for what they do not use.
    """
    parts = _parts(batch, template)
    # Whose other key belongs to somebody else has been set apart; here only what finds a contact is looked up.
    keys = {key: parts[key] if key in _keys(template) else sql.SQL("NULL::text") for key in KIND.match_keys}
    parts["owners"] = _sql("owners", **parts | keys, records=_sql("chunk", **parts))
    values = {
        "seqno": batch.seqno,
        "domain_id": batch.domain_id,
        "domain": batch.domain,
        "after": after,
        "upto": upto,
        "key_columns": " and ".join(batch.columns[key] for key in KIND.match_keys if key in batch.columns),
        "subscriptions_column": batch.columns.get("subscriptions"),
    }
    named = row(cursor, queries("contact")["named_at_upload"], values) or {}
    linked = any(named.values()) or any(column.field in LINKS for column in template.columns)
    if linked:
        make_room(cursor, batch)
    # However large contact is, a chunk finds its few rows by index; the planner would rather read the whole table.
    cursor.execute("SET LOCAL enable_seqscan = off")
    cursor.execute(_sql("find", **parts), values)
    parts["links"] = _sql("linked" if linked else "not_linked")
    cursor.execute(_sql("merge", **parts), values | named)
    outcomes = loading.outcomes(cursor)
    cursor.execute("DROP TABLE source")
    return outcomes


def settle(cursor: Cursor, batch: Batch) -> None:
    """Spare whose key has gone to somebody else; who is spared keeps a key too, so until nobody is found."""
    cursor.execute(queries("contact")["index_effects"])
    blocked = _sql("spare_blocked", holders=_sql("holders"))
    here, found = {"domain_id": batch.domain_id}, -1
    while found:
        cursor.execute(blocked, here)
        found = cursor.rowcount


def restore(cursor: Cursor, batch: Batch) -> None:
    """Remove the contacts that were created, and give the others their fields, origins and lists back."""
    values = {"seqno": batch.seqno, "domain_id": batch.domain_id}
    own = [field.name for field in KIND.fields if field.name not in LINKS]
    fields = [_sql("restored_field", field=sql.Identifier(name), key=sql.Literal(name)) for name in own]
    for part in ("remove", "remove_origins", "withdraw", "stand_back"):
        cursor.execute(queries("contact")[part], values)
    cursor.execute(_sql("free_keys", holders=_sql("holders")), values)
    cursor.execute(_sql("restore", fields=sql.SQL(", ").join(fields)))


def _sql(name: str, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(queries("contact")[name]).format(**parts)


def _parts(batch: Batch, template: ImportTemplate) -> dict[str, sql.Composable]:
    """What the queries need of the template: which fields it fills, and by which it finds a contact."""
    columns = [column for column in template.columns if column.field]
    filled, keys = [column.field or "" for column in columns], _keys(template)
    compared = [*filled, "cleared"] if any(column.clear for column in columns) else filled
    found = sql.SQL("coalesce({}, NULL)").format(
        sql.SQL(", ").join(sql.Identifier(f"by_{key}") for key in keys)
    )
    return {
        "staging": staging.table(batch),
        "staged": sql.SQL(", ").join([*map(_staged, columns), *map(sql.Identifier, compared[len(filled) :])]),
        "theirs": sql.SQL(", ").join(sql.Identifier("r", field) for field in compared),
        "last": sql.SQL(", ").join(sql.Identifier("l", field) for field in compared),
        "external_id": sql.SQL("s.external_id" if "external_id" in filled else "NULL::text"),
        "email": sql.SQL("s.email" if "email" in filled else "NULL::text"),
        "other_key": sql.SQL('lower(s.email COLLATE "C")' if keys[0] == "external_id" else "s.external_id"),
        "found": found,
        "about": _sql("about_two" if len(keys) > 1 else "about_one"),
        "conflicting": _sql("conflicting_two" if len(keys) > 1 else "conflicting_one", found=found),
        "refused_by_mode": sql.SQL(_REFUSED_BY_MODE.get(template.policies.mode or "", "")).format(
            found=found
        ),
        **{link: sql.SQL(f"s.{link}" if link in filled else "NULL::text[]") for link in LINKS},
        **_writes([column for column in columns if column.field not in LINKS]),
    }


_REFUSED_BY_MODE = {
    "create_only": "WHEN {found} IS NOT NULL THEN 'exists_already'",
    "update_only": "WHEN {found} IS NULL THEN 'unknown_contact'",
}


def _keys(template: ImportTemplate) -> list[str]:
    mapped = {column.field for column in template.columns}
    return [key for key in template.policies.match or KIND.match_keys if key in mapped]


def _staged(column: Column) -> sql.Composable:
    """A staged column as it is compared and written: lists are sets, attributes JSON.

    But for links, whose order in the cell says which origin is the first.
    """
    form = "as_set({})" if column.type == "list" and column.field not in LINKS else "{}"
    form = f"to_jsonb({form})" if _is_attribute(column) else form
    name = sql.Identifier(column.field or "")
    return sql.SQL(f"{form} AS {{}}").format(name, name)


def _writes(columns: list[Column]) -> dict[str, sql.Composable]:
    """What a new contact gets, what an update changes, and what it notes of the values before."""
    changing = [column for column in columns if column.on_update != "never"]
    inserted = _assigned(columns, "{given}", "'{{}}'")
    updated = _assigned(changing, "{new}", "coalesce(t.attributes, '{{}}')")
    return {
        "fields": sql.SQL(", ").join(map(sql.Identifier, inserted)),
        "inserted": sql.SQL(", ").join(inserted.values()),
        "changed": sql.SQL(" OR ").join(
            [sql.SQL("false"), *(_form("{new} IS DISTINCT FROM {stored}", column) for column in changing)]
        ),
        "assignments": sql.SQL("").join(
            sql.SQL("{} = {}, ").format(sql.Identifier(field), value) for field, value in updated.items()
        ),
        "before": sql.SQL(" || ").join([sql.SQL("jsonb '{}'"), *(_form(_BEFORE, c) for c in changing)]),
    }


_BEFORE = "CASE WHEN {old} IS DISTINCT FROM {stored} THEN jsonb_build_object({key}, {old}) ELSE '{{}}' END"


def _assigned(columns: list[Column], form: str, attributes: str) -> dict[str, sql.Composable]:
    """Columns of contact and what is written to them; all attributes together are one, beside those that stay."""
    own = {c.field or "": _form(form, c) for c in columns if not _is_attribute(c)}
    given = [_form(f"jsonb_build_object({{name}}, {form})", c) for c in columns if _is_attribute(c)]
    if given:
        together = sql.SQL(" || ").join([sql.SQL(attributes).format(), *given])
        own["attributes"] = sql.SQL("nullif(jsonb_strip_nulls({}), '{{}}')").format(together)
    return own


def _is_attribute(column: Column) -> bool:
    return (column.field or "").startswith(ATTRIBUTE)


def _form(form: str, column: Column) -> sql.Composable:
    """An expression about a column: what the record gives, what is stored (in MERGE: t), and what an update makes of it."""
    field = column.field or ""
    name = sql.Literal(field.removeprefix(ATTRIBUTE))
    place = sql.SQL("({}.attributes -> {})") if _is_attribute(column) else sql.SQL("{}.{}")
    at = name if _is_attribute(column) else sql.Identifier(field)
    given, key = sql.Identifier("s", field), sql.Literal(field)
    stored, old = (place.format(sql.SQL(table), at) for table in ("t", "old"))
    new = sql.SQL(_NEW_VALUE[column.on_update]).format(given=given, stored=stored)
    if column.clear:
        new = sql.SQL("CASE WHEN {} = ANY(s.cleared) THEN NULL ELSE {} END").format(key, new)
    return sql.SQL(form).format(given=given, stored=stored, old=old, new=new, key=key, name=name)


# What an update makes of a field, by the column's write rule. A blank cell leaves alone.
_NEW_VALUE = {
    "overwrite": "coalesce({given}, {stored})",
    "fill_if_empty": "coalesce({stored}, {given})",
    "add": "united({stored}, {given})",
    "never": "{stored}",
}
