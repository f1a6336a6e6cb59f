"""The page Waiting records: which code or contract parked records wait for, and to give up waiting for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from rowledger.desk import pages, parked_view
from rowledger.desk.access import Needs, Right, kinds_with
from rowledger.desk.context import ConnectionDep
from rowledger.desk.parked_view import Asked

router = APIRouter(prefix="/parked")
Kinds = Annotated[list[str], Depends(Needs(Right.READ))]


@router.get("")
def waiting(
    request: Request, kinds: Kinds, connection: ConnectionDep, asked: Annotated[Asked, Query()]
) -> Response:
    """The page, or the part of it with the records."""
    part = "parked_groups.html" if pages.is_part(request) else "parked.html"
    found = parked_view.waiting(request, connection, asked, kinds)
    return pages.page(
        request, part, asked=asked, found=found, may_write=kinds_with(request, Right.WRITE),
        personal=kinds_with(request, Right.PERSONAL),
    )  # fmt: skip
