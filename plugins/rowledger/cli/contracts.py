"""Contracts: what is known of one, which status it had when, and what the timers give."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

import typer
from rich.table import Table

from rowledger import contracts, timers
from rowledger.cli.terminal import (
    AsJson,
    AsJsonLines,
    DomainOption,
    app,
    database,
    from_environment,
    new_table,
    out,
    plain,
    print_json,
)
from rowledger.errors import UnknownCode

PANEL = "Contracts and contacts"
MOMENT = "%Y-%m-%d %H:%M:%S"


@app.command(rich_help_panel=PANEL)
def contract(
    form_id: Annotated[str, typer.Argument(help="The form id of the contract.", metavar="FORM_ID")],
    domain: DomainOption,
    on: Annotated[
        str | None, typer.Option(help="Only: which status it had on that day.", metavar="YYYY-MM-DD")
    ] = None,
    known_at: Annotated[
        str | None,
        typer.Option(
            help="Only: what was known by then: the end of a day, or a moment such as 2026-05-31T12:00 (UTC).",
            metavar="TIME",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a contract: its status, phase, sign-up and contact, and its history with what each entry came from."""
    day = None if on is None else contracts.day(on)
    moment = None if known_at is None else contracts.moment(known_at)
    with database(from_environment()) as connection:
        if day is None and moment is None:
            found = contracts.profile(connection, domain, form_id)
            print_json(_as_dict(found)) if as_json else _print_contract(found)
            return
        entry = contracts.status_as_of(connection, domain, form_id, day, moment)
    if as_json:
        asked = {"domain": domain, "form_id": form_id, "on": day, "known_at": moment}
        print_json(asked | {"status": asdict(entry) if entry else None})
    else:
        out.print(_answer(form_id, day, known_at, entry))


def _as_dict(found: contracts.Contract) -> dict[str, Any]:
    return asdict(found) | {"current": asdict(found.current) if found.current else None}


def _answer(form_id: str, on: date | None, known_at: str | None, entry: contracts.StatusEntry | None) -> str:
    known = known_at and f"as we knew it {'at' if ':' in known_at else 'on'} {plain(known_at)}"
    when = ", ".join(part for part in (on and f"on {on}", known) if part)
    told = f'{when[0].upper()}{when[1:]}, contract "{plain(form_id)}" had '
    if entry is None:
        return f"{told}no status."
    came = f"by import batch {entry.seqno}, record {entry.record_no}" if entry.seqno else _CAUSES[entry.cause]
    return (
        f"{told}the status {_status(entry)} in phase {_phase(entry)}, "
        f"dated {entry.date_result}, {came}, recorded {entry.recorded_at:{MOMENT}}."
    )


_CAUSES = {"initial": "as the initial status", "timer": "given automatically"}


def _status(entry: contracts.StatusEntry) -> str:
    return f'{plain(entry.code)} "{plain(entry.description)}"'


def _phase(entry: contracts.StatusEntry) -> str:
    return f'{plain(entry.phase)} "{plain(entry.phase_description)}"'


def _print_contract(found: contracts.Contract) -> None:
    out.print(f"[bold]Contract {plain(found.form_id)}[/bold] of {plain(found.domain)}")
    now = found.current
    if now:
        marks = [word for word, true in (("definitive", now.definitive), ("churn", now.churn)) if true]
        out.print(f"Status {_status(now)} since {now.date_result}{', ' if marks else ''}{', '.join(marks)}")
        out.print(f"Phase {_phase(now)}")
    else:
        out.print("It has no status yet.")
    who = f"contact {plain(found.contact)}" if found.contact else "no contact"
    name = f" ({plain(found.contact_name)})" if found.contact_name else ""
    out.print(f"Signed up {found.sign_up_date}, {who}{name}")
    for touch in found.touches:
        out.print(_told(touch))
    if found.history:
        out.print(_history_table(found.history))
        if found.had:
            out.print(
                f"[dim]Earlier entries are not kept any more. Up to {found.history[0].date_result} it had had: "
                f"{', '.join(map(plain, found.had))}.[/dim]"
            )
        for seqno, file in dict.fromkeys((e.seqno, _file(e)) for e in found.history if e.seqno):
            out.print(f"Import batch {seqno}: {file}")
    for entry in found.withdrawn:
        out.print(f"[yellow]Withdrawn {entry.withdrawn_at:{MOMENT}}[/yellow]: {entry.date_result} {_status(entry)} of import "
                  f"batch {entry.seqno}, record {entry.record_no}, rolled back by {plain(entry.asked_by)}: {plain(entry.why)}")  # fmt: skip


