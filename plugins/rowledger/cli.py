"""The command line ``rowledger``: for people (tables, sentences) and for scripts (``--json``, exit codes).

Exit codes: 0 done; 1 a check or a batch failed; 2 the call or the set-up is wrong; 3 the file is wrong; 4 another
worker took the batch over; 5 the same file was uploaded before; 75 the database is not available, try again.
"""

from __future__ import annotations

import contextlib
import csv
import getpass
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from rowledger import batches, db, ledger, loading, pipeline, reference, templates, uploads
from rowledger.db import Connection
from rowledger.errors import DuplicateUpload, FileError, RowledgerError, SetupError, UnknownCode
from rowledger.model import Batch, BatchStatus, Outcome
from rowledger.settings import Settings, from_environment

app = typer.Typer(
    help="Import CSV files into PostgreSQL, with a ledger of what became of every record.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Seqno = Annotated[int, typer.Argument(help="The import batch seqno.", min=1, metavar="SEQNO")]
TemplateName = Annotated[str, typer.Argument(metavar="NAME", help="The name of a template.")]


def main() -> None:
    """Run the command line; errors become sentences and exit codes."""
    try:
        app()
    except RowledgerError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever reads has seen enough; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@contextlib.contextmanager
def database(settings: Settings, *, checked: bool = True) -> Iterator[Connection]:
    """A connection to the configured database, or to the embedded one, which is started if need be."""
    with contextlib.ExitStack() as stack:
        url = settings.database_url
        if url is None:
            from rowledger import server

            embedded = stack.enter_context(server.running(settings))
            url = embedded.get_uri(server.DATABASE)
        connection = stack.enter_context(contextlib.closing(db.connect(url)))
        if checked and settings.database_url is None:
            db.migrate(connection)
        yield connection


@app.command()
def submit(
    files: Annotated[
        list[Path], typer.Argument(help="CSV files, or directories of them.", exists=True, metavar="FILES...")
    ],
    kind: Annotated[str, typer.Option(help="The import kind: contact or contract_status.", metavar="KIND")],
    domain: Annotated[str, typer.Option(help="The code of the domain.", metavar="CODE")],
    template: Annotated[
        str, typer.Option(help="The name of an import template of that kind.", metavar="NAME")
    ],
    origin: Annotated[
        list[str] | None, typer.Option(help="An origin for every contact; repeat for more.", metavar="CODE")
    ] = None,
    subscription: Annotated[
        list[str] | None,
        typer.Option(help="A list to opt every contact in to; repeat for more.", metavar="LIST_ID"),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Take a file that was uploaded before once more.")
    ] = False,
    as_json: AsJsonLines = False,
) -> None:
    """Upload files: each becomes a waiting import batch; prints its seqno."""
    settings = from_environment()
    chosen = _template(settings, template, kind)
    from rowledger.suites import suite_hash

    problems: list[RowledgerError] = []
    with database(settings) as connection:
        for path in _files(files):
            try:
                upload = uploads.keep_file(path, settings.uploads)
            except SetupError as error:  # a link, a device, a file of others: the next one may be right
                problems.append(error)
                _complain(error)
                continue
            try:
                seqno = batches.register(
                    connection, upload, chosen, suite_hash(chosen), domain, origins=origin or (),
                    subscriptions=subscription or (), by=getpass.getuser(), through="command line", again=again,
                )  # fmt: skip
            except DuplicateUpload as error:
                problems.append(error)
                _complain(error)
                continue
            shown = {"seqno": seqno, "file_name": upload.file_name}
            _print_json(shown, indent=None) if as_json else out.print(seqno)
    if problems:
        raise typer.Exit(problems[0].exit_code)


@app.command()
def work(
    seqno: Annotated[
        int | None, typer.Argument(help="The import batch seqno.", min=1, metavar="SEQNO")
    ] = None,
    all_waiting: Annotated[bool, typer.Option("--all-waiting", help="Work off every waiting batch.")] = False,
    as_json: AsJsonLines = False,
) -> None:
    """Validate, load and close a batch in this process, through the functions the DAG's tasks use."""
    if (seqno is None) == (not all_waiting):
        raise UnknownCode("Name one import batch seqno, or say --all-waiting.")
    _log_to_terminal(quiet=as_json)
    settings = from_environment()
    failed = 0
    with database(settings) as connection:
        worker = pipeline.Worker(connection, settings, getpass.getuser())
        numbers = batches.waiting(connection) if seqno is None else [batches.get(connection, seqno).seqno]
        if not numbers:
            err.print("No import batch is waiting.")
        for number in numbers:
            try:
                pipeline.work(worker, number)
            except RowledgerError as error:
                failed = failed or error.exit_code
                if not isinstance(error, FileError):
                    _complain(error)
            batch = batches.get(connection, number)
            _print_json(batch.as_dict(), indent=None) if as_json else _print_batch(batch)
    raise typer.Exit(failed)


@app.command("list")
def list_batches(
    kind: Annotated[str | None, typer.Option(help="Only this import kind.", metavar="KIND")] = None,
    status: Annotated[
        BatchStatus | None, typer.Option(help=f"Only one of: {', '.join(BatchStatus)}.", metavar="STATUS")
    ] = None,
    before: Annotated[
        int | None, typer.Option(help="Only batches before this seqno (older ones).", metavar="SEQNO")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000, metavar="NUMBER")] = 50,
    as_json: AsJson = False,
) -> None:
    """List import batches, the newest first."""
    _known_kind(kind)
    with database(from_environment()) as connection:
        found = batches.listed(connection, kind, status, before, limit)
    if as_json:
        _print_json([batch.as_dict() for batch in found])
        return
    if found:
        out.print(batch_table(found))
    elif kind or status or before:
        out.print("There are no such import batches.")
    else:
        out.print("There are no import batches; upload a file with: rowledger submit")


