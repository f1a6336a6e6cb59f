"""What an import would do: counts, reasons, and for any record what would change."""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rowledger import pipeline
from rowledger.cli.imports import PANEL
from rowledger.cli.terminal import (
    DomainOption,
    KindOption,
    OriginOption,
    SubscriptionOption,
    TemplateOption,
    app,
    database,
    err,
    find_template,
    from_environment,
    log_to_terminal,
    out,
    plain,
    print_content,
    print_json,
    print_reasons,
    reasons_in_words,
    value_in_words,
)
from rowledger.errors import FileError

if TYPE_CHECKING:
    from rowledger.dry_run import Trial

SHOWN_CHANGES = 10


@app.command("dry-run", rich_help_panel=PANEL)
def dry_run_file(
    file: Annotated[Path, typer.Argument(help="A CSV file.", exists=True, dir_okay=False, metavar="FILE")],
    kind: KindOption,
    domain: DomainOption,
    template: TemplateOption,
    origin: OriginOption = None,
    subscription: SubscriptionOption = None,
    record: Annotated[
        int | None,
        typer.Option(help="What would become of the record of this number.", min=1, metavar="NUMBER"),
    ] = None,
    every: Annotated[bool, typer.Option("--records", help="What would become of every record.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --record or --records one object a line.")
    ] = False,
) -> None:
    """Say what an import of a file would do today, record by record if asked, and write nothing."""
    settings = from_environment()
    chosen = find_template(settings, template, kind)
    from rowledger.dry_run import dry_run
    from rowledger.suites import suite_hash

    log_to_terminal(quiet=True)
    with database(settings) as connection:
        worker = pipeline.Worker(connection, settings, getpass.getuser())
        with dry_run(
            worker,
            file,
            chosen,
            suite_hash(chosen),
            domain,
            origins=origin or (),
            subscriptions=subscription or (),
        ) as trial:
            if record or every:
                _print_trial_records(trial.records(record), as_json)
            else:
                _print_trial(trial, as_json)
            failed = trial.batch.failed
    raise typer.Exit(FileError.exit_code if failed else 0)


def _print_trial(trial: Trial, as_json: bool) -> None:
    batch, reasons = trial.batch, trial.reasons(20)
    if as_json:
        shown = batch.as_dict()
        print_json({key: shown[key] for key in (
            "kind", "domain", "template", "file_name", "records_in_file", "counts", "error_rule", "error_message", "warnings",
        )} | {"reasons": reasons})  # fmt: skip
        return
    out.print(f"[bold]Dry run of {plain(batch.file_name)}[/bold]: nothing was written.")
    if batch.error_message:
        out.print(f"[red]The import would fail: {plain(batch.error_message)}[/red]")
    print_content(batch)
    print_reasons("Why records would not be loaded:", reasons)
    changed = list(trial.records(outcomes=["updated", "historic"], limit=SHOWN_CHANGES))
    if changed:
        out.print("\nWhat would change, for example (--record NUMBER and --records tell it of any record):")
        for one in changed:
            _print_change(one)


def _print_trial_records(found: Iterable[dict[str, Any]], as_json: bool) -> None:
    one = None
    for one in found:
        print_json(one, indent=None) if as_json else _print_change(one)
    if one is None:
        err.print("There are no such records.")


def _print_change(one: dict[str, Any]) -> None:
    """What would become of a record: its outcome, whom or what it is about, each field before and after, and why."""
    before, after = one["before"] or {}, one["after"] or {}
    fields = [
        f"{field}: {value_in_words(before[field])} → {value_in_words(value)}"
        if field in before
        else f"{field}: {value_in_words(value)}"
        for field, value in after.items()
    ]
    parts = [
        f"{one['record_no']:>9,}",
        f"{one['outcome']:<9}",
        plain(one["about"] or ""),
        "; ".join(fields),
        reasons_in_words(one["reasons"], one["warnings"]),
    ]
    out.print("  ".join(part for part in parts if part).rstrip())
