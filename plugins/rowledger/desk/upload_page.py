"""The page New import: choose kind, domain, template and file; what can be chosen follows from what is chosen.

Before a file is uploaded its first records are shown as the template reads them, with what would become of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from rowledger import loading, reference
from rowledger.db import Connection
from rowledger.desk import checks, checks_api, pages
from rowledger.desk.access import Needs, Right, has
from rowledger.desk.checks_api import Asking, asking
from rowledger.desk.context import ConnectionDep, Desk, DeskDep
from rowledger.desk.shelf import usable
from rowledger.model import Outcome

router = APIRouter(prefix="/new")
Kinds = Annotated[list[str], Depends(Needs(Right.WRITE))]
PART_BYTES = 256 * 1024  # of a file are sent to show its first records
Code = Annotated[str, Query(max_length=255, pattern=r"^[^\x00-\x1f]*$")]


@router.get("")
def new_import(
    request: Request,
    kinds: Kinds,
    desk: DeskDep,
    connection: ConnectionDep,
    kind: Code = "",
    domain: Code = "",
    template: Code = "",
) -> Response:
    """The page, or the part of it that depends on what is chosen."""
    part = "new_import_choices.html" if pages.is_part(request) else "new_import.html"
    chosen = _chosen(desk, connection, kinds, kind, domain, template)
    if desk.judge:
        desk.judge.warm()
    return pages.page(
        request, part, uploadable=kinds, limit=desk.settings.max_upload_bytes, part_bytes=PART_BYTES,
        can_check=desk.judge is not None, **chosen,
    )  # fmt: skip


@router.post("/check", dependencies=[Depends(Needs(Right.WRITE))])
async def check(request: Request, desk: DeskDep, query: Annotated[Asking, Depends(asking)]) -> Response:
    """What would become of a file, or of the records at its beginning. Nothing is kept."""
    found = await checks_api.checked(request, desk, query)
    personal = has(request, Right.PERSONAL, query.choices.kind)
    told = checks.told(found.judgement, personal)
    counts = {str(outcome): told["counts"].get(str(outcome), 0) for outcome in Outcome}
    return await run_sync(
        partial(
            pages.page, request, "new_import_check.html", told=told, counts=counts, personal=personal,
            records=[_shown(record, told["columns"]) for record in told["records"]],
            uploaded_before=found.uploaded_before, part=query.part,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A cell as it stands in the file, what the template reads from it if that is another text, and why it is wrong."""

    text: str
    read: str | None
    reasons: list[dict[str, Any]]
    warnings: list[dict[str, Any]]


def _shown(record: dict[str, Any], columns: list[dict[str, Any]]) -> dict[str, Any]:
    """A record with its cells, and with the reasons that are about none of them."""
    reasons, warnings = record["reasons"] or [], record["warnings"] or []
    values, names = record.get("values") or {}, [column["name"] for column in columns]
    texts = record.get("cells") or []
    if len(texts) == 1 < len(columns) and any(reason["rule"] == "bad_quoting" for reason in reasons):
        return record | {"cells": [], "more": [], "text": texts[0], "rest": [*reasons, *warnings]}
    cells = [
        Cell(
            text,
            _read(values.get(column["field"]), text) if column["field"] in values else None,
            [reason for reason in reasons if reason["column"] == column["name"]],
            [warning for warning in warnings if warning["column"] == column["name"]],
        )
        for text, column in zip(texts, columns, strict=False)
    ]
    rest = [one for one in (*reasons, *warnings) if one["column"] not in names or not texts]
    return record | {"cells": cells, "more": texts[len(columns) :], "text": None, "rest": rest}


def _read(value: Any, text: str) -> str | None:
    """What the template reads from a cell, unless it is the same text."""
    told = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return None if told == text.strip() else told or "nothing"


def _chosen(
    desk: Desk, connection: Connection, kinds: list[str], kind: str, domain: str, template: str
) -> dict[str, Any]:
    """What is chosen, and what can be: the first of each that fits where a choice does not fit any more."""
    domains = [one for one in reference.listed(connection, reference.Domain) if one.in_use]
    kind = kind if kind in kinds else kinds[0]
    domain = domain if domain in {one.code for one in domains} else domains[0].code if domains else ""
    templates = usable(desk.shelf.all(), kind, domain)
    chosen = next((one for one in templates if one.name == template), templates[0] if templates else None)
    origins = reference.listed(connection, reference.Origin, domain) if domain else []
    lists = reference.listed(connection, reference.Subscription, domain) if domain else []
    return {
        "takes_codes": any(field.name == "origins" for field in loading.kinds()[kind].fields),
        "kind": kind, "domain": domain, "domains": domains, "templates": templates, "template": chosen,
        "origins": [o for o in origins if o.in_use and _offered(chosen.origins if chosen else None, o.id)],
        "lists": [s for s in lists if s.in_use and _offered(chosen.subscriptions if chosen else None, s.id)],
    }  # fmt: skip


def _offered(allowed: tuple[str, ...] | None, code: str) -> bool:
    return allowed is None or code in allowed
