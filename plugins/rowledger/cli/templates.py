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
    new_table,
    out,
    plain,
    print_json,
)
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
        writer.writerow([column.name for column in template.columns])
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
    from rowledger import template_schema

    if page is None:
        print_json(template_schema.json_schema(loading.kinds()))
    else:
        page.write_text(
            template_schema.with_tables(page.read_text(encoding="utf-8"), loading.kinds()), encoding="utf-8"
        )
