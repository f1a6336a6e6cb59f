"""The tab *Import records* on the engine's own pages of runs and tasks: what became of the batches of a run.

The tab is a sandbox without scripts, in which no link and no form takes the session along: whatever there is to read
stands on the one page, which loads nothing.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from rowledger.db import Connection
from rowledger.desk import batch_list, batch_view, pages
from rowledger.desk.access import Needs, Right, has, lacking
from rowledger.desk.context import ConnectionDep, DeskDep
from rowledger.desk.problems import TAB
from rowledger.model import Batch

router = APIRouter()
BATCHES_SHOWN = 50
RECORDS_SHOWN = 100
Word = Annotated[str, Query(max_length=1000, pattern=r"^[^\x00]*$")]


@router.get(TAB)
def of_run(
    request: Request,
    desk: DeskDep,
    connection: ConnectionDep,
    readable: Annotated[list[str], Depends(Needs(Right.READ))],
    dag_id: Word = "",
    run_id: Word = "",
    map_index: Word = "",
) -> Response:
    """The batches of a run, or the one of a mapped task; a task that is not mapped has no number for its index."""
    kind = desk.engine.kind_of(dag_id) if desk.engine else None
    if kind is not None and kind not in readable:
        raise lacking(Right.READ)
    seqnos = batch_view.of_run(connection, desk.engine, kind, run_id) if kind and run_id else []
    if map_index.isascii() and map_index.isdigit() and len(map_index) < 10:
        seqnos = seqnos[int(map_index) : int(map_index) + 1]
    seqnos = list(dict.fromkeys(seqnos))  # one that is worked in parts has several tasks
    found = {batch.seqno: batch for batch in batch_list.some(connection, seqnos[:BATCHES_SHOWN], readable)}
    personal = kind is not None and has(request, Right.PERSONAL, kind)
    shown = [_shown(connection, found[seqno], len(seqnos) == 1) for seqno in seqnos if seqno in found]
    return pages.page(
        request, "of_run.html", dag_id=dag_id, kind=kind, shown=shown, more=len(seqnos) - len(shown),
        personal=personal, share=batch_view.share, records_shown=RECORDS_SHOWN,
    )  # fmt: skip


def _shown(connection: Connection, batch: Batch, alone: bool) -> dict[str, Any]:
    """A batch with why its records were not loaded; one that stands alone with its first records."""
    records = batch_view.records(connection, batch, limit=RECORDS_SHOWN) if alone else []
    return {
        "batch": batch,
        "reasons": batch_view.reasons(connection, batch),
        "records": records[:RECORDS_SHOWN],
        "more_records": len(records) > RECORDS_SHOWN,
    }