def _told(touch: contracts.Touch) -> str:
    done = "Registered" if touch.outcome == "created" else "Corrected"
    before = ", ".join(
        f"{name.replace('_', ' ')} was {'empty' if value is None else plain(str(value))}"
        for name, value in (touch.before or {}).items()
    )
    return (
        f"{done} {touch.recorded_at:{MOMENT}} by import batch {touch.seqno}, record {touch.record_no} "
        f"({_file(touch)}){': ' if before else ''}{before}"
        + (f"; rolled back {touch.rolled_back_at:{MOMENT}}" if touch.rolled_back_at else "")
    )


def _file(source: contracts.HistoryEntry | contracts.Touch) -> str:
    return f"{plain(source.file_name or '')}, uploaded by {plain(source.uploaded_by or '')}"


def _history_table(history: tuple[contracts.HistoryEntry, ...]) -> Table:
    table = new_table("Date", "Status", "Before", "Cause", "Recorded", names=("Date", "Before", "Recorded"))
    for entry in history:
        cause = entry.cause
        if entry.seqno:
            cause += f" batch {entry.seqno}, record {entry.record_no}"
        table.add_row(str(entry.date_result), f"{plain(entry.code)} {plain(entry.description)}",
                      plain(entry.previous_code or ""), cause, f"{entry.recorded_at:{MOMENT}}")  # fmt: skip
    return table


@app.command("timers", rich_help_panel=PANEL)
def give_statuses(
    following: Annotated[
        str | None,
        typer.Option(
            "--next", help="Give nothing; tell what will be given in so many days, as in 7d.", metavar="DAYS"
        ),
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Only this domain.", metavar="CODE")] = None,
    by_contract: Annotated[
        bool, typer.Option("--contracts", help="With --next: tell it contract by contract.")
    ] = False,
    as_json: AsJsonLines = False,
) -> None:
    """Give contracts the statuses that are due N days after sign-up, as the daily DAG does; or forecast them."""
    if by_contract and following is None:
        raise UnknownCode("--contracts is for a forecast; say for how many days, such as --next 7d.")
    days = None if following is None else _days(following)
    with database(from_environment()) as connection:
        if days is None:
            _print_given(timers.give(connection, domain), as_json)
            return
        forecast = timers.forecast if by_contract else timers.forecast_by_day
        with contextlib.closing(forecast(connection, days, domain)) as found:
            if as_json:
                for one in found:
                    print_json(one, indent=None)
            else:
                _print_forecast(found, days)


def _days(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,5})d?", text.strip(), re.ASCII)
    if not found or int(found[1]) > 36_500:
        raise UnknownCode(f'"{plain(text)}" is not a number of days; write it as in 7d.')
    return int(found[1])


def _print_given(given: list[timers.Given], as_json: bool) -> None:
    if as_json:
        for one in given:
            print_json(asdict(one), indent=None)
    elif not given:
        out.print("Nothing is due.")
    else:
        table = new_table("Domain", "Status", "Contracts", "In their history only")
        for one in given:
            table.add_row(plain(one.domain), f"{plain(one.code)} {plain(one.description)}",
                          f"{one.contracts:,}", f"{one.contracts - one.current:,}")  # fmt: skip
        out.print(table)


def _print_forecast(found: Iterator[dict[str, Any]], days: int) -> None:
    """Line by line, so that a million contracts need no more memory than ten."""
    one = None
    for one in found:
        status = f"{plain(one['code'])} {plain(one['description'])}"
        if "form_id" in one:
            note = "  (in its history only)" if one["historic"] else ""
            change = f"{plain(one['form_id'])}: {plain(one['previous_code'] or 'no status')} → {status}"
            out.print(f"{one['due']}  {plain(one['domain'])}  {change}{note}")
        else:
            out.print(f"{one['given_on']}  {plain(one['domain'])}  {one['contracts']:>10,} × {status}")
    if one is None:
        out.print(f"Nothing falls due within {days} day{'s' * (days != 1)}.")
