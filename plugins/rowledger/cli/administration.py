"""The database as a whole: its tables, its invariants."""

from __future__ import annotations

import typer

from rowledger import db, ledger
from rowledger.cli.terminal import AsJson, app, database, from_environment, new_table, out, print_json

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
