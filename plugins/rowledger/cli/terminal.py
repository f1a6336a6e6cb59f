"""What the commands share: the application, the terminal, the database, and how people's text is shown."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from rowledger import db, loading, templates
from rowledger.db import Connection
from rowledger.errors import RowledgerError, SetupError, UnknownCode
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.settings import from_environment as local_settings

app = typer.Typer(
    help="Import CSV files into PostgreSQL, with a ledger of what became of every record.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@dataclass
class Options:
    """What is said before any command."""

    url: str | None = None


options = Options()


@app.callback()
def before_all(
    url: Annotated[
        str | None,
        typer.Option(
            "--url", envvar="ROWLEDGER_URL", metavar="ADDRESS", help="Ask the desk of the Airflow at this address, not "
            "the database. Who asks: ROWLEDGER_TOKEN, or ROWLEDGER_USER and ROWLEDGER_PASSWORD, in the environment.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Import CSV files into PostgreSQL, with a ledger of what became of every record."""
    options.url = url


out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Seqno = Annotated[int, typer.Argument(help="The import batch seqno.", min=1, metavar="SEQNO")]
TemplateName = Annotated[str, typer.Argument(metavar="NAME", help="The name of a template.")]
KindOption = Annotated[
    str,
    typer.Option("--kind", help=f"The import kind: {' or '.join(sorted(loading.kinds()))}.", metavar="KIND"),
]
DomainOption = Annotated[str, typer.Option("--domain", help="The code of the domain.", metavar="CODE")]
TemplateOption = Annotated[
    str, typer.Option("--template", help="The name of an import template of that kind.", metavar="NAME")
]
OriginOption = Annotated[
    list[str] | None,
    typer.Option("--origin", help="An origin for every contact; repeat for more.", metavar="CODE"),
]
SubscriptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--subscription", help="A list to opt every contact in to; repeat for more.", metavar="LIST_ID"
    ),
]


def from_environment() -> Settings:
    """The settings, with the object store if they name one: only then is Airflow imported. Raises SetupError."""
    settings = local_settings()
    if settings.uploads_url is None:
        return settings
    # Airflow logs to where our answers go.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
    from rowledger.airflow.storage import with_store

    return with_store(settings)


@contextlib.contextmanager
def database(settings: Settings, *, checked: bool = True) -> Iterator[Connection]:
    """A connection to the configured database, or to the embedded one, which is started if need be. Raises SetupError."""
    if options.url:
        raise SetupError(
            "This command works on the database itself; a desk cannot do it. Leave out --url, and ROWLEDGER_URL."
        )
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


def find_template(settings: Settings, name: str, kind: str | None = None) -> templates.ImportTemplate:
    """The template of that name, of that kind if one is said. Raises UnknownCode or TemplateError."""
    known_kind(kind)
    template = templates.find_template(settings.templates, name, loading.kinds())
    if kind is not None and template.kind != kind:
        raise UnknownCode(f'Template "{name}" is for {template.kind}, not for {kind}.')
    return template


def known_kind(kind: str | None) -> None:
    """Raises UnknownCode if there is no such import kind."""
    kinds = loading.kinds()
    if kind is not None and kind not in kinds:
        raise UnknownCode(f'There is no import kind "{kind}". Kinds are: {", ".join(sorted(kinds))}.')


def new_table(*headings: str, names: tuple[str, ...] = ()) -> Table:
    """A table that cuts nothing off; columns of ``names`` are not broken either."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in names)
    return table


def complain(error: RowledgerError) -> None:
    """Print an error as a sentence, on standard error."""
    err.print(f"[red]{plain(str(error))}[/red]")


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print for scripts."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent, default=str) + "\n")


def check_box(checked: bool) -> str:
    """A check box, as text."""
    return "☑" if checked else "☐"


def plain(text: str) -> str:
    """Text of users as text: no markup, no control characters for the terminal."""
    return escape("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text))


def log_to_terminal(quiet: bool) -> None:
    """Show the log of the work on standard error."""
    handler = RichHandler(console=err, show_path=False, show_level=False)
    logging.getLogger("rowledger").addHandler(handler)
    logging.getLogger("rowledger").setLevel(logging.WARNING if quiet else logging.INFO)


def value_in_words(value: Any) -> str:
    """A value of a field as people write it, on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(map(value_in_words, value))
    text = (
        json.dumps(value, ensure_ascii=False) if isinstance(value, bool | int | float | dict) else str(value)
    )
    return plain(text.replace("\n", " ⏎ "))


def reasons_in_words(*given: Iterable[Mapping[str, Any]] | None) -> str:
    """Why a record became what it became: its reasons, and its warnings."""
    return " ".join(
        f"{one['rule']}: {plain(one.get('message') or one['column'] or '')}"
        for some in given
        for one in some or ()
    )


def print_content(batch: Batch) -> None:
    """The warnings about a batch's file as a whole, and what became of its records."""
    for warning in batch.warnings:
        out.print(f"[yellow]{plain(warning['message'] or '')}[/yellow]")
    if batch.records_in_file is not None:
        words = outcomes_in_words(batch) or "none has an outcome yet"
        out.print(f"{batch.records_in_file:,} records: {words}")


def outcomes_in_words(batch: Batch) -> str:
    """How many records of a batch had which outcome."""
    return ", ".join(f"{count:,} {outcome}" for outcome, count in batch.counts.items() if count)


def print_reasons(heading: str, reasons: Collection[Mapping[str, Any]]) -> None:
    """The commonest reasons of records that were not loaded, if there are any."""
    if not reasons:
        return
    table = new_table("Records", "Rule", "Column", "First record", "For example", names=("Rule",))
    for reason in reasons:
        table.add_row(f"{reason['records']:,}", reason["rule"], plain(reason["column"] or ""),
                      str(reason["first_record"]), plain(reason["example"]))  # fmt: skip
    out.print(f"\n{heading}")
    out.print(table)
