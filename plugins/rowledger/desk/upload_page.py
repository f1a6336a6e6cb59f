"""The page New import: choose kind, domain, template and file; what can be chosen follows from what is chosen."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from rowledger import loading, reference
from rowledger.db import Connection
from rowledger.desk import pages
from rowledger.desk.access import Needs, Right
from rowledger.desk.context import ConnectionDep, Desk, DeskDep
from rowledger.desk.shelf import usable

router = APIRouter(prefix="/new")
Kinds = Annotated[list[str], Depends(Needs(Right.WRITE))]
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
    return pages.page(request, part, uploadable=kinds, limit=desk.settings.max_upload_bytes, **chosen)


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
