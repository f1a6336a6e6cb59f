"""Erase one person, and show the receipts of those who were erased."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from rowledger import erasure, pipeline
from rowledger.cli.contacts import PANEL
from rowledger.cli.terminal import AsJson, DomainOption, app, database, new_table, out, plain, print_json
from rowledger.settings import from_environment

KeyArgument = Annotated[
    str, typer.Argument(help="The external id or the email of the contact.", metavar="EXTERNAL_ID_OR_EMAIL")
]


@app.command("erase-contact", rich_help_panel=PANEL)
def erase_contact(
    key: KeyArgument,
    domain: DomainOption,
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase; without it nothing is changed, and the receipt is as it would be.")
    ] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Erase one person from everything that is kept in a domain; prints a receipt that does not say who it was."""
    settings = from_environment()
    with database(settings) as connection:
        worker = pipeline.Worker(connection, settings, getpass.getuser())
        receipt = (erasure.erase if yes else erasure.forecast)(worker, domain, key)
    if as_json:
        print_json(receipt.as_dict() | {"erased": yes})
        return
    _print(receipt, "Receipt" if yes else "What would be the receipt")
    out.print(
        f"Once more: rowledger erasures {receipt.erasure_id}"
        if yes
        else "Nothing was changed. To erase: --yes"
    )


@app.command(rich_help_panel=PANEL)
def erasures(
    number: Annotated[int | None, typer.Argument(help="One receipt.", min=1, metavar="NUMBER")] = None,
    key: Annotated[
        str | None, typer.Option(help="Say of each whether it is about this external id or email.", metavar="KEY")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10_000, metavar="NUMBER")] = 20,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show the receipts of people who were erased, the newest first."""
    with database(from_environment()) as connection:
        found = [erasure.receipt(connection, number)] if number else erasure.receipts(connection, limit)
    if as_json:
        print_json([one.as_dict() | ({"is_about": one.is_about(key)} if key else {}) for one in found])
        return
    for one in found:
        _print(one, "Receipt")
        if key:
            out.print(f"It is {'' if one.is_about(key) else 'not '}about that key.")
    if not found:
        out.print("Nobody was erased.")


def _print(receipt: erasure.Receipt, title: str) -> None:
    out.print(f"\n[bold]{title} {receipt.erasure_id}[/bold] of {plain(receipt.domain)}, {receipt.erased_at:%Y-%m-%d %H:%M} "
              f"UTC, by {plain(receipt.by)}\n  salt {receipt.salt}\n  SHA-256 of salt, blank and key {receipt.key_sha256}")  # fmt: skip
    table = new_table("Where", "Import batch", "Number")
    for one in receipt.counts:
        table.add_row(one.place, str(one.seqno or ""), f"{one.items:,}")
    out.print(table)
