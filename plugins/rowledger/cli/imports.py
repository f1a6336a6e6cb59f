"""Batches: upload, work off, list, show, their records, their rejects."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rowledger import ledger, parked, replay, roll_back
from rowledger.cli.place import Asked, Version, place
from rowledger.cli.terminal import (
    AsJson,
    AsJsonLines,
    DomainOption,
    KindOption,
    OriginOption,
    Seqno,
    SubscriptionOption,
    TemplateOption,
    app,
    check_box,
    complain,
    err,
    known_kind,
    log_to_terminal,
    new_table,
    out,
    outcomes_in_words,
    plain,
    print_content,
    print_json,
    print_reasons,
    reasons_in_words,
)
from rowledger.errors import DuplicateUpload, FileError, NotKept, NotReadable, RowledgerError, UnknownCode
from rowledger.model import Batch, BatchStatus, Outcome

PANEL = "Imports"


@app.command(rich_help_panel=PANEL)
def submit(
    files: Annotated[
        list[Path], typer.Argument(help="CSV files, or directories of them.", exists=True, metavar="FILES...")
    ],
    kind: KindOption,
    domain: DomainOption,
    template: TemplateOption,
    origin: OriginOption = None,
    subscription: SubscriptionOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Take a file that was uploaded before once more.")
    ] = False,
    as_json: AsJsonLines = False,
) -> None:
    """Upload files: each becomes a waiting import batch; prints its seqno."""
    known_kind(kind)
    asked = Asked(kind, domain, template, origin or (), subscription or (), again)
    problems: list[RowledgerError] = []
    with place() as at:
        for path in _files(files):
            try:
                seqno, file_name = at.submit(path, asked)
            except (NotReadable, NotKept, DuplicateUpload, FileError) as error:  # the next one may be right
                problems.append(error)
                complain(error)
                continue
            shown = {"seqno": seqno, "file_name": file_name}
            print_json(shown, indent=None) if as_json else out.print(seqno)
    if problems:
        raise typer.Exit(problems[0].exit_code)


@app.command(rich_help_panel=PANEL)
def work(
    seqno: Annotated[
        int | None, typer.Argument(help="The import batch seqno.", min=1, metavar="SEQNO")
    ] = None,
    all_waiting: Annotated[bool, typer.Option("--all-waiting", help="Work off every waiting batch.")] = False,
    as_json: AsJsonLines = False,
) -> None:
    """Validate, load and close a batch in this process, through the functions the DAG's tasks use.

    With --all-waiting, parked records are replayed too.
    """
    if (seqno is None) == (not all_waiting):
        raise UnknownCode("Name one import batch seqno, or say --all-waiting.")
    log_to_terminal(quiet=as_json)
    failed = 0
    with place() as at:
        numbers = at.waiting() if seqno is None else [at.batch(seqno).seqno]
        if not numbers:
            err.print("No import batch is waiting.")
        for number in numbers:
            try:
                at.work(number)
            except RowledgerError as error:
                failed = failed or error.exit_code
                if not isinstance(error, FileError):
                    complain(error)
            batch = at.batch(number)
            print_json(batch.as_dict(), indent=None) if as_json else _print_batch(batch)
        if all_waiting:
            for batch, outcomes in at.replay():
                tell_replayed(batch, outcomes, as_json)
    raise typer.Exit(failed)


@app.command(rich_help_panel=PANEL)
def reprocess(
    seqno: Seqno,
    template: Annotated[
        Version, typer.Option(help="The template as it was at the upload (old), or as it is now (current).")
    ],
    as_json: AsJson = False,
) -> None:
    """Take the file of a batch that has ended once more, as a waiting batch of its own; prints its seqno."""
    with place() as at:
        _print_child(*at.reprocess(seqno, template), as_json)


@app.command(rich_help_panel=PANEL)
def rerun(
    seqno: Seqno,
    mended: Annotated[
        Path | None,
        typer.Argument(
            help="The rejected records, mended; see rowledger rejects.", exists=True, metavar="FILE"
        ),
    ] = None,
    template: Annotated[
        Version, typer.Option(help="The template as it was at the upload (old), or as it is now (current).")
    ] = Version.OLD,
    as_json: AsJson = False,
) -> None:
    """Take only the rejected records of a batch once more, as a waiting batch of their own; prints its seqno.

    Without a FILE as they were: what they lacked, such as a contract, may be there by now.
    """
    with place() as at:
        _print_child(*at.rerun(seqno, template, mended), as_json)


def _print_child(parent: Batch, child: Batch, as_json: bool) -> None:
    shown = {
        "seqno": child.seqno,
        "parent_seqno": parent.seqno,
        "file_name": parent.file_name,
        "template_changed": child.template_hash != parent.template_hash,
    }
    print_json(shown) if as_json else out.print(child.seqno)


@app.command("list", rich_help_panel=PANEL)
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
    known_kind(kind)
    with place() as at:
        found = at.listed(kind, status, before, limit)
    if as_json:
        print_json([batch.as_dict() for batch in found])
        return
    if found:
        out.print(batch_table(found))
    elif kind or status or before:
        out.print("There are no such import batches.")
    else:
        out.print("There are no import batches; upload a file with: rowledger submit")


@app.command(rich_help_panel=PANEL)
def show(seqno: Seqno, as_json: AsJson = False) -> None:
    """Show one import batch: state, check boxes, dates, outcomes, the commonest reasons."""
    with place() as at:
        batch, about = at.batch(seqno), at.about(seqno)
    replayed, undone = about.replayed, about.roll_back
    if as_json:
        print_json(batch.as_dict() | vars(about) | {"roll_back": undone.as_dict() if undone else None})
        return
    _print_batch(batch)
    if replayed:
        out.print(parked.in_words(replayed, " (see: rowledger parked)"))
    if undone:
        tell_rolled_back(undone)
    print_reasons("Why records were not loaded:", about.reasons)
    kept = all(event["event"] not in ("records not kept", "cells not kept") for event in about.events)
    to_mend = batch.counts[Outcome.REJECTED] or any(replayed.get(one) for one in ledger.TO_MEND)
    if batch.status.terminal and kept and to_mend:
        out.print(
            f"To mend the rejected records: rowledger rejects {seqno} > mend.csv, then rowledger rerun {seqno} mend.csv"
        )
    for event in about.events:
        told = event["detail"] in (None, batch.error_message)  # the reason of a failure stands above
        detail = "" if told else f": {plain(event['detail'])}"
        out.print(
            f"[dim]{event['occurred_at']:%Y-%m-%d %H:%M:%S} {event['event']} by {plain(event['by'])}{detail}[/dim]"
        )


class Result(StrEnum):
    """What a roll back did about a record."""

    RESTORED = "restored"
    SPARED = "spared"


@app.command(rich_help_panel=PANEL)
def records(
    seqno: Seqno,
    outcome: Annotated[
        list[Outcome] | None,
        typer.Option(help=f"Only one of: {', '.join(Outcome)}; repeat for more.", metavar="OUTCOME"),
    ] = None,
    record: Annotated[
        int | None, typer.Option(help="Only the record of this number.", min=1, metavar="NUMBER")
    ] = None,
    rolled_back: Annotated[
        Result | None,
        typer.Option(help=f"Only what the roll back has: {' or '.join(Result)}.", metavar="RESULT"),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """What became of the records of a batch, and why."""
    outcomes = [str(o) for o in outcome] if outcome else None
    with place() as at, contextlib.closing(at.records(seqno, outcomes, record, rolled_back)) as found:
        if as_json:
            for one in found:
                print_json(one, indent=None)
        elif as_csv:
            sys.stdout.writelines(ledger.as_csv(found))
        else:
            _print_records(found)


@app.command(rich_help_panel=PANEL)
def rejects(seqno: Seqno) -> None:
    """Print the rejected records as CSV in the layout of their file, with their reasons: mend them, submit them again."""
    with place() as at:
        count = at.rejects(seqno, sys.stdout.buffer)
        sys.stdout.flush()
    err.print(f"{count:,} rejected record{'s' * (count != 1)} of import batch {seqno}.")


def batch_table(found: Iterable[Batch]) -> Table:
    """Batches as a table for people."""
    table = new_table(
        "#", "File", "Status", "Import completed", "Processed", "Records", "What became of them"
    )
    table.columns[1].min_width = 10
    for b in found:
        status = f"[red]{b.status}[/red]" if b.failed else str(b.status)
        status += ", [yellow]rolled back[/yellow]" if b.rolled_back_at else ""
        completed, processed = check_box(b.import_completed), check_box(b.processed)
        count = "" if b.records_in_file is None else f"{b.records_in_file:,}"
        # The first sentence tells what was wrong; show has the rest.
        fault = (b.error_message or "").split(". ")[0].removesuffix(".")
        became = f"[red]{plain(fault)}[/red]" if b.failed else outcomes_in_words(b)
        if b.waits_because:
            became = f"[yellow]Waits: {plain(b.waits_because.removesuffix('.'))}[/yellow]"
        table.add_row(str(b.seqno), plain(b.file_name), status, completed, processed, count, became)
    return table


def _print_batch(batch: Batch) -> None:
    colour = "red" if batch.failed else "green" if batch.succeeded else "yellow"
    out.print(f"[bold]Import batch {plain(batch.label)}[/bold]  [{colour}]{batch.status}[/{colour}]")
    out.print(
        f"{check_box(batch.import_completed)} Import completed   {check_box(batch.processed)} Processed"
    )
    out.print(f"{batch.kind} for {batch.domain}, template {batch.template}, uploaded {batch.uploaded_at:%Y-%m-%d %H:%M} "
              f"by {plain(batch.uploaded_by)} ({batch.uploaded_through})")  # fmt: skip
    if batch.parent_seqno:
        out.print(f"Takes records of import batch {batch.parent_seqno} once more")
    if batch.waits_because:
        out.print(f"[yellow]Waits: {plain(batch.waits_because)}[/yellow]")
    if batch.processed_at and batch.started_at:
        seconds = (batch.processed_at - batch.started_at).total_seconds()
        ended = "Processed" if batch.processed else "Failed" if batch.failed else "Cancelled"
        out.print(f"{ended} {batch.processed_at:%Y-%m-%d %H:%M}, after {seconds:.1f} s")
    if batch.error_message:
        out.print(f"[red]{plain(batch.error_message)}[/red]")
    print_content(batch)


def tell_rolled_back(done: roll_back.RollBack) -> None:
    """Print who had a batch rolled back, when and why, and how far that has come."""
    asked = f"by {plain(done.asked_by)}: {plain(done.why)}"
    if done.finished_at is None:
        out.print(f"[yellow]Roll back asked for {done.asked_at:%Y-%m-%d %H:%M} {asked}[/yellow]; "
                  f"done up to record {done.mark:,}: {done.in_words}.")  # fmt: skip
        return
    out.print(f"[yellow]Rolled back[/yellow] {done.finished_at:%Y-%m-%d %H:%M} {asked}")
    see = f" (see: rowledger records {done.seqno} --rolled-back spared)" if done.spared else ""
    out.print(f"{done.in_words}{see}.")


def tell_replayed(batch: Batch, outcomes: Counter[str], as_json: bool) -> None:
    """Print what became of a batch's parked records."""
    if as_json:
        print_json({"seqno": batch.seqno, "replayed": dict(outcomes)}, indent=None)
    else:
        out.print(f"Import batch {plain(batch.label)}: {replay.in_words(outcomes)}")


