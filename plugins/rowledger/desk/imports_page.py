"""The page Imports: every batch, filtered, sorted, grouped, and kept up to date while it is open."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BeforeValidator

from rowledger.desk import batch_list, batch_view, pages
from rowledger.desk.access import Needs, Right, has
from rowledger.desk.batch_list import Group, Listing
from rowledger.desk.context import ConnectionDep, desk_of

router = APIRouter()
Kinds = Annotated[list[str], Depends(Needs(Right.READ))]
COLUMNS = (("seqno", "#"), ("", "File"), ("", "Kind and template"), ("", "Status"), ("", "Completed"),
           ("", "Processed"), ("", "Records"), ("uploaded_at", "Uploaded"), ("processed_at", "Processed at"))  # fmt: skip


class Shown(Listing):
    """What the page is asked to show."""

    group: Annotated[Group | None, BeforeValidator(lambda value: value or None)] = None

    def query(self, **changed: Any) -> str:
        """The query string that shows the same with something changed; None takes a part away."""
        mine = self.given() | {
            "group": self.group,
            "sort": self.sort,
            "order": self.order,
            "cursor": self.cursor,
        }
        defaults = {"sort": "seqno", "order": "desc"}
        kept = {k: v for k, v in (mine | changed).items() if v is not None and defaults.get(k) != v}
        return urlencode(kept)


@router.get("/")
def imports(
    request: Request, kinds: Kinds, connection: ConnectionDep, asked: Annotated[Shown, Query()]
) -> Response:
    """The page, or the part of it that a filter changes."""
    part = "imports_list.html" if pages.is_part(request) else "imports.html"
    values: dict[str, Any] = {"asked": asked, "columns": COLUMNS, "found": None, "groups": None,
                              "waiting": _waiting(request, connection, kinds),
                              "filtered": bool(asked.given())}  # fmt: skip
    if asked.group:
        told = batch_list.totals(connection, asked, kinds, asked.group)
        values |= {
            "groups": told.groups,
            "total": [told.total] if told.total else [],
            "most": batch_list.MAX_GROUPS,
        }
    else:
        values["found"] = batch_list.page(connection, asked, kinds)
    if part == "imports.html":
        values |= _choices(request, connection, kinds)
    return pages.page(request, part, may_upload=bool(_may_upload(request, kinds)), **values)


@router.get("/changes")
def changes(
    request: Request,
    kinds: Kinds,
    connection: ConnectionDep,
    seen: Annotated[str, Query(max_length=10_000, pattern=r"^([1-9][0-9]{0,17}-[0-9a-f]{12}(,|$))*$")] = "",
    newest: Annotated[int | None, Query(ge=0, lt=2**62)] = None,
) -> Response:
    """The rows of an open page that have changed since it saw them, and how many batches are newer than all of it."""
    known = dict(one.split("-") for one in seen.split(",") if one)
    found = [
        batch
        for batch in batch_list.some(connection, [int(seqno) for seqno in known], kinds)
        if batch_view.version(batch) != known[str(batch.seqno)]
    ]
    newer = batch_list.newer(connection, newest, kinds) if newest is not None else 0
    if not found and not newer:
        return pages.unchanged()
    return pages.page(request, "imports_changes.html", batches=found, newer=newer)


def _may_upload(request: Request, kinds: list[str]) -> list[str]:
    return [kind for kind in kinds if has(request, Right.WRITE, kind)]


def _choices(request: Request, connection: Any, kinds: list[str]) -> dict[str, Any]:
    """What the filters offer."""
    from rowledger import reference

    names = sorted({template.name for template in desk_of(request).shelf.all() if template.kind in kinds})
    domains = [domain.code for domain in reference.listed(connection, reference.Domain)]
    return {"templates": names, "domains": domains, "readable": kinds}


def _waiting(request: Request, connection: Any, kinds: list[str]) -> list[dict[str, Any]]:
    """Of the kinds that wait: when their next run is, or that nothing runs them."""
    engine = desk_of(request).engine
    if engine is None:
        return []
    told = ((kind, engine.schedule(kind)) for kind in batch_list.waiting_kinds(connection, kinds))
    return [{"kind": kind, "schedule": schedule} for kind, schedule in told if schedule]
