"""The pages of the set-up: domains and what belongs to them, value lists, and who changed what."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from rowledger import reference
from rowledger.db import Connection
from rowledger.desk import pages, set_up_view
from rowledger.desk.access import Needs, Right, kinds_with
from rowledger.desk.context import ConnectionDep
from rowledger.desk.problems import Refused
from rowledger.desk.reference_api import Code, Text, Where
from rowledger.desk.set_up_view import ABOUT, OF_A_DOMAIN, Sort
from rowledger.errors import UnknownCode

router = APIRouter(prefix="/set-up", dependencies=[Depends(Needs(Right.READ))])
LATEST = 20  # changes of one item


@router.get("")
def set_up(request: Request, connection: ConnectionDep, domain: Text = "") -> Response:
    """All domains and value lists, or everything of one domain."""
    if not domain:
        return _page(
            request,
            "set_up.html",
            domains=set_up_view.domains(connection),
            lists=set_up_view.lists(connection),
        )
    one = set_up_view.one(connection, Sort.DOMAIN, domain, None)
    inside = {sort: set_up_view.listed(connection, sort, domain) for sort in OF_A_DOMAIN}
    return _page(request, "set_up_domain.html", domain=one, inside=inside, about=ABOUT)


@router.get("/{sort}/new")
def new(request: Request, connection: ConnectionDep, sort: Sort, domain: Where) -> Response:
    """The form of a new item."""
    return _page(request, "set_up_new.html", **_form(connection, sort, domain))


@router.get("/{sort}/item")
def one_item(request: Request, connection: ConnectionDep, sort: Sort, domain: Where, code: Code) -> Response:
    """One item: its fields, in a form for who may change them, and who changed what of it."""
    item = set_up_view.one(connection, sort, code, domain)
    changes = reference.changes(connection, domain or code, sort=sort, code=code, limit=LATEST + 1)
    return _page(
        request, "set_up_item.html", item=item, etag=set_up_view.etag(item), changes=changes[:LATEST],
        more=len(changes) > LATEST, **_form(connection, sort, domain),
    )  # fmt: skip


@router.get("/list")
def one_list(
    request: Request, connection: ConnectionDep, name: Text = "", after: Text = "", begins: Text = ""
) -> Response:
    """A value list; without a name the form of a new one."""
    found = set_up_view.values(connection, name, after, begins)
    changes = reference.changes(connection, sort="value", code=name, limit=LATEST + 1) if name else []
    return _page(
        request, "set_up_list.html", list_name=name, found=found, after=after, begins=begins, changes=changes[:LATEST],
        more=len(changes) > LATEST,
    )  # fmt: skip


@router.get("/changes")
def changes(
    request: Request,
    connection: ConnectionDep,
    domain: Text = "",
    sort: Text = "",
    code: Text = "",
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> Response:
    """Who changed what and when, the newest first."""
    limit = set_up_view.CHANGES_A_PAGE
    try:
        found = reference.changes(
            connection, domain or None, sort=sort or None, code=code or None, before=before, limit=limit + 1
        )
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None
    return _page(
        request, "set_up_changes.html", changes=found[:limit], more=len(found) > limit, before=before,
        asked={"domain": domain, "sort": sort, "code": code},
        domains=reference.listed(connection, reference.Domain), sorts=[*Sort, "value", "contract"],
    )  # fmt: skip


def _form(connection: Connection, sort: Sort, domain: str | None) -> dict[str, Any]:
    phases = set_up_view.listed(connection, Sort.PHASE, domain) if sort is Sort.STATUS else []
    return {"sort": sort, "about": ABOUT[sort], "domain": domain, "phases": phases}


def _page(request: Request, name: str, **values: Any) -> Response:
    return pages.page(request, name, may_set_up=bool(kinds_with(request, Right.SET_UP)), **values)
