"""Parked records: what waits for what, their replay by hand, and to give up waiting."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from rowledger import batches, giving_up, pipeline, replay
from rowledger.cli.imports import tell_replayed
from rowledger.cli.place import place
from rowledger.cli.terminal import (
    AsJson,
    AsJsonLines,
    app,
    database,
    err,
    from_environment,
    known_kind,
    log_to_terminal,
    new_table,
    out,
    plain,
    print_json,
)
from rowledger.errors import UnknownCode
from rowledger.giving_up import Thing

PANEL = "Imports"
SHOWN_BATCHES = 5
_WAITS_FOR = {"contract": "contract", "status": "result code"}

OneKind = Annotated[str | None, typer.Option("--kind", help="Only this import kind.", metavar="KIND")]


@app.command("parked", rich_help_panel=PANEL)
def list_parked(
    kind: OneKind = None,
    domain: Annotated[str | None, typer.Option(help="Only this domain.", metavar="CODE")] = None,
    limit: Annotated[
        int, typer.Option(help="At most so many lines.", min=1, max=1000, metavar="NUMBER")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """List what parked records wait for, and how many, of which batches, since when."""
    known_kind(kind)
    with place() as at:
        found = at.parked(kind, domain, limit)
    if as_json:
        print_json([{k: v for k, v in group.items() if not k.startswith("all_")} for group in found])
        return
    if not found:
        out.print("No record is parked.")
        return
    table = new_table(
        "Records", "Domain", "Wait for", "Import batches", "Since", "First record", names=("Since",)
    )
    for group in found:
        table.add_row(f"{group['records']:,}", plain(group["domain"]), _waits_for(group), _numbers(group["batches"]),
                      f"{group['since']:%Y-%m-%d %H:%M}", f"#{group['first_seqno']}, record {group['first_record']:,}")  # fmt: skip
    out.print(table)
    _print_totals(found)


def _waits_for(group: dict[str, Any]) -> str:
    now = " [green](exists now)[/green]" if group["exists_now"] else ""
    key = "" if group["key"] is None else f' "{plain(group["key"])}"'
    return f"{_WAITS_FOR[group['waits_for']]}{key}{now}"


def _numbers(seqnos: list[int]) -> str:
    more = len(seqnos) - SHOWN_BATCHES
    return ", ".join(f"#{seqno}" for seqno in seqnos[:SHOWN_BATCHES]) + (
        f" and {more:,} more" if more > 0 else ""
    )


def _print_totals(found: list[dict[str, Any]]) -> None:
    groups = found[0]["all_groups"] - len(found)
    if groups:
        records = found[0]["all_records"] - sum(group["records"] for group in found)
        waiting = "1 more record waits" if records == 1 else f"{records:,} more records wait"
        others = "1 other contract or code" if groups == 1 else f"{groups:,} other contracts or codes"
        out.print(f"{waiting} for {others}; see --limit.")
    if not all(group["exists_now"] for group in found):
        out.print("To wait no longer for what never comes: rowledger give-up")
    if any(group["exists_now"] for group in found):
        out.print(
            "The next run replays what waits for something that exists now; or at once: rowledger replay"
        )


@app.command("replay", rich_help_panel=PANEL)
def replay_parked(kind: OneKind = None, as_json: AsJsonLines = False) -> None:
    """Replay the parked records whose contract or code exists by now, as every run of a DAG does."""
    known_kind(kind)
    log_to_terminal(quiet=True)
    settings = from_environment()
    with database(settings) as connection:
        worker = pipeline.Worker(connection, settings, getpass.getuser())
        done = replay.replay(worker, kind)
        for seqno, outcomes in done.items():
            tell_replayed(batches.get(connection, seqno), outcomes, as_json)
    if not done:
        err.print("No parked record waits for something that exists by now.")


@app.command("give-up", rich_help_panel=PANEL)
def give_up(
    seqno: Annotated[
        int | None,
        typer.Argument(help="The import batch seqno; all that waits of it, or for one thing.", min=1, metavar="SEQNO"),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="Why; kept for ever.", metavar="TEXT", show_default=False)] = "",
    contract: Annotated[str | None, typer.Option(help="Only what waits for this contract.", metavar="FORM_ID")] = None,
    code: Annotated[
        str | None, typer.Option(help="Only what waits for this result code.", metavar="CODE")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Without a SEQNO: in all batches of this domain.", metavar="CODE")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="Without a SEQNO: of this import kind.", metavar="KIND")
    ] = "contract_status",
    as_json: AsJsonLines = False,
) -> None:  # fmt: skip
    """Wait no longer for what never comes: records are never replayed then, and can be mended with the rejects.

    All that waits of one batch; or what waits for one contract or code, of one batch or of a domain.
    """
    known_kind(kind)
    if contract is not None and code is not None:
        raise UnknownCode("Say --contract or --code, not both.")
    thing = (
        Thing("contract", contract)
        if contract is not None
        else Thing("status", code)
        if code is not None
        else None
    )
    with place() as at:
        if seqno is not None and domain is None:
            done = {seqno: at.give_up(seqno, thing, why)}
        elif seqno is None and thing and domain is not None:
            done = at.give_up_thing(kind, domain, thing, why)
        else:
            raise UnknownCode("Name one import batch seqno; or a domain, and --contract or --code.")
        for number, records in done.items():
            if as_json:
                print_json({"seqno": number, "given_up": records}, indent=None)
            else:
                out.print(f"Import batch {plain(at.batch(number).label)}: {giving_up.in_words(records)}.")
