"""The database as a whole: its tables, its invariants, what it keeps."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated

import typer

from rowledger import db, housekeeping, ledger, pipeline, retention
from rowledger.cli.terminal import (
    AsJson,
    app,
    database,
    from_environment,
    log_to_terminal,
    new_table,
    out,
    plain,
    print_json,
)

PANEL = "The database"


@app.command(rich_help_panel=PANEL)
def check(as_json: AsJson = False) -> None:
    """Check the invariants of the whole database; exit code 1 if one is violated."""
    with database(from_environment()) as connection:
        results = ledger.check(connection)
    if as_json:
        print_json(results)
    else:
        table = new_table("Check", "What it says", "Violations", "First", names=("Check",))
        for result in results:
            bad = result["violations"]
            table.add_row(
                result["check"],
                result["says"],
                f"[red]{bad}[/red]" if bad else "[green]0[/green]",
                result["first"],
            )
        out.print(table)
        bad = sum(1 for result in results if result["violations"])
        verdict = f"[red]{bad} of {len(results)} checks are violated.[/red]"
        out.print(verdict if bad else f"All {len(results)} checks hold.")
    raise typer.Exit(1 if any(result["violations"] for result in results) else 0)


@app.command(rich_help_panel=PANEL)
def migrate() -> None:
    """Create or update Rowledger's tables."""
    with database(from_environment(), checked=False) as connection:
        applied = db.migrate(connection)
    out.print(f"Applied: {', '.join(applied)}." if applied else "The database is up to date.")


@app.command("housekeeping", rich_help_panel=PANEL)
def keep_house(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; tell what would be removed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what need not be kept any more, by include/retention.yml, as the daily DAG does."""
    log_to_terminal(quiet=as_json or dry_run)
    settings = from_environment()
    with database(settings) as connection:
        worker = pipeline.Worker(connection, settings, getpass.getuser())
        do = housekeeping.forecast if dry_run else housekeeping.clean
        removed = do(worker, retention.read(settings.retention))
    if as_json:
        print_json([asdict(one) for one in removed])
        return
    table = new_table("Domain", "What", "Number", "Bytes")
    for one in removed:
        table.add_row(
            plain(one.domain or ""), one.what, f"{one.items:,}", f"{one.bytes:,}" if one.bytes else ""
        )
    out.print(table if removed else "There is nothing to remove.")
    if dry_run:
        out.print("Nothing was removed.")
