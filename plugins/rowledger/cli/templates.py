"""Templates: list, export a file to fill in, print the derived suite."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rowledger import blank_files, loading, templates
from rowledger.cli.terminal import (
    AsJson,
    TemplateName,
    app,
    complain,
    database,
    err,
    find_template,
    from_environment,
    known_kind,
    new_table,
    out,
    plain,
    print_json,
)
from rowledger.errors import UnknownCode
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate

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
def export_template(
    name: TemplateName,
    xlsx: Annotated[
        Path | None,
        typer.Option(
            help="Instead, make a spreadsheet with drop-downs of the codes allowed.", metavar="FILE"
        ),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="With --xlsx: the domain whose codes are offered.", metavar="CODE")
    ] = None,
) -> None:
    """Print an empty file of a template, to be filled in."""
    settings = from_environment()
    template = find_template(settings, name)
    if xlsx is not None:
        _export_spreadsheet(settings, template, xlsx, domain)
        return
    sys.stdout.buffer.write(blank_files.as_csv(template))
    if not template.file.header:
        err.print(
            plain(f"The file has no header. Its fields are: {', '.join(blank_files.fields(template))}.")
        )


def _export_spreadsheet(settings: Settings, template: ImportTemplate, file: Path, domain: str | None) -> None:
    if domain is None:
        raise UnknownCode("Say with --domain whose codes the spreadsheet offers.")
    with database(settings) as connection:
        choices = blank_files.choices(connection, template, domain)
    try:
        file.write_bytes(blank_files.as_xlsx(template, choices))
    except OSError as error:
        raise UnknownCode(f"{file} cannot be written ({error.strerror}).") from None
    err.print(plain(f'{file} is the template "{template.name}" to fill in, with the codes of {domain}.'))


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
