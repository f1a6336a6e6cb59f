"""Parked records for programs: what waits for what, and to give up waiting for something."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from rowledger import giving_up
from rowledger.desk import parked_view
from rowledger.desk.access import Needs, NeedsKind, Right, user_of
from rowledger.desk.bodies import body, described
from rowledger.desk.context import ConnectionDep
from rowledger.desk.examples import GIVEN_UP, WAITING, answers
from rowledger.desk.parked_view import Asked
from rowledger.giving_up import Thing

router = APIRouter(prefix="/parked", tags=["parked records"])
Kinds = Annotated[list[str], Depends(Needs(Right.READ))]
WriteKind = Annotated[str, Depends(NeedsKind(Right.WRITE))]


class Page(Asked):
    """Which of the waiting records are told, and of how many things at most."""

    limit: int = Field(default=parked_view.MOST, ge=1, le=1000)


class GiveUp(BaseModel):
    """For what nobody waits any more, and why."""

    model_config = ConfigDict(extra="forbid")

    domain: str = Field(max_length=255)
    waits_for: Literal["contract", "status"] = Field(description="a contract, or a status by its result code")
    key: str = Field(description="its form id or result code, as GET tells it")
    why: str = Field(max_length=500, description="why, for the activity of the import batches")


@router.get("", responses=answers(200, WAITING))
def waiting(
    request: Request, kinds: Kinds, connection: ConnectionDep, asked: Annotated[Page, Query()]
) -> JSONResponse:
    """What records wait for that does not exist yet, most records first; the key with the right on personal data."""
    found = parked_view.waiting(request, connection, asked, kinds, asked.limit)
    return JSONResponse(jsonable_encoder(asdict(found)))


@router.post(
    "/give-up",
    responses=answers(200, GIVEN_UP),
    openapi_extra=described(GiveUp),
    dependencies=[Depends(Needs(Right.WRITE))],
)
def give_up(
    request: Request,
    kind: WriteKind,
    told: Annotated[GiveUp, Depends(body(GiveUp))],
    connection: ConnectionDep,
) -> JSONResponse:
    """Wait no longer for a contract or code, in all import batches of the kind and domain that have ended.

    What waited for it is never replayed; it can be mended like what was rejected. What exists by now is replayed.
    """
    thing = Thing(told.waits_for, told.key)
    done = giving_up.give_up_thing(
        connection, kind, told.domain, thing, by=user_of(request).name, why=told.why
    )
    records = sum(done.values())
    of = f"import batch {next(iter(done))}" if len(done) == 1 else f"{len(done):,} import batches"
    sentence = f"{giving_up.in_words(records)}, of {of}."
    batches = [{"seqno": seqno, "given_up": count} for seqno, count in done.items()]
    return JSONResponse({"given_up": records, "batches": batches, "message": sentence})
