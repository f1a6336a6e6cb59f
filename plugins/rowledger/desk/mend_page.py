"""Mend here: the cells of rejected records as fields, a page of records at a time; what is mended goes through the API."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from rowledger import batches, mending
from rowledger.desk import mend_api, pages
from rowledger.desk.context import ConnectionDep, DeskDep
from rowledger.desk.shelf import template_of
from rowledger.mending import Columns
from rowledger.templates import ImportTemplate

router = APIRouter(prefix="/batches/{seqno}/mend")
Word = Annotated[str, Query(max_length=255, pattern=r"^[^\x00]*$")]
RECORDS_A_PAGE = 20


@dataclass(frozen=True)
class Field:
    """One cell to be mended: its place, its column, what stands in it, and why it is wrong."""

    place: int
    name: str
    value: str
    reasons: list[str]
    multiline: bool


@dataclass(frozen=True)
class Record:
    """One rejected record: its fields, what is wrong with it as a whole, and its text if it could not be cut into cells."""

    record_no: int
    fields: list[Field]
    reasons: list[str]
    text: str | None
    lacking: int
    more: int


@router.get("")
def mend(
    request: Request,
    batch: mend_api.MendBatch,
    desk: DeskDep,
    connection: ConnectionDep,
    rule: Word = "",
    column: Word = "",
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> Response:
    """A page of rejected records that were not sent again, or the part of it with the records."""
    part = "mend_records.html" if pages.is_part(request) else "mend.html"
    records: list[Record] = []
    found: list[dict[str, Any]] = []
    template = template_of(connection, batch)
    if batch.status.terminal:
        batches.refuse_removed_cells(connection, batch.seqno)
        found = mending.page(
            connection, batch, after=after, limit=RECORDS_A_PAGE, rule=rule or None, column=column or None
        )
    if found:
        columns = mending.columns(batch, template, desk.settings)
        records = [_record(one, columns, template) for one in found[:RECORDS_A_PAGE] if one["raw"]]
    if desk.judge:
        desk.judge.warm()
    sent = mending.sent(connection, batch)
    left = mending.total(connection, batch) - sum(one["records"] for one in sent)
    return pages.page(
        request, part, batch=batch, records=records, sent=sent, left=left, after=after, rule=rule, column=column,
        next=found[RECORDS_A_PAGE - 1]["record_no"] if len(found) > RECORDS_A_PAGE else None,
        without_cells=sum(not one["raw"] for one in found[:RECORDS_A_PAGE]), delimiter=template.file.delimiter,
    )  # fmt: skip


def _record(found: dict[str, Any], columns: Columns, template: ImportTemplate) -> Record:
    cells, text = columns.of(found["raw"]), None
    if any(reason["rule"] == "bad_quoting" for reason in found["reasons"]) and len(found["raw"]) == 1:
        text = found["raw"][0]
        cells = _as_it_was_meant(text, template)
    width = len(columns.names)
    lacking, more = max(0, width - len(cells)), max(0, len(cells) - width)
    cells += [""] * lacking
    names = [*columns.names, *(f"Field {place + 1}" for place in range(width, len(cells)))]
    at: dict[str, list[str]] = {}
    for reason in found["reasons"]:
        known = reason["column"] if reason["column"] in columns.names else ""
        at.setdefault(known, []).append(reason["message"])
    fields = [
        Field(place, name, value, at.get(name, []), place in columns.multiline or "\n" in value)
        for place, (name, value) in enumerate(zip(names, cells, strict=True))
    ]
    return Record(found["record_no"], fields, at.get("", []), text, lacking, more)


def _as_it_was_meant(text: str, template: ImportTemplate) -> list[str]:
    """A proposal for a record whose quotes are not in pairs: the cells that a patient reader makes of it."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=template.file.delimiter, quotechar=template.file.quote
    )
    try:
        return next(reader, [text])
    except csv.Error:
        return [text]
