"""Batches for programs: lists, totals, one batch, its events."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import Field

from rowledger import parked, roll_back
from rowledger.desk import batch_list, batch_view
from rowledger.desk.access import BatchWith, Needs, Right, has
from rowledger.desk.batch_list import Filter, Group, Listing
from rowledger.desk.context import ConnectionDep
from rowledger.desk.examples import BATCH, EVENT, PAGE, TOTALS, answers
from rowledger.desk.problems import Refused
from rowledger.model import Batch

router = APIRouter(prefix="/batches", tags=["batches"])
Kinds = Annotated[list[str], Depends(Needs(Right.READ))]
ReadBatch = Annotated[Batch, Depends(BatchWith(Right.READ))]


class Asked(Listing):
    """One page of a list, which may begin anywhere."""

    before: int | None = Field(
        default=None, ge=1, lt=2**63, description="in place of a cursor: a seqno; only older ones"
    )


class Totals(Filter):
    """Which batches are counted, and by what."""

    group: Group | None = None


@router.get("", responses=answers(200, PAGE))
def list_batches(
    request: Request, kinds: Kinds, connection: ConnectionDep, asked: Annotated[Asked, Query()]
) -> JSONResponse:
    """Batches, the newest first unless told otherwise; go on with ``next_cursor``."""
    if asked.before is not None:
        if asked.cursor or (asked.sort, asked.order) != ("seqno", "desc"):
            raise Refused(
                422, "before is for lists by seqno, the newest first, and takes the place of a cursor."
            )
        asked = asked.model_copy(update={"cursor": batch_list.behind(asked.before)})
    page = batch_list.page(connection, asked, kinds)
    personal = {kind for kind in kinds if has(request, Right.PERSONAL, kind)}
    return _json({
        "batches": [batch_view.shown(batch, batch.kind in personal) for batch in page.batches],
        "next_cursor": page.next_cursor,
    })  # fmt: skip


@router.get("/totals", responses=answers(200, TOTALS))
def totals(kinds: Kinds, connection: ConnectionDep, asked: Annotated[Totals, Query()]) -> JSONResponse:
    """How many batches and records there are by outcome, for each group or for all together."""
    return _json({"groups": batch_list.totals(connection, asked, kinds, asked.group).groups})


@router.get("/{seqno}", responses=answers(200, BATCH))
def one_batch(request: Request, batch: ReadBatch, connection: ConnectionDep) -> JSONResponse:
    """One batch, what became of its parked records, and how far its roll back is. Its ETag is what a control request needs as If-Match; progress does not change it."""
    about = batch_view.about(connection, batch)
    more = {name: about[name] for name in ("origins", "subscriptions", "children")} | {
        "replayed": parked.became(connection, batch.seqno),
        "roll_back": roll_back.of(connection, batch.seqno),
    }
    shown = batch_view.shown(batch, has(request, Right.PERSONAL, batch.kind)) | more
    return _json(shown, {"ETag": batch_view.etag(batch)})


@router.get("/{seqno}/events", responses=answers(200, EVENT))
def events(request: Request, batch: ReadBatch, connection: ConnectionDep) -> JSONResponse:
    """Who did what to the batch and when, the oldest first."""
    found = batch_view.events(connection, batch, has(request, Right.PERSONAL, batch.kind))
    return _json({"events": found})


class _Json(JSONResponse):
    """An answer whose values are encoded as they are written; FastAPI's encoder would copy all of a long list first."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(
            content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=jsonable_encoder
        )
        return text.encode()


def _json(body: Any, headers: dict[str, str] | None = None) -> JSONResponse:
    return _Json(body, headers=headers)
