"""Templates: list, export a file to fill in, print the derived suite."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from rowledger import loading, templates
from rowledger.cli.terminal import (
    AsJson,
    TemplateName,
    app,
    complain,
    err,
    find_template,
    known_kind,
    new_table,
    out,
    plain,
    print_json,
)
from rowledger.errors import SetupError, UnknownCode
from rowledger.settings import from_environment

PANEL = "Templates"


@app.command("templates", rich_help_panel=PANEL)
def list_templates(as_json: AsJson = False) -> None:
    """List the import templates, and say what is wrong with those that cannot be used."""
    settings = from_environment()
    good, errors = templates.read_templates(settings.templates, loading.kinds())
    if as_json:
        print_json(
            {
                "templates": [t.model_dump(exclude={"source"}) for t in good.values()],
                "errors": [str(e) for e in errors],
            }
        )
    else:
        table = new_table("Template", "Kind", "Title", "File", "Domains", names=("Template", "Kind"))
        for t in good.values():
            shape = "header" if t.file.header else f"{t.field_count} fields"
            domains = ", ".join(t.domains) or "all"
            table.add_row(t.name, t.kind, plain(t.title), f"{shape}, {t.file.encoding}", domains)
        out.print(table)
        for error in errors:
            complain(error)
    raise typer.Exit(2 if errors else 0)


@app.command("export-template", rich_help_panel=PANEL)
def export_template(name: TemplateName) -> None:
    """Print an empty file of a template, to be filled in."""
    template = find_template(from_environment(), name)
    sys.stdout.reconfigure(encoding=template.file.encoding, newline="")  # type: ignore[union-attr]
    writer = csv.writer(
        sys.stdout, delimiter=template.file.delimiter, quotechar=template.file.quote, lineterminator="\r\n"
    )
    if template.file.header:
        try:
            writer.writerow([column.name for column in template.columns])
        except UnicodeEncodeError as error:
            letter, encoding = error.object[error.start], template.file.encoding
            raise SetupError(
                f'Template "{name}" has the letter {letter!r} in a header, which {encoding} cannot write.'
            ) from None
    else:
        by_place = {column.position: column.name for column in template.columns}
        order = [by_place.get(place, f"column {place}") for place in range(1, template.field_count + 1)]
        err.print(f"The file has no header. Its fields are: {', '.join(order)}.")


@app.command(rich_help_panel=PANEL)
def suite(name: TemplateName) -> None:
    """Print the Great Expectations suite that a template derives, with its hash."""
    from rowledger import suites

    print_json(suites.printable(find_template(from_environment(), name)))


@app.command("template-schema", rich_help_panel=PANEL)
def template_schema(
    page: Annotated[
        Path | None,
        typer.Option(
            help="Instead, make the tables of a page such as docs/templates.md anew.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of templates, by which editors complete and check them."""
    from rowledger.templates import schema

    if page is None:
        print_json(schema.json_schema(loading.kinds()))
    else:
        page.write_text(
            schema.with_tables(page.read_text(encoding="utf-8"), loading.kinds()), encoding="utf-8"
        )


@app.command("infer-template", rich_help_panel=PANEL)
def infer_template(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A sample of the files to come.", show_default=False)
    ],
    kind: Annotated[str, typer.Option(help="The import kind, such as contact.", show_default=False)],
    region: Annotated[
        str | None, typer.Option(help="Where phone numbers without a country code are, such as DE.")
    ] = None,
) -> None:
    """Propose a template for files like this one, with the evidence in comments; save it and mend it."""
    from rowledger import infer

    settings = from_environment()
    known_kind(kind)
    if region is not None and not templates.faults.is_region(region):
        raise UnknownCode(f"{region!r} is not a region with phone numbers of its own; name one such as DE.")
    kinds = loading.kinds()
    others, _ = templates.read_templates(settings.templates, kinds)
    proposal = infer.propose(file, kinds[kind], kinds, list(others.values()), settings.scratch, region)
    sys.stdout.write(proposal.text)
    if not proposal.usable:
        err.print("The proposal is no template yet; its comments say what a person must decide.")
        raise typer.Exit(1)
