"""Contracts: register new ones at the domain's initial status, correct known ones (docs/rules.md).

Of several records about one contract in a file the last wins. The history of statuses is never rewritten: a corrected
sign-up date moves no entry.
"""

from __future__ import annotations

from collections import Counter

from psycopg2 import sql

from rowledger import loading, staging
from rowledger.db import Cursor, queries
from rowledger.model import Batch, Kind, TargetField
from rowledger.templates import ImportTemplate

KIND = Kind(
    name="contract",
    title="contracts",
    fields=(
        TargetField("form_id", "text", ("code", "text"), "Form ID"),
        TargetField("sign_up_date", "date", ("date",), "Sign-up date"),
        TargetField("contact", "text", ("code", "text"), "Contact"),
    ),
    required_fields=("form_id", "sign_up_date"),
    match_keys=("form_id",),
    policies=("mode", "unknown_contact", "future_dates", "max_rejected_share"),
)
CHANGES = queries("contract")["changes"]
EFFECTS = queries("contract")["effects"]
LOCKED = ("contract", "contract_status")  # statuses and timers name contracts


def arrange(cursor: Cursor, batch: Batch, template: ImportTemplate) -> None:
    """One match key: nothing to arrange."""


def make_room(cursor: Cursor, batch: Batch) -> None:
    """Open the years of the history in which initial statuses will be entered."""
    _open(cursor, batch, None, None)


def merge(
    cursor: Cursor, batch: Batch, template: ImportTemplate, after: str | None, upto: str
) -> Counter[str]:
    """Register and correct the chunk's contracts, enter their initial status, write the ledger."""
    policies = template.policies
    _open(cursor, batch, after, upto)
    cursor.execute(
        sql.SQL(queries("contract")["merge"]).format(staging=staging.table(batch), **_parts(template)),
        {
            "seqno": batch.seqno,
            "domain_id": batch.domain_id,
            "domain": batch.domain,
            "after": after,
            "upto": upto,
            "mode": policies.mode,
            "unknown_contact_ignored": policies.unknown_contact == "ignore",
            "future_allowed": policies.future_dates == "allow",
            "date_format": template.column_of("sign_up_date").format,  # to_char reads DD-MM-YYYY as we do
            "form_id_column": batch.columns["form_id"],
            "sign_up_date_column": batch.columns["sign_up_date"],
            "contact_column": batch.columns.get("contact"),
        },
    )
    return loading.outcomes(cursor)


def _open(cursor: Cursor, batch: Batch, after: str | None, upto: str | None) -> None:
    """See that there is a place in the history for the initial statuses of a chunk."""
    query = sql.SQL(queries("contract")["open"]).format(staging=staging.table(batch))
    cursor.execute(query, {"domain_id": batch.domain_id, "after": after, "upto": upto})


def settle(cursor: Cursor, batch: Batch) -> None:
    """One key, which never changes: nothing to settle."""


def restore(cursor: Cursor, batch: Batch) -> None:
    """Remove the contracts that were created, with their initial status; give the others their fields back."""
    cursor.execute(queries("contract")["remove"], {"domain_id": batch.domain_id})
    cursor.execute(queries("contract")["restore"])


def _parts(template: ImportTemplate) -> dict[str, sql.Composable]:
    """What the query needs of the template: whether a column names the contact, and what an update writes."""
    contact = next((column for column in template.columns if column.field == "contact"), None)
    return {
        "contact": sql.SQL("contact" if contact else "NULL::text"),
        "clears_contact": sql.SQL(
            "coalesce('contact' = ANY(cleared), false)" if contact and contact.clear else "false"
        ),
        "new_date": sql.SQL(_NEW_DATE[template.column_of("sign_up_date").on_update]),
        "new_contact": sql.SQL(_NEW_CONTACT[contact.on_update if contact else "never"]),
    }


# What an update makes of the fields, by the column's write rule; a blank cell leaves alone.
_NEW_DATE = {
    "overwrite": "s.sign_up_date",
    "fill_if_empty": "t.sign_up_date",  # it never is
    "never": "t.sign_up_date",
}
_NEW_CONTACT = {
    "overwrite": "CASE WHEN NOT s.clears_contact THEN coalesce(s.contact_id, t.contact_id) END",
    "fill_if_empty": "CASE WHEN NOT s.clears_contact THEN coalesce(t.contact_id, s.contact_id) END",
    "never": "t.contact_id",
}
