"""Take back what a batch changed, and tell before what that would be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from rowledger import batches, loading, roll_back
from rowledger.cli.control import PANEL, tell
from rowledger.cli.place import place
from rowledger.cli.terminal import (
    Seqno,
    app,
    database,
    err,
    from_environment,
    log_to_terminal,
    out,
    plain,
    print_json,
    value_in_words,
)
from rowledger.errors import UnknownCode
from rowledger.model import Kind

NOTHING = "There is nothing to roll back: no record of the batch has changed anything that is not undone yet."


@app.command("roll-back", rich_help_panel=PANEL)
def roll_back_batch(
    seqno: Seqno,
    why: Annotated[
        str | None, typer.Option("--why", help="Why it is rolled back; kept for ever.", metavar="TEXT")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; tell what would be restored and what spared.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--records", help="With --dry-run: every record, one a line.")
    ] = False,
    limit: Annotated[
        int, typer.Option(help="With --dry-run: at most so many lines a list.", min=0, max=100_000, metavar="NUMBER"),
    ] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --records one object a line.")
    ] = False,
) -> None:  # fmt: skip
    """Take back what a batch that has ended changed; what others have changed since is spared and listed."""
    if every and not dry_run:
        raise UnknownCode(
            "--records is for --dry-run; afterwards: rowledger records SEQNO --rolled-back spared"
        )
    if why is None and not dry_run:
        raise UnknownCode("Say why, as in --why 'the wrong file'; or look first what it would do: --dry-run")
    log_to_terminal(quiet=as_json or dry_run)
    if not dry_run:
        with place() as at:
            if earlier := at.rolled_back(seqno):
                _tell_earlier(earlier)
            tell(at.roll_back(seqno, why or ""), as_json)
        return
    with database(from_environment()) as connection:
        kind = loading.kinds()[batches.get(connection, seqno).kind]
        if earlier := roll_back.of(connection, seqno):
            _tell_earlier(earlier)
        if every:
            with contextlib.closing(roll_back.planned(connection, seqno)) as found:
                _print_planned(found, kind, as_json)
        else:
            plan = roll_back.plan(connection, seqno, limit)
            print_json(asdict(plan)) if as_json else _print_plan(plan, kind)


def _tell_earlier(earlier: roll_back.RollBack) -> None:
    asked = f"Import batch {earlier.seqno} was to be rolled back before, by {plain(earlier.asked_by)}"
    told = f"goes on after record {earlier.mark:,}" if earlier.finished_at is None else "is done"
    err.print(f"{asked}: {plain(earlier.why)}. That {told}.")


def _print_plan(plan: roll_back.Plan, kind: Kind) -> None:
    if plan.restored or plan.spared:
        records = f"{plan.restored:,} record{'s' * (plan.restored != 1)} of {kind.title}"
        out.print(f"A roll back would restore {records} and spare {plan.spared:,}.")
    else:
        out.print(NOTHING)
    if plan.withdrawn:
        out.print(f"Of the parked records {plan.withdrawn:,} would wait no longer.")
    for name, found, count in (
        ("Restored", plan.restored_records, plan.restored),
        ("Spared", plan.spared_records, plan.spared),
    ):
        if found:
            out.print(f"\n[bold]{name}[/bold]")
            for one in found:
                out.print(_line(one, kind))
            if len(found) < count:
                out.print(f"  The first {len(found):,} of {count:,}; --limit shows more, --records all.")
    out.print("\nNothing was changed.")


def _print_planned(found: Iterable[dict[str, Any]], kind: Kind, as_json: bool) -> None:
    """Line by line, so that a million records need no more memory than ten."""
    one = None
    for one in found:
        if as_json:
            print_json(one, indent=None)
        else:
            out.print(f"{one['result']:<8}{_line(one, kind)}")
    if one is None:
        err.print(NOTHING)


def _line(one: dict[str, Any], kind: Kind) -> str:
    told = plain(roll_back.why_spared(one)) if one["reason"] else _taken(one, kind)
    return f"{one['record_no']:>9,}  {plain(one['about'] or '')}: {told}"


def _taken(one: dict[str, Any], kind: Kind) -> str:
    """What would be undone, in words."""
    removed, restores = one["removed"], one["restores"] or {}
    if kind.name == "contract_status":
        return plain("status {status} of {date_result} withdrawn".format_map(removed["fields"]))
    if one["outcome"] == "created":
        return "removed"
    titles = {field.name: field.title for field in kind.fields}
    parts = [
        f"{plain(titles.get(name, name.removeprefix('attributes.')))}: "
        f"{value_in_words(now)} → {value_in_words(restores[name])}"
        for name, now in removed["fields"].items()
    ]
    parts += [f"origin {plain(origin['code'])} removed" for origin in removed.get("origins", ())]
    for entry in removed.get("subscription_history", ()):
        parts.append(f"{'in' if entry['opted_in'] else 'out'} {plain(entry['list_id'])} withdrawn")
    return "; ".join(parts)
