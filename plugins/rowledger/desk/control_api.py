"""What people ask of a batch: pause, resume, cancel, give up waiting, reprocess, run now. Each says what happened, in a sentence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from rowledger import batches, control, giving_up, reruns
from rowledger import roll_back as roll_backs
from rowledger.db import Connection
from rowledger.desk import batch_view
from rowledger.desk.access import BatchWith, Right, has, user_of
from rowledger.desk.bodies import body, described
from rowledger.desk.context import ConnectionDep, Desk, DeskDep
from rowledger.desk.examples import BATCH, answers
from rowledger.desk.problems import Refused
from rowledger.desk.shelf import template_of
from rowledger.desk.upload_api import optional_key, request_key
from rowledger.giving_up import Thing
from rowledger.model import Batch, BatchStatus
from rowledger.templates import ImportTemplate

router = APIRouter(prefix="/batches/{seqno}", tags=["control"])
WriteBatch = Annotated[Batch, Depends(BatchWith(Right.WRITE))]


def seen(
    batch: WriteBatch,
    if_match: Annotated[
        str | None, Header(description="the ETag of the batch as you have seen it, or *")
    ] = None,
) -> Batch:
    """The batch, if it is still in the state that the caller has seen. Raises Refused."""
    if if_match is None:
        raise Refused(428, "Say with If-Match which state of the batch you have seen: the ETag of GET, or *.")
    if if_match.strip() != "*" and batch_view.etag(batch) not in [one.strip() for one in if_match.split(",")]:
        now = batch_view.state(batch).replace("_", " ")
        raise Refused(412, f"Import batch {batch.seqno} has changed since you looked at it: it is {now} now.")
    return batch


SeenBatch = Annotated[Batch, Depends(seen)]
Version = Literal["old", "current"]


class Why(BaseModel):
    """What is told with a request."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(default="", max_length=500, description="why, for the batch's activity")


class Cancel(Why):
    """What is told when a batch is cancelled."""

    roll_back: bool = Field(default=False, description="take back what is written, too; needs a why")


class GiveUp(Why):
    """What is told when nobody waits any more for what records of a batch wait for; needs a why."""

    waits_for: Literal["contract", "status"] | None = Field(
        default=None, description="only for one thing: a contract, or a status by its result code"
    )
    key: str | None = Field(default=None, description="its form id or result code")


class Reprocess(BaseModel):
    """With which version of its template a file is taken once more."""

    model_config = ConfigDict(extra="forbid")

    template: Version = Field(description="as it was at the upload, or as it is now")


@router.post("/pause", responses=answers(200, BATCH), openapi_extra=described(Why))
def pause(
    request: Request, batch: SeenBatch, told: Annotated[Why, Depends(body(Why))], connection: ConnectionDep
) -> JSONResponse:
    """Stop work at the next chunk; what is written stays, and resume goes on there."""
    now = control.pause(connection, batch.seqno, by=user_of(request).name, why=told.why)
    return _told(
        request,
        now,
        f"Import batch {batch.seqno} is paused. What is written stays; resume goes on from there.",
    )


@router.post("/resume", responses=answers(200, BATCH), openapi_extra=described(Why))
def resume(
    request: Request, batch: SeenBatch, told: Annotated[Why, Depends(body(Why))], connection: ConnectionDep
) -> JSONResponse:
    """Let a paused batch wait for the next run, which goes on at the first record not done."""
    now = control.resume(connection, batch.seqno, by=user_of(request).name, why=told.why)
    return _told(
        request, now, f"Import batch {batch.seqno} waits for the next run, which goes on where it stopped."
    )


@router.post("/cancel", responses=answers(200, BATCH), openapi_extra=described(Cancel))
def cancel(
    request: Request,
    batch: SeenBatch,
    told: Annotated[Cancel, Depends(body(Cancel))],
    connection: ConnectionDep,
) -> JSONResponse:
    """End the batch where it is. What is written stays, or the next run takes it back; the rest is unprocessed."""
    if told.roll_back:
        roll_backs.refuse_no_reason(told.why)
    by = user_of(request).name
    now = control.cancel(connection, batch.seqno, by=by, why=told.why)
    if not told.roll_back:
        return _told(request, now, f"Import batch {batch.seqno} is cancelled. What was written stays.")
    roll_backs.ask(connection, batch.seqno, by=by, why=told.why)
    return _told(
        request, now, f"Import batch {batch.seqno} is cancelled. The next run takes back what was written."
    )


