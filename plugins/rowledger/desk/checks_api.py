"""Checks for programs: the raw bytes of a file, or of its beginning, and what an import of them would do. Nothing is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

from rowledger import batches
from rowledger.desk import checks, upload_api
from rowledger.desk.access import Needs, NeedsKind, Right, has, user_of
from rowledger.desk.context import Desk, DeskDep
from rowledger.desk.examples import CHECK, answers
from rowledger.desk.problems import Refused
from rowledger.desk.upload_api import Asked, chosen
from rowledger.judges import Case, Judgement
from rowledger.uploads import Part, Upload

router = APIRouter(prefix="/checks", tags=["checks"])
PART_BYTES = 1_000_000
MAX_FIRST = 500


@dataclass(frozen=True)
class Asking:
    """What is to be checked: with which choices, whether it is but the beginning of a file, how many records are told.

    ``sha256`` is that of the whole file, if the caller knows it.
    """

    choices: Asked
    part: bool
    first: int
    sha256: str | None


@dataclass(frozen=True)
class Checked:
    """The judgement, and the batch that the same bytes are already, with the same template and domain."""

    judgement: Judgement
    bytes: int
    uploaded_before: int | None


def asking(
    request: Request,
    desk: DeskDep,
    kind: Annotated[str, Depends(NeedsKind(Right.WRITE))],  # the right stands before any other fault
    choices: Annotated[Asked, Depends(chosen)],
    part: Annotated[
        bool,
        Query(
            description=f"this is only the beginning of a file, {PART_BYTES:,} bytes at most; a last record that may be cut off is left out"
        ),
    ] = False,
    first: Annotated[int, Query(ge=0, le=MAX_FIRST, description="how many records are told one by one")] = 0,
    x_content_sha256: Annotated[
        str | None, Header(description="the SHA-256 of the whole file in hex, if you know it")
    ] = None,
) -> Asking:
    """The query and the headers of a check. Raises Refused or UnknownCode."""
    upload_api.check_headers(request, _limit(desk, part))
    return Asking(choices, part, first, upload_api.digest(x_content_sha256))


def _limit(desk: Desk, part: bool) -> int:
    return PART_BYTES if part else desk.settings.max_upload_bytes


@router.post(
    "",
    dependencies=[Depends(Needs(Right.WRITE))],
    responses=answers(200, CHECK),
    openapi_extra=upload_api.RAW_BYTES,
)
async def check(request: Request, desk: DeskDep, query: Annotated[Asking, Depends(asking)]) -> JSONResponse:
    """Say what an import of a file would do today: counts, the commonest reasons, the first records. Nothing is kept.

    Without the right on personal data, values, messages and cells are left out. A check may take five minutes, one of the
    beginning of a file one.
    """
    found = await checked(request, desk, query)
    told = checks.told(found.judgement, has(request, Right.PERSONAL, query.choices.kind))
    more = {"file_bytes": found.bytes, "complete": not query.part, "uploaded_before": found.uploaded_before}
    return JSONResponse(jsonable_encoder(told | more))


async def checked(request: Request, desk: Desk, query: Asking) -> Checked:
    """Receive the body and have it judged; only then it is decided what of it is shown. Raises Refused or NotJudged."""
    choices = query.choices
    if upload_api.arriving.locked():
        raise Refused(
            503, "Too many files arrive at the moment. Try again in a moment.", {"Retry-After": "5"}
        )
    url = await run_sync(_choose, desk, choices)
    async with checks.folder(desk) as folder:
        async with upload_api.arriving:
            upload = await _receive(request, desk, folder, query)
        before = await run_sync(
            _uploaded_before, desk, choices, query.sha256 if query.part else upload.sha256
        )
        case = Case(
            url, str(folder), upload.address, choices.template.name, choices.template.source,
            await run_sync(desk.suites.suite_hash, choices.template), choices.domain, user_of(request).name,
            choices.origins, choices.subscriptions, first=query.first, part=query.part,
        )  # fmt: skip
        seconds = checks.SECONDS if query.part else checks.FILE_SECONDS
        return Checked(await checks.judged(request, desk, case, seconds), upload.bytes, before)


def _choose(desk: Desk, choices: Asked) -> str:
    """Where the database is, once it has agreed to the choices. Raises UnknownCode."""
    with desk.connections.one() as connection:
        batches.check_choices(
            connection, choices.template, choices.domain, choices.origins, choices.subscriptions
        )
        return connection.url


def _uploaded_before(desk: Desk, choices: Asked, sha256: str | None) -> int | None:
    if sha256 is None:
        return None
    with desk.connections.one() as connection:
        return batches.uploaded_before(connection, sha256, choices.template, choices.domain)


async def _receive(request: Request, desk: Desk, folder: Path, query: Asking) -> Upload:
    part = await run_sync(Part, folder)
    try:
        await upload_api.receive(request, part, _limit(desk, query.part))
        if not query.part and query.sha256 not in (None, part.sha256):
            raise upload_api.changed(part.sha256, query.sha256)
        return await run_sync(part.keep, query.choices.file_name)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(part.__exit__)
