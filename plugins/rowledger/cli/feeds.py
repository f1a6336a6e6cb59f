"""Feeds: list and check them, look for their files."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from rowledger import feeds, loading
from rowledger.cli.terminal import (
    AsJson,
    app,
    complain,
    database,
    from_environment,
    new_table,
    out,
    plain,
    print_json,
)
from rowledger.errors import RowledgerError, UnknownCode
from rowledger.feeds import Feed, arrivals, cadence, notices
from rowledger.settings import Settings

PANEL = "Feeds"


@app.command("feeds", rich_help_panel=PANEL)
def list_feeds(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only this feed.", show_default=False)
    ] = None,
    look: Annotated[
        bool, typer.Option("--look", help="Look for new files first; they become waiting import batches.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the feeds, what their last files were and what is wrong with them; take new files with --look."""
    settings = from_environment()
    good, errors = _read(settings, name)
    with database(settings) as connection:
        looker = arrivals.local(connection, settings)
        if look:
            _look(looker, [feed for feed in good if not feed.remote], as_json)
        faults = {feed.name: arrivals.check(looker, feed) for feed in good if not feed.remote}
        known, unsent = arrivals.known(connection), notices.unsent(connection)
    shown = [_shown(feed, known.get(feed.name, {}), faults.get(feed.name)) for feed in good]
    if as_json:
        print_json({"feeds": shown, "errors": [str(error) for error in errors], "unsent": unsent})
    else:
        _print(shown)
        for error in errors:
            complain(error)
        for one in unsent:
            fate = "given up" if one["given_up_at"] else f"tried {one['tries']} times"
            out.print(
                f"[yellow]A {one['channel']} message of {_moment(one['created_at'])} about {plain(one['scope'])} "
                f"was not sent ({fate}): {plain(one['trouble'] or 'its sender was lost')}[/yellow]"
            )
    raise typer.Exit(2 if errors or any(faults.values()) else 0)


def _read(settings: Settings, name: str | None) -> tuple[list[Feed], list[RowledgerError]]:
    good, wrong = feeds.read_feeds(settings.feeds, loading.kinds(), settings.templates)
    errors: list[RowledgerError] = [*wrong]
    try:
        feeds.read_domains(settings.feeds)
    except RowledgerError as error:
        errors.append(error)
    if name is not None:
        good = [feed for feed in good if feed.name == name]
        if not good and not errors:
            raise UnknownCode(f'There is no feed "{name}" in {settings.feeds}.')
    return good, errors


def _look(looker: arrivals.Looker, chosen: list[Feed], as_json: bool) -> None:
    for done in arrivals.look(looker, chosen):
        cadence.watch(looker.connection, done.feed)
        if not as_json:
            for sentence in _in_sentences(done):
                out.print(f"{plain(done.feed.name)}: {plain(sentence)}")


def _in_sentences(done: arrivals.Look) -> list[str]:
    new = [f"import batch {', '.join(f'#{seqno}' for seqno in done.seqnos)}"] if done.seqnos else []
    again = [f'"{name}" is the same as import batch {seqno}' for name, seqno in done.duplicates]
    unsettled = [f"{done.unsettled:,} files may still be being written"] if done.unsettled else []
    return [*new, *again, *unsettled, *done.left] or ["nothing new"]


def _shown(feed: Feed, known: dict[str, Any], fault: str | None) -> dict[str, Any]:
    return {
        "name": feed.name, "title": feed.title, "kind": feed.kind, "domain": feed.domain, "template": feed.template,
        "place": feed.place, "pattern": feed.pattern, "files": known.get("files", 0),
        "last_file_at": known.get("last_file_at"), "looked_at": known.get("looked_at"),
        "missing_since": known.get("missing_since"), "held": known.get("held", 0),
        "trouble": fault or known.get("trouble"),
    }  # fmt: skip


def _print(shown: list[dict[str, Any]]) -> None:
    if not shown:
        out.print("There is no feed; docs/feeds.md says how to declare one.")
        return
    table = new_table("Feed", "Title", "Place", "Domain", "Files", "Last file", "State", names=("Feed",))
    for one in shown:
        place = plain(f"{one['place'].rstrip('/')}/{one['pattern']}")
        table.add_row(one["name"], plain(one["title"]), place, plain(one["domain"]), f"{one['files']:,}",
                      _moment(one["last_file_at"]), _state(one))  # fmt: skip
    out.print(table)
    for one in shown:
        if one["trouble"]:
            out.print(f"[yellow]{plain(one['name'])}: {plain(one['trouble'])}[/yellow]")


def _moment(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M}" if when else "–"


def _state(one: dict[str, Any]) -> str:
    if one["missing_since"]:
        return f"[red]missing since {_moment(one['missing_since'])}[/red]"
    if one["held"]:
        return f"[yellow]{one['held']:,} held[/yellow]"
    return "[yellow]in trouble[/yellow]" if one["trouble"] else "well" if one["looked_at"] else "new"
