"""Templates for programs: what files look like and which rules they obey, how often each rule rejects, files to fill in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response

from rowledger import blank_files
from rowledger.desk import template_view
from rowledger.desk.access import Needs, Right
from rowledger.desk.answers import attachment
from rowledger.desk.context import ConnectionDep, DeskDep
from rowledger.desk.examples import answers
from rowledger.desk.examples_of_data import TEMPLATE, TEMPLATES
from rowledger.desk.problems import Refused
from rowledger.desk.template_view import Shown
from rowledger.errors import UnknownCode
from rowledger.templates import in_words

router = APIRouter(prefix="/templates", tags=["templates"])
Kinds = Annotated[list[str], Depends(Needs(Right.READ))]
Version = Annotated[str | None, Query(pattern="^[0-9a-f]{64}$", description="an older version, by its hash")]


def chosen(
    desk: DeskDep,
    kinds: Kinds,
    connection: ConnectionDep,
    name: Annotated[str, Path(max_length=255, pattern=r"^[^\x00]+$")],
    version: Version = None,
) -> Shown:
    """The template that an address names. Raises Refused."""
    return template_view.find(desk, connection, kinds, name, version)


Chosen = Annotated[Shown, Depends(chosen)]


@router.get("", responses=answers(200, TEMPLATES))
def list_templates(desk: DeskDep, kinds: Kinds, connection: ConnectionDep) -> JSONResponse:
    """Every template, also those that only old batches know (``there`` is false), and the files that are none."""
    found = template_view.overview(desk, connection, kinds)
    return JSONResponse(jsonable_encoder({"templates": found, "wrong": template_view.wrong(desk)}))


@router.get("/{name}", responses=answers(200, TEMPLATE))
def one_template(desk: DeskDep, shown: Chosen, connection: ConnectionDep) -> JSONResponse:
    """One template: its rules in words, the suite derived from it, its versions, and how often each rule rejects."""
    template = shown.template
    found = template_view.rejections(connection, template)
    body = {
        "name": template.name, "kind": template.kind, "title": template.title, "hash": template.hash,
        "there": shown.there, "file": in_words.file_format(template), "policies": template_view.policies(template),
        "columns": template_view.columns(template), "suite_hash": desk.suites.suite_hash(template),
        "suite": desk.suites.derive(template), "versions": [_without_source(v) for v in shown.versions],
        "rejections": {"of_batches": found.of_batches, "of_records": found.of_records,
                       "at_most_batches": template_view.LOOKED_AT, "rules": found.rules},
    }  # fmt: skip
    return JSONResponse(jsonable_encoder(body))


def _without_source(version: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in version.items() if name != "source"}


@router.get(
    "/{name}/export.csv",
    responses=answers(200, "Customer number,Email\r\n", "text/csv"),
    response_class=Response,
)
def as_csv(shown: Chosen) -> Response:
    """An empty CSV with the header of the template, to fill in."""
    template = shown.template
    if not template.file.header:
        fields = ", ".join(blank_files.fields(template))
        raise Refused(
            409,
            f"Files of this template have no header, so an empty one has nothing in it. Their fields are: {fields}.",
        )
    headers = {"Content-Disposition": attachment(f"{template.name}.csv")}
    return Response(
        blank_files.as_csv(template),
        headers=headers,
        media_type=f"text/csv; charset={template.file.encoding}",
    )


@router.get(
    "/{name}/export.xlsx", responses=answers(200, "a workbook", blank_files.XLSX), response_class=Response
)
def as_xlsx(
    shown: Chosen,
    connection: ConnectionDep,
    domain: Annotated[
        str, Query(max_length=255, pattern=r"^[^\x00]+$", description="whose codes are offered")
    ],
) -> Response:
    """A spreadsheet to fill in, with drop-downs of the codes that are allowed in a domain."""
    book = _workbook(shown, connection, domain)
    headers = {"Content-Disposition": attachment(f"{shown.template.name}_{domain}.xlsx")}
    return Response(book, headers=headers, media_type=blank_files.XLSX)


def _workbook(shown: Shown, connection: ConnectionDep, domain: str) -> bytes:
    template = shown.template
    if template.domains and domain not in template.domains:
        raise Refused(
            422,
            f'Template "{template.name}" is not for domain {domain}, but for: {", ".join(template.domains)}.',
        )
    try:
        return blank_files.as_xlsx(template, blank_files.choices(connection, template, domain))
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None