def _print_records(found: Iterable[dict[str, Any]]) -> None:
    """Line by line, so that a million records need no more memory than ten."""
    one = None
    for one in found:
        why = reasons_in_words(one["reasons"], one["warnings"])
        out.print(f"{one['record_no']:>9,}  {one['outcome']:<11}  {why}".rstrip())
        if one["parked"] and _settled(one["parked"]):
            _print_replay(one["parked"])
        if one["rolled_back"]:
            _print_rolled_back(one["rolled_back"])
    if one is None:
        err.print("There are no such records.")


def _settled(waiting: dict[str, Any]) -> bool:
    """Whether something has become of a parked record."""
    return bool(waiting["replayed_at"]) or waiting["outcome"] != Outcome.PARKED


def _print_replay(settled: dict[str, Any]) -> None:
    """What became of a parked record, under its line."""
    when = "its batch was rolled back while it waited"
    if settled["outcome"] == parked.GIVEN_UP:
        at = settled["given_up_at"][:16].replace("T", " ")
        when = f"{at}: {reasons_in_words(settled['reasons'][-1:])}"
    elif settled["outcome"] != parked.WITHDRAWN:
        when = f"replayed {settled['replayed_at'][:16].replace('T', ' ')}"
        why = reasons_in_words(settled["reasons"])
        when = f"{when}: {why}" if why else when
    out.print(f"{'':>9}  {settled['outcome'].replace('_', ' '):<11}  {when}")


def _print_rolled_back(undone: dict[str, Any]) -> None:
    """What the roll back did about a record, under its line."""
    why = plain(roll_back.why_spared(undone)) if undone["reason"] else ""
    out.print(f"{'':>9}  {undone['result']:<11}  {why or 'by the roll back'}")


def _files(given: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and what lies in directories; what is hidden there, and directories, are left out."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
        inside = [p for p in inside if p.is_symlink() or not p.is_dir()]
        if not inside:
            err.print(f"There are no files in {plain(str(path))}.")
        yield from inside
