"""A contact's profile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from rowledger import contacts, loading
from rowledger.cli.terminal import (
    AsJson,
    DomainOption,
    app,
    database,
    from_environment,
    out,
    plain,
    print_json,
    value_in_words,
)

PANEL = "Contracts and contacts"


@app.command(rich_help_panel=PANEL)
def contact(
    key: Annotated[
        str,
        typer.Argument(help="The external id or the email of the contact.", metavar="EXTERNAL_ID_OR_EMAIL"),
    ],
    domain: DomainOption,
    limit: Annotated[
        int,
        typer.Option(
            help="At most so many records and subscription changes.", min=1, max=10_000, metavar="NUMBER"
        ),
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Show a contact: its fields, origins, subscriptions with their history, and every record about it."""
    with database(from_environment()) as connection:
        found = contacts.profile(connection, domain, key, limit)
    if as_json:
        print_json(found.as_dict())
        return
    _print_fields(found)
    _print_contracts(found)
    _print_origins(found)
    _print_subscriptions(found)
    _print_records(found)


def _print_fields(found: contacts.Profile) -> None:
    fields = found.fields
    sort = "Lead" if fields["lead"] else "Contact"
    name = " ".join(fields[part] for part in ("first_name", "middle_name", "last_name") if fields[part])
    named = ", ".join(filter(None, (fields["external_id"], name)))
    out.print(f"[bold]{sort} {plain(named or fields['email'])}[/bold]  of {found.domain}, "
              f"created {fields['created_at']:%Y-%m-%d %H:%M}, changed {fields['updated_at']:%Y-%m-%d %H:%M}")  # fmt: skip
    for field in _in_order(fields):
        if field not in ("lead", "created_at", "updated_at") and fields[field] is not None:
            out.print(f"  {_title(field):<15} {value_in_words(fields[field])}")


def _print_contracts(found: contacts.Profile) -> None:
    for one in found.contracts:
        status = f"{plain(one['status'])} {plain(one['description'])}" if one["status"] else "no status"
        out.print(
            f"  {'Contract':<15} {plain(one['form_id'])}  [dim]signed up {one['sign_up_date']}, {status}[/dim]"
        )


def _print_origins(found: contacts.Profile) -> None:
    out.print("\n[bold]Origins[/bold]" if found.origins else "\nNo origins.")
    for one in found.origins:
        first = "the first, " if one["first"] else ""
        out.print(f"  {plain(one['code'])} {plain(one['name'])}  [dim]{first}{_provenance(one)}[/dim]")


def _print_subscriptions(found: contacts.Profile) -> None:
    out.print("\n[bold]Subscriptions[/bold]" if found.subscriptions else "\nNo subscriptions.")
    for one in found.subscriptions:
        state = "[green]in[/green] " if one["opted_in"] else "[red]out[/red]"
        disabled = ", disabled" if one["disabled"] else ""
        out.print(f"  {state} {plain(one['list_id'])} {plain(one['name'])} ({one['type']}{disabled})  "
                  f"[dim]since {one['changed_at']:%Y-%m-%d %H:%M}[/dim]")  # fmt: skip
    if found.subscription_history:
        out.print("\n[bold]Subscription history[/bold]")
    for one in found.subscription_history:
        way = "in " if one["opted_in"] else "out"
        withdrawn = (
            f" [yellow]withdrawn {one['withdrawn_at']:%Y-%m-%d %H:%M}[/yellow]" if one["withdrawn_at"] else ""
        )
        out.print(
            f"  {one['recorded_at']:%Y-%m-%d %H:%M} {way} {plain(one['list_id'])}{withdrawn}  [dim]{_provenance(one)}[/dim]"
        )
    _say_what_is_left_out("changes", len(found.subscription_history), found.totals["subscription_history"])
    if found.subscription_history and found.history_kept_from:
        out.print(
            f"  [dim]Kept from {found.history_kept_from} on; of what came before, the last change of each list.[/dim]"
        )


def _print_records(found: contacts.Profile) -> None:
    out.print("\n[bold]Records[/bold]" if found.records else "\nNo import was about this contact.")
    for one in found.records:
        out.print(
            f"  {one['recorded_at']:%Y-%m-%d %H:%M} {one['outcome']:<9} {'; '.join(_changes(one))}".rstrip()
            + f"  [dim]{_provenance(one)}[/dim]"
        )
        if one["rolled_back_at"]:
            out.print(f"    [yellow]rolled back {one['rolled_back_at']:%Y-%m-%d %H:%M}[/yellow]")
        for reason in (*(one["reasons"] or ()), *(one["warnings"] or ())):
            out.print(f"    [yellow]{reason['rule']}: {plain(reason['message'])}[/yellow]")
    _say_what_is_left_out("records", len(found.records), found.totals["records"])


def _changes(record: dict[str, Any]) -> list[str]:
    """What a record changed, in words."""
    fields = []
    for field in _in_order(record["changes"]):
        change = record["changes"][field]
        before, after = (
            (_lead if field == "lead" else value_in_words)(change[when]) for when in ("before", "after")
        )
        fields.append(f"{_title(field)}: {before} → {after}")
    links = (("origin", "origins_added"), ("in", "opted_in"), ("out", "opted_out"))
    return [
        *fields,
        *(f"{word} {', '.join(map(plain, record[codes]))}" for word, codes in links if record[codes]),
    ]


def _provenance(one: dict[str, Any]) -> str:
    if one["seqno"] is None:
        return "not by an import"
    return f"#{one['seqno']} {plain(one['file_name'])} record {one['record_no']:,}, uploaded by {plain(one['uploaded_by'])}"


def _say_what_is_left_out(what: str, shown: int, total: int) -> None:
    if shown < total:
        out.print(f"  The newest {shown:,} of {total:,} {what}; --limit shows more.")


def _in_order(fields: Iterable[str]) -> list[str]:
    """As the kind lists its fields; then attributes, by name."""
    known = [field.name for field in loading.kinds()["contact"].fields]
    return sorted(fields, key=lambda field: (known.index(field) if field in known else len(known), field))


def _title(field: str) -> str:
    titles = {known.name: known.title for known in loading.kinds()["contact"].fields}
    return titles.get(field) or plain(field.removeprefix("attributes."))


def _lead(value: Any) -> str:
    return {True: "lead", False: "contact"}.get(value, "nothing")
