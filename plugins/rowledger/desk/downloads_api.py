"""Downloads, for people who may see personal data: rejects to mend, all outcomes, the original file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from rowledger import batches, layouts, ledger, uploads
from rowledger.desk.access import BatchWith, Right
from rowledger.desk.answers import Streamed, attachment
from rowledger.desk.context import ConnectionDep, DeskDep
from rowledger.desk.examples import OUTCOMES, REJECTS, answers
from rowledger.desk.problems import Refused
from rowledger.desk.shelf import template_of
from rowledger.errors import FileError
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate

router = APIRouter(prefix="/batches/{seqno}", tags=["downloads"])
_NOT_KEPT = "The original file is not kept any more."
PersonalBatch = Annotated[Batch, Depends(BatchWith(Right.PERSONAL))]


@router.get("/rejects.csv", responses=answers(200, REJECTS, "text/csv"), response_class=Response)
def rejects(batch: PersonalBatch, desk: DeskDep, connection: ConnectionDep) -> Response:
    """The rejected records in the layout of their file, with a column of reasons: to be mended and uploaded again."""
    batches.refuse_removed_cells(connection, batch.seqno)
    template = template_of(connection, batch)
    header = _header(batch, template, desk.settings)
    lines = ledger.rejects_as_csv(connection, batch, template, header)
    encoding = template.file.encoding
    return Streamed(
        lines, f"text/csv; charset={encoding}", f"rejects_{batch.seqno}_{batch.file_name}", encoding
    )


@router.get("/outcomes.csv", responses=answers(200, OUTCOMES, "text/csv"), response_class=Response)
def outcomes(batch: PersonalBatch, connection: ConnectionDep) -> Response:
    """What became of every record, as CSV."""
    batches.refuse_removed_records(connection, batch.seqno)
    lines = ledger.as_csv(ledger.records(connection, batch.seqno))
    return Streamed(lines, "text/csv; charset=utf-8", f"outcomes_{batch.seqno}_{batch.file_name}")


@router.get(
    "/file",
    responses=answers(200, "Customer number,Email\r\n", "application/octet-stream"),
    response_class=Response,
)
def original(batch: PersonalBatch, desk: DeskDep, connection: ConnectionDep) -> Response:
    """The file as it was uploaded, byte for byte."""
    if "file" in batches.removed(connection, batch.seqno):  # though another batch may need the same bytes
        raise Refused(404, _NOT_KEPT)
    kept = contextlib.ExitStack()
    path = kept.enter_context(_kept(batch, desk.settings))
    headers = {"Content-Disposition": attachment(batch.file_name)}
    return _Kept(kept, path, media_type="application/octet-stream", headers=headers)


class _Kept(FileResponse):
    """A file that may be a copy, which goes when the answer ends, or the client does."""

    def __init__(self, kept: contextlib.ExitStack, path: Path, **options: Any) -> None:
        self._kept = kept
        super().__init__(path, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._kept.close()


def _header(batch: Batch, template: ImportTemplate, settings: Settings) -> tuple[str, ...]:
    if not template.file.header:
        return ()
    with _kept(batch, settings) as path:
        return layouts.header_of(path, template, settings.scratch)


@contextlib.contextmanager
def _kept(batch: Batch, settings: Settings) -> Iterator[Path]:
    """The file as one of this machine, for as long as it is used. Raises Refused if it is not kept any more."""
    fetched = uploads.fetched(batch.file_path, batch.file_sha256, settings.uploads, settings.scratch)
    with contextlib.ExitStack() as copies:
        try:
            path = copies.enter_context(fetched)
        except FileError:
            path = None
        if path is None or not path.is_file():
            raise Refused(404, _NOT_KEPT)
        yield path
