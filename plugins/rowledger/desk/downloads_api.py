"""Downloads, for people who may see personal data: rejects to mend, all outcomes, the original file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse, Response

from rowledger import batches, layouts, ledger
from rowledger.desk.access import BatchWith, Right
from rowledger.desk.answers import Streamed, attachment
from rowledger.desk.context import ConnectionDep, DeskDep
from rowledger.desk.problems import Refused
from rowledger.desk.shelf import template_of
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate

router = APIRouter(prefix="/batches/{seqno}", tags=["downloads"])
_NOT_KEPT = "The original file is not kept any more."
PersonalBatch = Annotated[Batch, Depends(BatchWith(Right.PERSONAL))]


@router.get("/rejects.csv", response_class=Response)
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


@router.get("/outcomes.csv", response_class=Response)
def outcomes(batch: PersonalBatch, connection: ConnectionDep) -> Response:
    """What became of every record, as CSV."""
    lines = ledger.as_csv(ledger.records(connection, batch.seqno))
    return Streamed(lines, "text/csv; charset=utf-8", f"outcomes_{batch.seqno}_{batch.file_name}")


@router.get("/file", response_class=Response)
def original(batch: PersonalBatch, connection: ConnectionDep) -> Response:
    """The file as it was uploaded, byte for byte."""
    if "file" in batches.removed(connection, batch.seqno):  # though another batch may need the same bytes
        raise Refused(404, _NOT_KEPT)
    path = _kept(batch)
    headers = {"Content-Disposition": attachment(batch.file_name)}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


def _header(batch: Batch, template: ImportTemplate, settings: Settings) -> tuple[str, ...]:
    return layouts.header_of(_kept(batch), template, settings.scratch) if template.file.header else ()


def _kept(batch: Batch) -> Path:
    path = Path(batch.file_path)
    if not path.is_file():
        raise Refused(404, _NOT_KEPT)
    return path
