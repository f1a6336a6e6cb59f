"""The pages of templates: the list, and one with its rules, its suite, its versions and what became of its files."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from rowledger import reference
from rowledger.desk import batch_view, pages, template_view
from rowledger.desk.context import ConnectionDep, DeskDep
from rowledger.desk.templates_api import Chosen, Kinds
from rowledger.templates import in_words

router = APIRouter(prefix="/templates")


@router.get("")
def list_templates(request: Request, desk: DeskDep, kinds: Kinds, connection: ConnectionDep) -> Response:
    """Every template, and the files of the folder that are none."""
    found = template_view.overview(desk, connection, kinds)
    return pages.page(request, "templates.html", templates=found, wrong=template_view.wrong(desk))


@router.get("/{name}")
def one_template(request: Request, desk: DeskDep, shown: Chosen, connection: ConnectionDep) -> Response:
    """One template, as it is now or in an older version."""
    template = shown.template
    found = template_view.rejections(connection, template)
    names = [column.name for column in template.columns]
    domains = [one for one in reference.listed(connection, reference.Domain) if one.in_use]
    return pages.page(
        request, "template.html", shown=shown, template=template, columns=template_view.columns(template),
        file=in_words.file_format(template), policies=template_view.policies(template), rejections=found,
        expectations=batch_view.expectations(desk.suites.derive(template), names, found.rules),
        suite_hash=desk.suites.suite_hash(template), batches=template_view.newest(connection, template),
        domains=[one for one in domains if not template.domains or one.code in template.domains],
        looked_at=template_view.LOOKED_AT,
    )  # fmt: skip
