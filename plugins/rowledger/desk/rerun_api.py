"""Only what failed once more: the rejected records of a batch, as they were or from a mended file, as its child."""

from __future__ import annotations

from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse

from rowledger import batches, reruns
from rowledger.db import Connection
from rowledger.desk import upload_api
from rowledger.desk.access import Needs, Right, user_of
from rowledger.desk.context import ConnectionDep, Desk, DeskDep
from rowledger.desk.control_api import SeenBatch, Version, version_of
from rowledger.desk.examples import BATCH, answers
from rowledger.desk.problems import Refused
from rowledger.desk.upload_api import made
from rowledger.model import Batch
from rowledger.uploads import Part

router = APIRouter(prefix="/batches/{seqno}", tags=["control"])


def mended(request: Request, desk: DeskDep, batch: SeenBatch) -> bool:
    """Whether a file comes with the request. Raises Refused if it is none that can be taken."""
    announced = {"content-type", "transfer-encoding"} & set(request.headers.keys())
    if not announced and request.headers.get("Content-Length", "0") == "0":
        return False
    upload_api.check_headers(request, desk.settings.max_upload_bytes)
    return True


@router.post(
    "/rerun",
    status_code=201,
    dependencies=[Depends(Needs(Right.WRITE))],
    responses=answers(201, BATCH | {"seqno": 44, "parent_seqno": 42, "status": "waiting", "state": "waiting"}),
    openapi_extra={"requestBody": {"content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}}}},
)  # fmt: skip
async def rerun(
    request: Request,
    desk: DeskDep,
    batch: SeenBatch,
    with_file: Annotated[bool, Depends(mended)],
    connection: ConnectionDep,
    key: Annotated[str | None, Depends(upload_api.optional_key)],
    template: Annotated[Version, Query(description="as it was at the upload, or as it is now")] = "old",
    file_name: Annotated[
        str, Query(max_length=255, pattern=r"^[^\x00]*$", description="what the mended file is called")
    ] = "",
    x_content_sha256: Annotated[
        str | None, Header(description="the SHA-256 of the mended file in hex, if you know it")
    ] = None,
) -> JSONResponse:
    """Take the rejected records of a batch that has ended once more, as a batch of its own; both name each other.

    The body is the mended file, in the layout of rejects.csv. Without a body they are taken as they were: what they
    lacked, such as a contract, may be there by now. The same Idempotency-Key again gives the same batch again.
    """
    by, said = user_of(request).name, upload_api.digest(x_content_sha256)
    if not with_file:
        return made(request, await run_sync(_rerun, desk, connection, batch, template, None, "", by, key))
    if upload_api.arriving.locked():
        raise Refused(
            503, "Too many uploads arrive at the moment. Try again in a moment.", {"Retry-After": "5"}
        )
    part = await run_sync(Part, desk.settings.uploads)
    try:
        async with upload_api.arriving:
            await upload_api.receive(request, part, desk.settings.max_upload_bytes)
        if said not in (None, part.sha256):
            raise upload_api.changed(part.sha256, said)
        name = file_name or batch.file_name
        return made(request, await run_sync(_rerun, desk, connection, batch, template, part, name, by, key))
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(part.__exit__)


def _rerun(
    desk: Desk,
    connection: Connection,
    batch: Batch,
    version: Version,
    part: Part | None,
    name: str,
    by: str,
    key: str | None,
) -> Batch:
    template, suite_hash = version_of(desk, connection, batch, version)
    sent = (batch.seqno, version, part.sha256 if part else None, name)
    with upload_api.request_key(connection, by, key, "rerun", *sent) as named:
        kept = part.keep(name) if part else None
        new = reruns.rerun(
            connection, desk.settings, batch, template, suite_hash, kept, by=by, through="api", key=named
        )
    return batches.get(connection, new)