@app.command()
def show(seqno: Seqno, as_json: AsJson = False) -> None:
    """Show one import batch: state, check boxes, dates, outcomes, the commonest reasons."""
    with database(from_environment()) as connection:
        batch = batches.get(connection, seqno)
        events = batches.events(connection, seqno)
        reasons = ledger.common_reasons(
            connection, seqno, [Outcome.REJECTED, Outcome.IGNORED, Outcome.PARKED], 20
        )
    if as_json:
        _print_json(batch.as_dict() | {"reasons": reasons, "events": events})
        return
    _print_batch(batch)
    if reasons:
        out.print("\nWhy records were not loaded:")
        table = _table("Records", "Rule", "Column", "First record", "For example", names=("Rule",))
        for reason in reasons:
            table.add_row(f"{reason['records']:,}", reason["rule"], _plain(reason["column"] or ""),
                          str(reason["first_record"]), _plain(reason["example"]))  # fmt: skip
        out.print(table)
    if batch.processed and batch.counts[Outcome.REJECTED]:
        out.print(f"To mend the rejected records: rowledger rejects {seqno} > mend.csv")
    for event in events:
        told = event["detail"] in (None, batch.error_message)  # the reason of a failure stands above
        detail = "" if told else f": {_plain(event['detail'])}"
        out.print(
            f"[dim]{event['occurred_at']:%Y-%m-%d %H:%M:%S} {event['event']} by {_plain(event['by'])}{detail}[/dim]"
        )


