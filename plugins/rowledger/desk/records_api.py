"""The ledger of a batch for programs: every record, and why records were not loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response

from rowledger import ledger
from rowledger.db import Connection
from rowledger.desk import batch_view
from rowledger.desk.access import BatchWith, Right, has
from rowledger.desk.answers import Streamed, as_json_lines
from rowledger.desk.context import ConnectionDep
from rowledger.desk.examples import REASONS, RECORD, answers
from rowledger.model import Batch, Outcome

router = APIRouter(prefix="/batches/{seqno}", tags=["records"])
ReadBatch = Annotated[Batch, Depends(BatchWith(Right.READ))]
Outcomes = Annotated[list[Outcome] | None, Query(max_length=8, description="only these outcomes")]


@router.get("/records", responses=answers(200, RECORD, "application/jsonl"), response_class=Response)
def records(
    request: Request,
    batch: ReadBatch,
    connection: ConnectionDep,
    outcome: Outcomes = None,
    format: Annotated[Literal["jsonl", "csv"], Query(description="JSON lines or CSV")] = "jsonl",
) -> Response:
    """What became of every record, in the order of the file; streamed, whatever its size.

    Without the right on personal data, what stands in the file is left out: values, messages, cells.
    """
    personal = has(request, Right.PERSONAL, batch.kind)
    found = _records(connection, batch, outcome, personal)
    if format == "csv":
        return Streamed(ledger.as_csv(found), "text/csv; charset=utf-8", f"import_batch_{batch.seqno}.csv")
    return Streamed(as_json_lines(found), "application/jsonl")


def _records(
    connection: Connection, batch: Batch, outcomes: list[Outcome] | None, personal: bool
) -> Generator[dict[str, Any]]:
    chosen = [str(outcome) for outcome in outcomes] if outcomes else None
    with contextlib.closing(ledger.records(connection, batch.seqno, chosen)) as found:
        for record in found:
            yield record if personal else batch_view.without_personal_data(record)


@router.get("/errors", responses=answers(200, REASONS))
def errors(request: Request, batch: ReadBatch, connection: ConnectionDep) -> JSONResponse:
    """Why records were not loaded: by outcome, rule and column, with counts, shares, and three examples each.

    While the batch is at work, only its first records are looked at: ``complete`` is false.
    """
    personal = has(request, Right.PERSONAL, batch.kind)
    found = [
        {name: value for name, value in reason.items() if personal or name != "examples"}
        | {"share": batch_view.share(reason["records"], batch)}
        for reason in batch_view.reasons(connection, batch)
    ]
    body = {"records_in_file": batch.records_in_file, "complete": batch.status.terminal, "reasons": found}
    return JSONResponse(jsonable_encoder(body))
