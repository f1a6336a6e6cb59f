"""Contract statuses as JSON records, without a file: they become a batch like any other.

In: records whose values are texts. Out: a waiting batch whose file is a CSV of those very texts, in the layout of a
template, the built-in one unless another is named. What the values are worth is not judged here but by the suite, record
by record, so that one wrong record keeps none of the others out.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from rowledger import batches, uploads
from rowledger.batches import RequestKey
from rowledger.desk import bodies
from rowledger.desk.access import Needs, Right, user_of
from rowledger.desk.context import DeskDep
from rowledger.desk.examples import STATUS_BATCH, STATUS_RECORDS, answers
from rowledger.desk.problems import Refused
from rowledger.desk.upload_api import Asked, Code, checked_key, key_held, made
from rowledger.templates import ImportTemplate

KIND = "contract_status"
TEMPLATE = "contract_status_records"
MAX_BYTES = 5_000_000
MAX_RECORDS = 10_000
MAX_TOLD = 20  # faults in one answer
_NO_TEXT = re.compile("[\0\ud800-\udfff\ufdd0]")  # NUL, half a character, and what marks our own lines

router = APIRouter(tags=["batches"])
Writer = Depends(Needs(Right.WRITE, (KIND,)))


def asked(
    desk: DeskDep,
    kinds: Annotated[list[str], Writer],
    domain: Annotated[Code, Query(description="the code of the domain")],
    template: Annotated[
        Code,
        Query(
            description="an import template of contract statuses, whose rules and policies the records obey"
        ),
    ] = TEMPLATE,
    file_name: Annotated[
        Code, Query(description="what the batch is called in lists")
    ] = "contract_statuses.csv",
    again: Annotated[bool, Query(description="take records that were sent before once more")] = False,
) -> Asked:
    """What the query says. Raises UnknownCode or Refused."""
    if "\0" in domain + file_name:
        raise Refused(422, "A name with a NUL character in it is no name.")
    return Asked(desk.shelf.find(template, KIND), KIND, domain, file_name, (), (), again)


@router.post(
    "/contract-statuses",
    status_code=201,
    dependencies=[Writer],
    responses=answers(201, STATUS_BATCH),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {
        "example": STATUS_RECORDS,
        "schema": {"type": "object", "required": ["records"], "additionalProperties": False, "properties": {"records": {
            "type": "array", "minItems": 1, "maxItems": MAX_RECORDS, "items": {
                "type": "object", "additionalProperties": {"type": ["string", "null"]},
                "description": "texts by the names of the template's fields; of a column that fills none, its name"}}}}}}}},
)  # fmt: skip
def send_statuses(
    request: Request,
    desk: DeskDep,
    query: Annotated[Asked, Depends(asked)],
    key: Annotated[str, Depends(checked_key)],
    body: Annotated[bytes, Depends(bodies.text(MAX_BYTES))],
) -> JSONResponse:
    """Send contract statuses as records: they become a waiting batch. The same Idempotency-Key again gives the same batch.

    With the built-in template a record has form_id, date_result (YYYY-MM-DD) and result_code, and may have agent and
    remark. A record whose values are wrong is rejected in the ledger of the batch, like one of a file.
    """
    content = as_csv(records_in(body), query.template)
    by, template = user_of(request).name, query.template
    with key_held(desk, f"{by} {key}") as connection:
        batches.check_choices(connection, template, query.domain, (), ())
        kept = uploads.keep(io.BytesIO(content), query.file_name, desk.settings.uploads)
        seqno = batches.register(
            connection, kept, template, desk.suites.suite_hash(template), query.domain, by=by, through="api",
            again=query.again, key=RequestKey(by, key, query.fingerprint(kept.sha256)),
        )  # fmt: skip
        batch = batches.get(connection, seqno)
    return made(request, batch)


Pairs = tuple[tuple[str, Any], ...]  # an object of JSON as it was written, repeated names and all


def records_in(body: bytes) -> list[Any]:
    """The records of a body, objects as ``Pairs``. Raises Refused."""
    try:
        told = json.loads(body, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        raise Refused(422, "The request is not proper JSON.") from None
    names = [name for name, _ in told] if isinstance(told, tuple) else []
    if names != ["records"] or not isinstance(told[0][1], list):
        raise Refused(422, 'The request must be an object with a list of records: {"records": [...]}.')
    records: list[Any] = told[0][1]
    if not records:
        raise Refused(422, "There are no records in the request.")
    if len(records) > MAX_RECORDS:
        raise Refused(
            422,
            f"{len(records):,} records are too many for one request; send {MAX_RECORDS:,} at most, or a file.",
        )
    return records


def as_csv(records: Sequence[Any], template: ImportTemplate) -> bytes:
    """The records as a file of the template, every cell quoted. Raises Refused, with every fault that is worth telling."""
    places = {column.field or column.name: place for place, column in enumerate(template.columns)}
    if not template.file.header:
        places = {column.field or column.name: (column.position or 1) - 1 for column in template.columns}
    width = len(places) if template.file.header else template.field_count
    faults = list(_faults(records, places, template.file.encoding))
    if faults:
        told = " ".join(fault["message"] for fault in faults[:3])
        more = f" {len(faults) - 3:,} more are wrong." if len(faults) > 3 else ""
        raise Refused(422, f"Nothing was taken. {told}{more}", errors=faults[:MAX_TOLD])
    text = io.StringIO(newline="")
    file = template.file
    line = csv.writer(text, delimiter=file.delimiter, quotechar=file.quote, quoting=csv.QUOTE_ALL).writerow
    if file.header:
        line([column.name for column in template.columns])
    for record in records:
        cells = [""] * width
        for name, value in record:
            cells[places[name]] = value or ""
        line(cells)
    return text.getvalue().encode(file.encoding)


def _faults(records: Sequence[Any], known: dict[str, int], encoding: str) -> Iterator[dict[str, Any]]:
    """What is no record of texts. Values that are wrong for their field are none of these."""
    for number, record in enumerate(records, 1):
        for name, fault in _faults_of(record, known, encoding):
            yield {"record": number, "field": name, "message": f"Record {number:,}: {fault}."}


def _faults_of(record: Any, known: dict[str, int], encoding: str) -> Iterator[tuple[str | None, str]]:
    if not isinstance(record, tuple):
        yield None, f"it must be an object, not {_in_words(record)}"
        return
    seen = set()
    for name, value in record:
        if name not in known:
            yield None, f"it has a field that is not known; the fields are {', '.join(known)}"
        elif name in seen:
            yield name, f"{name} stands there twice"
        elif value is not None and not isinstance(value, str):
            yield name, f'{name} must be a text, such as "20", not {_in_words(value)}'
        elif value and _NO_TEXT.search(value):
            yield name, f"{name} has a character that is none: NUL, half a character or U+FDD0"
        elif value and not _fits(value, encoding):
            yield name, f"{name} has a character that {encoding} files of this template cannot hold"
        seen.add(name)


def _fits(value: str, encoding: str) -> bool:
    try:
        value.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _in_words(value: Any) -> str:
    """What a value of JSON is."""
    sorts = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        tuple: "an object",
    }
    return sorts.get(type(value), "null")
