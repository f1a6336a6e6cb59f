"""Mending for programs: rejected records with their cells as they should be, checked, or sent as a batch of their own."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from rowledger import batches, mending
from rowledger.batches import RequestKey
from rowledger.db import Connection
from rowledger.desk import batch_view, checks
from rowledger.desk.access import OWN_HEADER, BatchWith, Right, user_of
from rowledger.desk.bodies import body, described
from rowledger.desk.context import ConnectionDep, Desk, DeskDep
from rowledger.desk.examples import BATCH, CHECK, answers
from rowledger.desk.pages import root
from rowledger.desk.shelf import template_of
from rowledger.desk.upload_api import optional_key
from rowledger.judges import Case
from rowledger.mending import Mended
from rowledger.model import Batch

router = APIRouter(prefix="/batches/{seqno}", tags=["mending"])
MendBatch = Annotated[Batch, Depends(BatchWith(Right.PERSONAL, also=Right.WRITE))]
MAX_RECORDS = 500
MAX_BYTES = 4_000_000
RESPONSES = answers(201, BATCH) | answers(200, CHECK)


class Record(BaseModel):
    """A rejected record of the batch, and its cells as they should be, in the order of the file's columns."""

    model_config = ConfigDict(extra="forbid")

    record_no: int = Field(ge=1, lt=2**31)
    cells: list[str] = Field(min_length=1, max_length=5000)


class Records(BaseModel):
    """Mended records."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"records": [{"record_no": 17, "cells": ["K10017", "a@example.com", "Adams"]}]}
        },
    )

    records: list[Record] = Field(min_length=1, max_length=MAX_RECORDS)


@router.post("/mended", status_code=201, responses=RESPONSES, openapi_extra=described(Records))
async def mended(
    request: Request,
    desk: DeskDep,
    batch: MendBatch,
    connection: ConnectionDep,
    told: Annotated[Records, Depends(body(Records, MAX_BYTES))],
    check: Annotated[
        bool, Query(description="only say what would become of them (200); nothing is kept")
    ] = False,
    idempotency_key: Annotated[str | None, Depends(optional_key)] = None,
) -> JSONResponse:
    """Send rejected records again, mended: a waiting batch with the same template version, domain, origins and lists.

    Both batches name each other. With ``check=true`` they are judged by the same suite instead, and every record is told
    by its number in this batch.
    """
    records = [Mended(one.record_no, tuple(one.cells)) for one in told.records]
    if check:
        return JSONResponse(jsonable_encoder(await _check(request, desk, connection, batch, records)))
    through = "page" if request.headers.get(OWN_HEADER) == "page" else "api"
    key = idempotency_key and RequestKey(
        user_of(request).name,
        idempotency_key,
        hashlib.sha256(repr((batch.seqno, records)).encode()).hexdigest(),
    )
    child = await run_sync(
        _send, desk, connection, batch, records, user_of(request).name, through, key or None
    )
    message = (
        f"{len(records):,} mended record{'s' * (len(records) != 1)} went into import batch {child.seqno}."
    )
    shown = batch_view.shown(child, personal=True) | {"message": message}
    headers = {"Location": f"{root(request)}/api/v1/batches/{child.seqno}", "ETag": batch_view.etag(child)}
    return JSONResponse(jsonable_encoder(shown), 201, headers)


def _send(
    desk: Desk,
    connection: Connection,
    batch: Batch,
    records: list[Mended],
    by: str,
    through: str,
    key: RequestKey | None,
) -> Batch:
    template = template_of(connection, batch)
    content = mending.file_of(records, template, mending.columns(batch, template, desk.settings))
    child = mending.send(
        connection, desk.settings, batch, template, records, content, by=by, through=through, key=key
    )
    return batches.get(connection, child)


async def _check(
    request: Request, desk: Desk, connection: Connection, batch: Batch, records: list[Mended]
) -> dict[str, Any]:
    async with checks.folder(desk) as folder:
        case = await run_sync(_case, desk, connection, batch, records, folder, user_of(request).name)
        judgement = await checks.judged(request, desk, case, checks.SECONDS)
    numbers = {place: record.record_no for place, record in enumerate(records, 1)}
    return vars(judgement) | {
        "records": [record | {"record_no": numbers[record["record_no"]]} for record in judgement.records]
    }


def _case(
    desk: Desk, connection: Connection, batch: Batch, records: list[Mended], folder: Any, by: str
) -> Case:
    mending.check(connection, batch, records)
    template = template_of(connection, batch)
    path = folder / "mended.csv"
    path.write_bytes(mending.file_of(records, template, mending.columns(batch, template, desk.settings)))
    about = batch_view.about(connection, batch)
    return Case(
        connection.url, str(folder), str(path), template.name, template.source, batch.suite_hash, batch.domain, by,
        tuple(about["origins"]), tuple(about["subscriptions"]), first=len(records),
        cells=False,
    )  # fmt: skip
