"""The ledger of a batch for programs: every record, and why records were not loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response

from rowledger import batches, ledger
from rowledger.desk import batch_view
from rowledger.desk.access import BatchWith, Right, has
from rowledger.desk.answers import Streamed, as_json_lines
from rowledger.desk.context import ConnectionDep
from rowledger.desk.examples import REASONS, RECORD, answers
from rowledger.model import Batch, Outcome

router = APIRouter(prefix="/batches/{seqno}", tags=["records"])
ReadBatch = Annotated[Batch, Depends(BatchWith(Right.READ))]
Word = Annotated[
    str | None, Query(max_length=255, pattern=r"^[^\x00]*$", description="only with such a reason")
]
Outcomes = Annotated[list[Outcome] | None, Query(max_length=8, description="only these outcomes")]


@router.get("/records", responses=answers(200, RECORD, "application/jsonl"), response_class=Response)
def records(
    request: Request,
    batch: ReadBatch,
    connection: ConnectionDep,
    outcome: Outcomes = None,
    record: Annotated[int | None, Query(ge=1, lt=2**31, description="only the record of this number")] = None,
    rule: Word = None,
    column: Word = None,
    rolled_back: Annotated[
        Literal["restored", "spared"] | None,
        Query(description="only what the roll back has restored or spared"),
    ] = None,
    after: Annotated[int, Query(ge=0, lt=2**31, description="only records after this number")] = 0,
    format: Annotated[Literal["jsonl", "csv"], Query(description="JSON lines or CSV")] = "jsonl",
) -> Response:
    """What became of every record, in the order of the file; streamed, whatever its size.

    Without the right on personal data, what stands in the file is left out: values, messages, cells.
    """
    batches.refuse_removed_records(connection, batch.seqno)
    personal = has(request, Right.PERSONAL, batch.kind)
    chosen = [str(one) for one in outcome] if outcome else None
    asked = ledger.records(connection, batch.seqno, chosen, record, rolled_back, rule, column, after)
    found = asked if personal else _without_personal_data(asked)
    if format == "csv":
        return Streamed(ledger.as_csv(found), "text/csv; charset=utf-8", f"import_batch_{batch.seqno}.csv")
    return Streamed(as_json_lines(found), "application/jsonl")


def _without_personal_data(records: Generator[dict[str, Any]]) -> Generator[dict[str, Any]]:
    with contextlib.closing(records) as found:
        for record in found:
            yield batch_view.without_personal_data(record)


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