@router.post("/roll-back", status_code=202, responses=answers(202, BATCH), openapi_extra=described(Why))
def roll_back(
    request: Request, batch: SeenBatch, told: Annotated[Why, Depends(body(Why))], connection: ConnectionDep
) -> JSONResponse:
    """Ask for the roll back of a batch that has ended; the next run does it. What others changed since is spared."""
    roll_backs.ask(connection, batch.seqno, by=user_of(request).name, why=told.why)
    sentence = f"The next run takes back what import batch {batch.seqno} has written."
    return _told(request, batch, sentence, 202)


@router.post("/give-up", responses=answers(200, BATCH | {"given_up": 60}), openapi_extra=described(GiveUp))
def give_up(
    request: Request,
    batch: SeenBatch,
    told: Annotated[GiveUp, Depends(body(GiveUp))],
    connection: ConnectionDep,
) -> JSONResponse:
    """Wait no longer for the code or contract that parked records of a batch wait for, all of them or for one thing.

    They are never replayed; they can be mended like what was rejected. What exists by now is replayed by the next run.
    """
    if (told.waits_for is None) != (told.key is None):
        raise Refused(422, "Say both, waits_for and key, or neither for all that waits.")
    thing = Thing(told.waits_for, told.key) if told.waits_for and told.key is not None else None
    by = user_of(request).name
    records = giving_up.give_up(connection, batch.seqno, by=by, why=told.why, thing=thing)
    return _told(
        request, batch, f"{giving_up.in_words(records)}, of import batch {batch.seqno}.", given_up=records
    )


@router.post("/reprocess", status_code=201, responses=answers(201, BATCH), openapi_extra=described(Reprocess))
def reprocess(
    request: Request,
    desk: DeskDep,
    batch: SeenBatch,
    told: Annotated[Reprocess, Depends(body(Reprocess))],
    connection: ConnectionDep,
    key: Annotated[str | None, Depends(optional_key)],
) -> JSONResponse:
    """Take the file of a batch that has ended once more, as a batch of its own; both name each other.

    The same Idempotency-Key again gives the same batch again. The state of the batch that If-Match names stays as it is,
    so without a key a repeated request makes another one.
    """
    by = user_of(request).name
    template, suite_hash = version_of(desk, connection, batch, told.template)
    with request_key(connection, by, key, "reprocess", batch.seqno, told.template) as named:
        new = reruns.reprocess(connection, batch, template, suite_hash, by=by, through="api", key=named)
    now = batches.get(connection, new)
    return _told(request, now, f"The file waits once more, as import batch {new}.", 201)


def version_of(
    desk: Desk, connection: Connection, batch: Batch, version: Version
) -> tuple[ImportTemplate, str]:
    """A version of the batch's template, and the hash of its suite. Raises UnknownCode or TemplateError."""
    if version == "old":
        return template_of(connection, batch), batch.suite_hash
    template = desk.shelf.find(batch.template, batch.kind)
    return template, desk.suites.suite_hash(template)


@router.post("/run-now", status_code=202, responses=answers(202, BATCH))
def run_now(request: Request, desk: DeskDep, batch: SeenBatch) -> JSONResponse:
    """Start a run for what waits of the batch's kind, without waiting for the next quarter of an hour."""
    if batch.status is not BatchStatus.WAITING:
        raise Refused(
            409,
            f"Import batch {batch.seqno} does not wait for a run: it is {batch.status.replace('_', ' ')}.",
        )
    if desk.engine is None:
        raise Refused(409, "Nothing here can start a run.")
    run_id = desk.engine.run_now(batch.kind, user_of(request).name)
    return _told(request, batch, f"A run was started: {run_id}.", 202)


def _told(request: Request, batch: Batch, sentence: str, status: int = 200, **more: Any) -> JSONResponse:
    shown: dict[str, Any] = (
        batch_view.shown(batch, has(request, Right.PERSONAL, batch.kind)) | more | {"message": sentence}
    )
    return JSONResponse(jsonable_encoder(shown), status, {"ETag": batch_view.etag(batch)})
