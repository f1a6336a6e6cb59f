"""Uploads: the raw bytes of a file as a stream, never a form. Refused before the first byte is read, or kept whole.

A block is hashed and written while the next one arrives. Whatever goes wrong on the way leaves neither a file nor a
batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from rowledger import batches
from rowledger.batches import RequestKey
from rowledger.db import Connection, queries, row, transaction
from rowledger.desk import batch_view
from rowledger.desk.access import OWN_HEADER, Needs, NeedsKind, Right, has, user_of
from rowledger.desk.context import Desk, DeskDep
from rowledger.desk.examples import BATCH, answers
from rowledger.desk.pages import root
from rowledger.desk.problems import Refused
from rowledger.errors import FileError
from rowledger.model import Batch
from rowledger.templates import ImportTemplate
from rowledger.text_in import refuse_binary
from rowledger.uploads import BLOCK_BYTES, Part, Upload

_SQL = queries("desk")
router = APIRouter(prefix="/batches", tags=["batches"])

IDLE_SECONDS = 30.0  # without a byte
TOTAL_SECONDS = 3600.0
AT_ONCE = 16  # uploads that may arrive at the same time; each holds a connection
TYPES = ("text/csv", "text/plain", "text/tab-separated-values", "application/csv", "application/octet-stream",
         "application/vnd.ms-excel")  # the last is what some browsers take a .csv for  # fmt: skip
RAW_BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_KEY = re.compile(r"[!-~]{1,255}\Z")
arriving = asyncio.Semaphore(AT_ONCE)


@dataclass(frozen=True)
class Asked:
    """What the query of an upload says."""

    template: ImportTemplate
    kind: str
    domain: str
    file_name: str
    origins: tuple[str, ...]
    subscriptions: tuple[str, ...]
    again: bool

    def fingerprint(self, sha256: str) -> str:
        """Stands for everything that was sent."""
        said = (
            self.template.name,
            self.kind,
            self.domain,
            self.file_name,
            self.origins,
            self.subscriptions,
            self.again,
        )
        return hashlib.sha256(repr((sha256, *said)).encode()).hexdigest()


Code = Annotated[str, Query(min_length=1, max_length=255)]
Codes = Annotated[list[Annotated[str, Query(max_length=64)]], Query(max_length=100)]


def chosen(
    desk: DeskDep,
    kind: Annotated[str, Depends(NeedsKind(Right.WRITE))],
    domain: Annotated[Code, Query(description="the code of the domain")],
    template: Annotated[Code, Query(description="the name of an import template of that kind")],
    file_name: Annotated[Code, Query(description="what the file is called in lists")],
    origin: Annotated[Codes, Query(description="origins for every contact of the file")] = [],  # noqa: B006 - FastAPI copies it
    subscription: Annotated[Codes, Query(description="lists that every contact is opted in to")] = [],  # noqa: B006
) -> Asked:
    """What a file is to be imported with, checked as far as it can be without the file. Raises UnknownCode."""
    found = desk.shelf.find(template, kind)
    if any("\0" in text for text in (domain, file_name, *origin, *subscription)):
        raise Refused(422, "A name with a NUL character in it is no name.")
    name = re.split(r"[/\\]", file_name)[-1] or file_name
    return Asked(
        found, kind, domain, name, tuple(sorted(set(origin))), tuple(sorted(set(subscription))), False
    )


def asked(
    choices: Annotated[Asked, Depends(chosen)],
    again: Annotated[bool, Query(description="take a file that was uploaded before once more")] = False,
) -> Asked:
    """The query of an upload."""
    return replace(choices, again=again)


@dataclass(frozen=True)
class Body:
    """What the headers of an upload announce."""

    key: str
    sha256: str | None


def announced(
    request: Request,
    desk: DeskDep,
    kind: Annotated[str, Depends(NeedsKind(Right.WRITE))],  # the right stands before any other fault
    idempotency_key: Annotated[
        str | None,
        Header(description="a name of your own for this upload: sent twice, it is still one batch"),
    ] = None,
    x_content_sha256: Annotated[
        str | None, Header(description="the SHA-256 of the file in hex, if you know it")
    ] = None,
) -> Body:
    """The headers of an upload, checked. Raises Refused."""
    check_headers(request, desk.settings.max_upload_bytes)
    return Body(checked_key(idempotency_key), digest(x_content_sha256))


def check_headers(request: Request, limit: int) -> None:
    """Refuse what is no file, or larger than ``limit`` bytes, before it is read."""
    if "Content-Encoding" in request.headers:
        raise Refused(415, "Send the file as it is: a Content-Encoding is not understood here.")
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in TYPES:
        raise Refused(
            415, "Send the raw bytes of the file as text/csv, not as a form and not as another type."
        )
    _check_length(request, limit)


def digest(said: str | None) -> str | None:
    """The SHA-256 that a header says. Raises Refused."""
    if said is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", said):
        raise Refused(400, "X-Content-SHA256 is the SHA-256 of the file in 64 hexadecimal digits.")
    return said.lower() if said else None


def checked_key(
    idempotency_key: Annotated[
        str | None,
        Header(description="a name of your own for this request: sent twice, it is still one batch"),
    ] = None,
) -> str:
    """The name that a program gives to what it sends. Raises Refused."""
    if not idempotency_key or not _KEY.match(idempotency_key):
        raise Refused(
            400,
            "An upload needs the header Idempotency-Key: 1 to 255 visible ASCII characters of your choice.",
        )
    return idempotency_key


def optional_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern="^[!-~]*$",
            description="a name of your own for this request: sent twice, it still makes one batch",
        ),
    ] = None,
) -> str | None:
    """The name that a program may give to a request, so that it can be repeated when its answer was lost."""
    return idempotency_key


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit():
        if int(length) > limit:
            raise _too_large(limit)
        if int(length) == 0:
            raise _empty()


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(Needs(Right.WRITE))],
    responses=answers(201, BATCH),
    openapi_extra=RAW_BYTES,
)
async def upload(
    request: Request,
    desk: DeskDep,
    query: Annotated[Asked, Depends(asked)],
    body: Annotated[Body, Depends(announced)],
) -> JSONResponse:
    """Upload a file: it becomes a waiting batch. The same Idempotency-Key again gives the same batch again."""
    user = user_of(request)
    if arriving.locked():
        raise Refused(
            503, "Too many uploads arrive at the moment. Try again in a moment.", {"Retry-After": "5"}
        )
    async with arriving, _with_key(desk, f"{user.name} {body.key}") as connection:
        await run_sync(
            batches.check_choices,
            connection,
            query.template,
            query.domain,
            query.origins,
            query.subscriptions,
        )
        part = await run_sync(Part, desk.settings.uploads)
        try:
            await receive(request, part, desk.settings.max_upload_bytes)
            through = "page" if request.headers.get(OWN_HEADER) == "page" else "api"
            batch = await run_sync(_register, desk, connection, part, query, body, user.name, through)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(part.__exit__)
    return made(request, batch)


def made(request: Request, batch: Batch) -> JSONResponse:
    """The answer to what has become a batch."""
    shown = batch_view.shown(batch, has(request, Right.PERSONAL, batch.kind))
    headers = {"Location": f"{root(request)}/api/v1/batches/{batch.seqno}", "ETag": batch_view.etag(batch)}
    return JSONResponse(jsonable_encoder(shown), 201, headers)


@contextlib.asynccontextmanager
async def _with_key(desk: Desk, key: str) -> AsyncIterator[Connection]:
    """A connection that holds the key as long as the upload runs; the database lets it go if this process dies."""
    with contextlib.ExitStack() as stack:
        connection = await run_sync(stack.enter_context, key_held(desk, key))
        try:
            yield connection
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(stack.close)


@contextlib.contextmanager
def key_held(desk: Desk, key: str) -> Iterator[Connection]:
    """A connection that holds the key, for as long as it is used. Raises Refused if somebody else has it."""
    with desk.connections.one() as connection, _held(connection, key):
        yield connection


@contextlib.contextmanager
def request_key(
    connection: Connection, by: str, key: str | None, *sent: object
) -> Iterator[RequestKey | None]:
    """What a request is called, held while it is carried out; ``sent`` is all that it says. Raises Refused."""
    if key is None:
        yield None
        return
    with _held(connection, f"{by} {key}"):
        yield RequestKey(by, key, hashlib.sha256(repr(sent).encode()).hexdigest())


@contextlib.contextmanager
def _held(connection: Connection, key: str) -> Iterator[None]:
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["lock_key"], {"key": key})
    if not (found and found["locked"]):
        raise Refused(
            409,
            "A request with this Idempotency-Key is still running; wait for it to end.",
            {"Retry-After": "1"},
        )
    try:
        yield
    finally:
        if not connection.closed:
            with transaction(connection) as cursor:
                cursor.execute(_SQL["unlock_key"], {"key": key})


async def receive(request: Request, part: Part, limit: int) -> None:
    """Write the body block by block, in a thread, while the next block arrives. Raises Refused."""
    block = bytearray()
    written: asyncio.Future[None] | None = None
    try:
        async with asyncio.timeout(TOTAL_SECONDS) as total:
            async for bytes_in in _in_time(request):
                block += bytes_in
                if part.bytes + len(block) > limit:
                    raise _too_large(limit)
                if len(block) >= BLOCK_BYTES:
                    await _done(written)
                    written = asyncio.ensure_future(asyncio.to_thread(_write, part, bytes(block)))
                    block.clear()
            await _done(written)
            written = None
            await asyncio.to_thread(_write, part, bytes(block))
    except TimeoutError:
        waited = TOTAL_SECONDS if total.expired() else IDLE_SECONDS
        raise Refused(
            408, f"The file did not arrive in time: nothing more came within {waited:.0f} seconds."
        ) from None
    except ClientDisconnect:
        raise Refused(400, "The file broke off before its end.") from None
    finally:
        with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
            await _done(written)
    if part.bytes == 0:
        raise _empty()


async def _in_time(request: Request) -> AsyncIterator[bytes]:
    parts = request.stream()
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                yield_now = await anext(parts)
        except StopAsyncIteration:
            return
        yield yield_now


async def _done(written: asyncio.Future[None] | None) -> None:
    if written is not None:
        await written


def _write(part: Part, block: bytes) -> None:
    if part.bytes == 0 and block:
        try:
            refuse_binary(block[:16])
        except FileError as error:
            raise Refused(415, str(error), rule=error.rule) from None
    part.write(block)


def _register(
    desk: Desk, connection: Connection, part: Part, query: Asked, body: Body, by: str, through: str
) -> Batch:
    if body.sha256 not in (None, part.sha256):
        raise changed(part.sha256, body.sha256)
    kept: Upload = part.keep(query.file_name)
    seqno = batches.register(
        connection, kept, query.template, desk.suites.suite_hash(query.template), query.domain, origins=query.origins,
        subscriptions=query.subscriptions, by=by, through=through, again=query.again,
        key=RequestKey(by, body.key, query.fingerprint(kept.sha256)),
    )  # fmt: skip
    return batches.get(connection, seqno)


def changed(arrived: str, said: str | None) -> Refused:
    """The bytes are not those that were sent."""
    return Refused(422, f"The file arrived changed: its SHA-256 is {arrived}, not {said}. Send it again.")


def _too_large(limit: int) -> Refused:
    return Refused(
        413, f"The file is larger than the {limit:,} bytes that are allowed; cut it into smaller files."
    )


def _empty() -> Refused:
    return Refused(422, "The file is empty.", rule="empty_file")
