"""What people ask of a batch: pause, resume, cancel, and to roll back at once what was written."""

from __future__ import annotations

from typing import Annotated

import typer

from rowledger import roll_back as roll_backs
from rowledger.cli.imports import tell_rolled_back
from rowledger.cli.place import place
from rowledger.cli.terminal import AsJson, Seqno, app, log_to_terminal, out, plain, print_json
from rowledger.model import Batch
from rowledger.roll_back import RollBack

PANEL = "Control"
WhyOption = Annotated[str, typer.Option(help="Why; kept with the batch.", metavar="TEXT", show_default=False)]


@app.command(rich_help_panel=PANEL)
def pause(seqno: Seqno, why: WhyOption = "", as_json: AsJson = False) -> None:
    """Stop work on a batch, within a chunk; what is written stays."""
    with place() as at:
        batch = _told(at.pause(seqno, why), as_json)
    if not as_json:
        out.print(f"Import batch {plain(batch.label)} is paused at {batch.reached}. "
                  f"To go on: rowledger resume {seqno}")  # fmt: skip


@app.command(rich_help_panel=PANEL)
def resume(seqno: Seqno, why: WhyOption = "", as_json: AsJson = False) -> None:
    """Let a paused batch wait for the next run, which goes on where it was."""
    with place() as at:
        batch = _told(at.resume(seqno, why), as_json)
    if not as_json:
        out.print(f"Import batch {plain(batch.label)} is {batch.status.replace('_', ' ')}; "
                  f"it goes on after {batch.reached}.")  # fmt: skip


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
        log_to_terminal(quiet=as_json)
    with place() as at:
        batch = _told(at.cancel(seqno, why), as_json and not roll_back)
        if roll_back:
            tell(at.roll_back(seqno, why), as_json)
    if not as_json and not roll_back:
        written = sum(batch.counts[outcome] for outcome in ("created", "updated", "historic"))
        out.print(f"Import batch {plain(batch.label)} is cancelled. {written:,} records are written and stay, "
                  f"{batch.counts['unprocessed']:,} were not reached.")  # fmt: skip


def tell(done: RollBack, as_json: bool) -> None:
    """Print how far a roll back is."""
    print_json(done.as_dict()) if as_json else tell_rolled_back(done)


def _told(batch: Batch, as_json: bool) -> Batch:
    if as_json:
        print_json(batch.as_dict())
    return batch