@app.command()
def records(
    seqno: Seqno,
    outcome: Annotated[
        list[Outcome] | None,
        typer.Option(help=f"Only one of: {', '.join(Outcome)}; repeat for more.", metavar="OUTCOME"),
    ] = None,
    record: Annotated[
        int | None, typer.Option(help="Only the record of this number.", min=1, metavar="NUMBER")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """What became of the records of a batch, and why."""
    with database(from_environment()) as connection:
        batches.get(connection, seqno)
        outcomes = [str(o) for o in outcome] if outcome else None
        with contextlib.closing(ledger.records(connection, seqno, outcomes, record)) as found:
            if as_json:
                for one in found:
                    _print_json(one, indent=None)
            elif as_csv:
                _print_records_csv(found)
            else:
                _print_records(found)


@app.command()
def rejects(seqno: Seqno) -> None:
    """Print the rejected records as CSV in the layout of their file, with their reasons: mend them, submit them again."""
    settings = from_environment()
    with database(settings) as connection:
        batch = batches.get(connection, seqno)
        template = pipeline.template_of(connection, batch)
        header = _header_of(batch, template, settings)
        sys.stdout.reconfigure(encoding=template.file.encoding, errors="xmlcharrefreplace", newline="")  # type: ignore[union-attr]
        count = ledger.export_rejects(connection, batch, template, header, sys.stdout)
        sys.stdout.flush()
    err.print(f"{count:,} rejected record{'s' * (count != 1)} of import batch {seqno}.")


@app.command("templates")
def list_templates(as_json: AsJson = False) -> None:
    """List the import templates, and say what is wrong with those that cannot be used."""
    settings = from_environment()
    good, errors = templates.read_templates(settings.templates, loading.kinds())
    if as_json:
        _print_json(
            {
                "templates": [t.model_dump(exclude={"source"}) for t in good.values()],
                "errors": [str(e) for e in errors],
            }
        )
    else:
        table = _table("Template", "Kind", "Title", "File", "Domains", names=("Template", "Kind"))
        for t in good.values():
            shape = "header" if t.file.header else f"{t.field_count} fields"
            domains = ", ".join(t.domains) or "all"
            table.add_row(t.name, t.kind, _plain(t.title), f"{shape}, {t.file.encoding}", domains)
        out.print(table)
        for error in errors:
            _complain(error)
    raise typer.Exit(2 if errors else 0)


@app.command("export-template")
def export_template(name: TemplateName) -> None:
    """Print an empty file of a template, to be filled in."""
    template = _template(from_environment(), name)
    sys.stdout.reconfigure(encoding=template.file.encoding, newline="")  # type: ignore[union-attr]
    writer = csv.writer(
        sys.stdout, delimiter=template.file.delimiter, quotechar=template.file.quote, lineterminator="\r\n"
    )
    if template.file.header:
        writer.writerow([column.name for column in template.columns])
    else:
        by_place = {column.position: column.name for column in template.columns}
        order = [by_place.get(place, f"column {place}") for place in range(1, template.field_count + 1)]
        err.print(f"The file has no header. Its fields are: {', '.join(order)}.")


@app.command()
def suite(name: TemplateName) -> None:
    """Print the Great Expectations suite that a template derives, with its hash."""
    from rowledger import suites

    _print_json(suites.printable(_template(from_environment(), name)))


@app.command()
def check(as_json: AsJson = False) -> None:
    """Check the invariants of the whole database; exit code 1 if one is violated."""
    with database(from_environment()) as connection:
        results = ledger.check(connection)
    if as_json:
        _print_json(results)
    else:
        table = _table("Check", "What it says", "Violations", "First", names=("Check",))
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


@app.command()
def migrate() -> None:
    """Create or update Rowledger's tables."""
    with database(from_environment(), checked=False) as connection:
        applied = db.migrate(connection)
    out.print(f"Applied: {', '.join(applied)}." if applied else "The database is up to date.")


@app.command("load-reference")
def load_reference(
    file: Annotated[Path, typer.Argument(help="A YAML file.", metavar="FILE")], as_json: AsJson = False
) -> None:
    """Load domains, phases, statuses, contracts, origins, subscriptions and value lists."""
    data = reference.read(file)
    with database(from_environment()) as connection:
        written = reference.load(connection, data)
    if as_json:
        _print_json(written)
    else:
        out.print("Loaded " + ", ".join(f"{count:,} {name}" for name, count in written.items()) + ".")


def batch_table(found: Iterable[Batch]) -> Table:
    """Batches as a table for people."""
    table = _table("#", "File", "Status", "Import completed", "Processed", "Records", "What became of them")
    table.columns[1].min_width = 10
    for b in found:
        status = f"[red]{b.status}[/red]" if b.failed else str(b.status)
        completed, processed = _box(b.import_completed), _box(b.processed)
        count = "" if b.records_in_file is None else f"{b.records_in_file:,}"
        # The first sentence tells what was wrong; show has the rest.
        fault = (b.error_message or "").split(". ")[0].removesuffix(".")
        became = f"[red]{_plain(fault)}[/red]" if b.failed else _outcomes(b)
        table.add_row(str(b.seqno), _plain(b.file_name), status, completed, processed, count, became)
    return table


def _table(*headings: str, names: tuple[str, ...] = ()) -> Table:
    """A table that cuts nothing off; columns of ``names`` are not broken either."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in names)
    return table


def _print_batch(batch: Batch) -> None:
    colour = "red" if batch.failed else "green" if batch.succeeded else "yellow"
    out.print(f"[bold]Import batch {_plain(batch.label)}[/bold]  [{colour}]{batch.status}[/{colour}]")
    out.print(f"{_box(batch.import_completed)} Import completed   {_box(batch.processed)} Processed")
    out.print(f"{batch.kind} for {batch.domain}, template {batch.template}, uploaded {batch.uploaded_at:%Y-%m-%d %H:%M} "
              f"by {_plain(batch.uploaded_by)} ({batch.uploaded_through})")  # fmt: skip
    if batch.processed_at and batch.started_at:
        seconds = (batch.processed_at - batch.started_at).total_seconds()
        ended = "Processed" if batch.processed else "Failed"
        out.print(f"{ended} {batch.processed_at:%Y-%m-%d %H:%M}, after {seconds:.1f} s")
    if batch.error_message:
        out.print(f"[red]{_plain(batch.error_message)}[/red]")
    for warning in batch.warnings:
        out.print(f"[yellow]{_plain(warning['message'] or '')}[/yellow]")
    if batch.records_in_file is not None:
        out.print(f"{batch.records_in_file:,} records: {_outcomes(batch) or 'none has an outcome yet'}")


def _outcomes(batch: Batch) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in batch.counts.items() if count)


def _print_records(found: Iterable[dict[str, Any]]) -> None:
    """Line by line, so that a million records need no more memory than ten."""
    one = None
    for one in found:
        reasons = [*(one["reasons"] or ()), *(one["warnings"] or ())]
        why = " ".join(f"{r['rule']}: {_plain(r['message'])}" for r in reasons)
        out.print(f"{one['record_no']:>9,}  {one['outcome']:<11}  {why}".rstrip())
    if one is None:
        err.print("There are no such records.")


def _print_records_csv(found: Iterable[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL)
    writer.writerow(["record", "outcome", "rules", "reasons", "warnings", "cells"])
    for one in found:
        reasons, warnings = one["reasons"] or (), one["warnings"] or ()
        writer.writerow([
            one["record_no"], one["outcome"], " ".join(reason["rule"] for reason in reasons),
            ledger.neutral(" ".join(reason["message"] for reason in reasons)),
            ledger.neutral(" ".join(warning["message"] for warning in warnings)),
            json.dumps(one["raw"], ensure_ascii=False) if one["raw"] is not None else "",
        ])  # fmt: skip


def _header_of(batch: Batch, template: templates.ImportTemplate, settings: Settings) -> list[str]:
    """The header of the file as it was uploaded; none for a positional file."""
    if not template.file.header:
        return []
    from rowledger.layouts import header_of

    return list(header_of(Path(batch.file_path), template, settings.scratch))


def _known_kind(kind: str | None) -> None:
    kinds = loading.kinds()
    if kind is not None and kind not in kinds:
        raise UnknownCode(f'There is no import kind "{kind}". Kinds are: {", ".join(sorted(kinds))}.')


def _template(settings: Settings, name: str, kind: str | None = None) -> templates.ImportTemplate:
    _known_kind(kind)
    template = templates.find_template(settings.templates, name, loading.kinds())
    if kind is not None and template.kind != kind:
        raise UnknownCode(f'Template "{name}" is for {template.kind}, not for {kind}.')
    return template


def _files(given: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and what lies in directories; what is hidden there, and directories, are left out."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
        inside = [p for p in inside if p.is_symlink() or not p.is_dir()]
        if not inside:
            err.print(f"There are no files in {_plain(str(path))}.")
        yield from inside


def _complain(error: RowledgerError) -> None:
    err.print(f"[red]{_plain(str(error))}[/red]")


def _print_json(value: Any, indent: int | None = 2) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent, default=str) + "\n")


def _box(checked: bool) -> str:
    return "☑" if checked else "☐"


def _plain(text: str) -> str:
    """Text of users as text: no markup, no control characters for the terminal."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text))


def _log_to_terminal(quiet: bool) -> None:
    handler = RichHandler(console=err, show_path=False, show_level=False)
    logging.getLogger("rowledger").addHandler(handler)
    logging.getLogger("rowledger").setLevel(logging.WARNING if quiet else logging.INFO)
