"""What people ask of a batch: pause, resume, cancel, and to roll back at once what was written."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Annotated

import typer

from rowledger import control, pipeline
from rowledger import roll_back as roll_backs
from rowledger.cli.imports import tell_rolled_back
from rowledger.cli.terminal import (
    AsJson,
    Seqno,
    app,
    database,
    from_environment,
    log_to_terminal,
    out,
    plain,
    print_json,
)
from rowledger.db import Connection
from rowledger.model import Batch
from rowledger.settings import Settings

PANEL = "Control"
WhyOption = Annotated[str, typer.Option(help="Why; kept with the batch.", metavar="TEXT", show_default=False)]
Request = Callable[..., Batch]


@app.command(rich_help_panel=PANEL)
def pause(seqno: Seqno, why: WhyOption = "", as_json: AsJson = False) -> None:
    """Stop work on a batch, within a chunk; what is written stays."""
    batch = _ask(control.pause, seqno, why, as_json)
    if not as_json:
        out.print(f"Import batch {plain(batch.label)} is paused at record {batch.done_records:,}. "
                  f"To go on: rowledger resume {seqno}")  # fmt: skip


@app.command(rich_help_panel=PANEL)
def resume(seqno: Seqno, why: WhyOption = "", as_json: AsJson = False) -> None:
    """Let a paused batch wait for the next run, which goes on where it was."""
    batch = _ask(control.resume, seqno, why, as_json)
    if not as_json:
        out.print(f"Import batch {plain(batch.label)} is {batch.status.replace('_', ' ')}; "
                  f"it goes on after record {batch.done_records:,}.")  # fmt: skip


@app.command(rich_help_panel=PANEL)
def cancel(
    seqno: Seqno,
    why: WhyOption = "",
    roll_back: Annotated[
        bool,
        typer.Option("--roll-back", help="Take back what is written, too; say why. See rowledger roll-back."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End a batch where it is: what is written stays, records not reached are unprocessed."""
    if roll_back:
        roll_backs.refuse_no_reason(why)
    batch = _ask(control.cancel, seqno, why, as_json and not roll_back)
    if roll_back:
        log_to_terminal(quiet=as_json)
        settings = from_environment()
        with database(settings) as connection:
            roll_back_now(connection, settings, seqno, why, as_json)
    elif not as_json:
        written = sum(batch.counts[outcome] for outcome in ("created", "updated", "historic"))
        out.print(f"Import batch {plain(batch.label)} is cancelled. {written:,} records are written and stay, "
                  f"{batch.counts['unprocessed']:,} were not reached.")  # fmt: skip


def roll_back_now(connection: Connection, settings: Settings, seqno: int, why: str, as_json: bool) -> None:
    """Ask for a roll back and do it in this process."""
    worker = pipeline.Worker(connection, settings, getpass.getuser())
    roll_backs.ask(connection, seqno, by=worker.by, why=why)
    done = roll_backs.work(worker, seqno)
    print_json(done.as_dict()) if as_json else tell_rolled_back(done)


def _ask(request: Request, seqno: int, why: str, as_json: bool) -> Batch:
    with database(from_environment()) as connection:
        batch = request(connection, seqno, by=getpass.getuser(), why=why)
    if as_json:
        print_json(batch.as_dict())
    return batch
