"""Operations for programs: what has not ended, feeds, what is kept out and why, run history by day."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

from rowledger.desk import batch_view, operations_view
from rowledger.desk.access import Needs, Right, has
from rowledger.desk.context import ConnectionDep, DeskDep
from rowledger.desk.examples import answers
from rowledger.desk.examples_of_operations import DAYS, FEEDS, NOW, REJECTIONS
from rowledger.desk.operations_view import Costs, Period, Running

router = APIRouter(prefix="/operations", tags=["operations"])
Kinds = Annotated[list[str], Depends(Needs(Right.READ))]


@router.get("/now", responses=answers(200, NOW))
def now(request: Request, desk: DeskDep, kinds: Kinds, connection: ConnectionDep) -> JSONResponse:
    """What waits, how long and why, and what is worked on; of what is worked on the longest, ``running_in_all`` in all."""
    found = operations_view.now(connection, desk, kinds)
    told = [one | {"age": round(one["age"].total_seconds())} for one in found.waiting]
    return _json({
        "now": found.now, "waiting": told, "running_in_all": found.running_in_all,
        "running": [_running(one, has(request, Right.PERSONAL, one.batch.kind)) for one in found.running],
    })  # fmt: skip


def _running(one: Running, personal: bool) -> dict[str, Any]:
    progress = asdict(one.progress) | {"share": round(one.progress.share, 6)} if one.progress else None
    return batch_view.shown(one.batch, personal) | {
        "progress": progress, "worked_on": one.worked_on, "silent_since": one.silent_since,
    }  # fmt: skip


@router.get("/feeds", responses=answers(200, FEEDS))
def feeds(desk: DeskDep, kinds: Kinds, connection: ConnectionDep) -> JSONResponse:
    """Every feed: its last file and what became of it, when the next one is due, what is wrong; and files that are none."""
    return _json(asdict(operations_view.feeds_of(connection, desk, kinds)))


@router.get("/rejections", responses=answers(200, REJECTIONS))
def rejections(kinds: Kinds, connection: ConnectionDep, asked: Annotated[Costs, Query()]) -> JSONResponse:
    """How many records were kept out in the last days, by feed, and by template, column and rule, the costliest first."""
    found = operations_view.rejections(connection, asked, kinds)
    return _json(asdict(found) | {
        "of_batches": found.of_batches, "of_records": found.of_records, "records": found.records,
        "at_most_batches": operations_view.MOST,
    })  # fmt: skip


@router.get("/days", responses=answers(200, DAYS))
def days(kinds: Kinds, connection: ConnectionDep, asked: Annotated[Period, Query()]) -> JSONResponse:
    """Numbers of batches and of records by outcome, by the day of the upload, and messages that could not be sent."""
    return _json(asdict(operations_view.days(connection, asked, kinds)))


def _json(body: Any) -> JSONResponse:
    return JSONResponse(jsonable_encoder(body))
