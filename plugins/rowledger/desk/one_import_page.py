"""The page of one import: what came, what went in, what did not and why, what can be done now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from rowledger import batches, parked
from rowledger.db import Connection, transaction
from rowledger.desk import batch_view, pages
from rowledger.desk.access import BatchWith, Right, has
from rowledger.desk.context import ConnectionDep, DeskDep, desk_of
from rowledger.desk.pages import root
from rowledger.desk.shelf import template_of
from rowledger.model import Batch, Outcome

router = APIRouter(prefix="/batches/{seqno}")
ReadBatch = Annotated[Batch, Depends(BatchWith(Right.READ))]
Word = Annotated[str, Query(max_length=255, pattern=r"^[^\x00]*$")]
RECORDS_A_PAGE = 50
TABS = (
    ("records", "Import records"),
    ("errors", "Errors"),
    ("expectations", "Expectations"),
    ("activity", "Activity"),
)


@router.get("")
def one_import(request: Request, batch: ReadBatch, connection: ConnectionDep) -> Response:
    """The page, with the tab that people want to see first."""
    wrong = batch.counts[Outcome.REJECTED] or batch.failed
    first = "errors" if wrong and batch.status.terminal else "records"
    return pages.page(request, "one_import.html", tabs=TABS, first=first, **_head(request, connection, batch))


@router.get("/head")
def head(
    request: Request,
    batch: ReadBatch,
    connection: ConnectionDep,
    seen: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """What changes while a batch is worked on; nothing if nothing has."""
    shown = _head(request, connection, batch)
    if seen == shown["shown"] and batch.status.terminal:
        return pages.unchanged()
    return pages.page(request, "one_import_head.html", **shown)


@router.get("/records")
def records(
    request: Request,
    batch: ReadBatch,
    connection: ConnectionDep,
    outcome: Annotated[Word, Query(pattern="^[a-z]*$")] = "",
    rule: Word = "",
    column: Word = "",
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> Response:
    """A page of the ledger."""
    with transaction(connection) as cursor:
        not_kept = batches.records_not_kept(cursor, batch.seqno)
    found = batch_view.records(
        connection, batch, outcome=outcome or None, rule=rule or None, column=column or None,
        after=after, limit=RECORDS_A_PAGE,
    )  # fmt: skip
    more = len(found) > RECORDS_A_PAGE
    return pages.page(
        request, "tab_records.html", batch=batch, records=found[:RECORDS_A_PAGE], more=more, after=after, not_kept=not_kept,
        outcome=outcome, rule=rule, column=column, personal=has(request, Right.PERSONAL, batch.kind),
    )  # fmt: skip


@router.get("/errors")
def errors(request: Request, batch: ReadBatch, connection: ConnectionDep) -> Response:
    """Why records were not loaded, as a chart and a table."""
    with transaction(connection) as cursor:
        kept = batches.records_not_kept(cursor, batch.seqno) is None
    found = batch_view.reasons(connection, batch)
    return pages.page(
        request, "tab_errors.html", batch=batch, reasons=found, share=batch_view.share,
        most=max((reason["records"] for reason in found), default=0), looked_at=batch_view.LOOKED_AT,
        personal=has(request, Right.PERSONAL, batch.kind),
        may_mend=kept and batch.status.terminal and all(has(request, r, batch.kind) for r in (Right.PERSONAL, Right.WRITE)),
    )  # fmt: skip


@router.get("/expectations")
def expectations(request: Request, batch: ReadBatch, desk: DeskDep, connection: ConnectionDep) -> Response:
    """The suite that judged the batch, and what did not meet it."""
    template = template_of(connection, batch)
    names = [batch.columns.get(column.field or "", column.name) for column in template.columns]
    told = batch_view.expectations(desk.suites.derive(template), names, batch_view.reasons(connection, batch))
    return pages.page(request, "tab_expectations.html", batch=batch, expectations=told)


@router.get("/activity")
def activity(request: Request, batch: ReadBatch, connection: ConnectionDep) -> Response:
    """Who did what when, and the pages of the engine that worked on the batch."""
    found = batch_view.events(connection, batch, has(request, Right.PERSONAL, batch.kind))
    return pages.page(
        request, "tab_activity.html", batch=batch, events=found, links=_links(request, connection, batch)
    )


def _head(request: Request, connection: Connection, batch: Batch) -> dict[str, Any]:
    about = batch_view.about(connection, batch)
    engine = desk_of(request).engine
    became = (
        parked.became(connection, batch.seqno)
        if batch.status.terminal and batch.counts[Outcome.PARKED]
        else {}
    )
    return {
        "became": parked.in_words(became) if became else None, "waiting": parked.waiting(became),
        # What becomes of parked records changes nothing of the batch.
        "shown": f"{batch_view.version(batch)}-{parked.waiting(became)}",
        "batch": batch, "about": about, "steps": batch_view.timeline(batch),
        "progress": batch_view.progress(batch, about["now"]),
        "personal": has(request, Right.PERSONAL, batch.kind), "may_write": has(request, Right.WRITE, batch.kind),
        "schedule": engine.schedule(batch.kind) if engine and batch.status == "waiting" else None,
        "can_run": engine is not None,
    }  # fmt: skip


def _links(request: Request, connection: Connection, batch: Batch) -> list[tuple[str, str]]:
    """Title and address of the pages of the engine; its addresses begin where the app's prefix does."""
    engine = desk_of(request).engine
    if engine is None or batch.run_id is None:
        return []
    before = root(request).removesuffix("/imports")
    links = [("Run", engine.run_path(batch.kind, batch.run_id))]
    seqnos = batch_view.of_run(connection, engine, batch.kind, batch.run_id)
    if batch.seqno in seqnos:
        index = seqnos.index(batch.seqno)
        links += [(f"Task {task}, with its log", engine.task_path(batch.kind, batch.run_id, task, index))
                  for task in ("validate", "load", "close")]  # fmt: skip
    return [(title, before + path) for title, path in links]
