"""The ledger: what became of every record. Write rejects, stream records, export it and rejects to be mended, check it all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Generator, Iterable
from typing import Any, TextIO

from rowledger.db import Connection, Cursor, queries, row, rows, stream, transaction
from rowledger.layouts import REASON_HEADER, REASON_MARK
from rowledger.model import Batch, Outcome, Reason, Reject
from rowledger.parked import GIVEN_UP
from rowledger.templates import ImportTemplate
from rowledger.text_in import codec_of

_SQL = queries("ledger")
NOT_LOADED: list[str] = [Outcome.REJECTED, Outcome.IGNORED, Outcome.PARKED]
TO_MEND: list[str] = [Outcome.REJECTED, GIVEN_UP]
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")


def write_rejects(cursor: Cursor, batch: Batch, rejects: Iterable[Reject]) -> None:
    """COPY rejected records into the ledger."""
    _copy(
        cursor,
        _SQL["copy_rejects"],
        (
            (batch.seqno, reject.record_no, batch.domain_id, Outcome.REJECTED, _json(_shown(r) for r in reject.reasons),
             _json(_shown(w) for w in reject.warnings) if reject.warnings else "", _json(reject.raw))
            for reject in rejects
        ),
    )  # fmt: skip


def add_unprocessed(cursor: Cursor, batch: Batch, records: int) -> int:
    """Give every record without an outcome the outcome unprocessed, as of the end of its batch; returns their number."""
    asked = {
        "seqno": batch.seqno,
        "domain_id": batch.domain_id,
        "records": records,
        "ended": batch.processed_at,
    }
    cursor.execute(_SQL["add_unprocessed"], asked)
    return cursor.rowcount


def lacks_raw(connection: Connection, batch: Batch) -> bool:
    """Whether records were refused while loading, whose cells are not in the ledger yet."""
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["lacks_raw"], {"seqno": batch.seqno})
        return bool(found and found["lacks"])


def without_raw(cursor: Cursor, batch: Batch, first: int, last: int) -> list[int]:
    """The numbers of such records from ``first`` to ``last``."""
    asked = {"seqno": batch.seqno, "first": first, "last": last}
    return [r["record_no"] for r in rows(cursor, _SQL["without_raw"], asked)]


def add_raw(cursor: Cursor, batch: Batch, cells: Iterable[tuple[int, Iterable[str]]]) -> None:
    """Keep the raw cells of records that are in the ledger already."""
    cursor.execute(_SQL["create_raw"])
    _copy(cursor, _SQL["copy_raw"], ((record_no, _json(raw)) for record_no, raw in cells))
    cursor.execute(_SQL["add_raw"], {"seqno": batch.seqno})


def give_up_raw(cursor: Cursor, batch: Batch) -> None:
    """Note that the cells of refused records cannot be had any more: none."""
    cursor.execute(_SQL["give_up_raw"], {"seqno": batch.seqno})


def records(
    connection: Connection,
    seqno: int,
    outcomes: list[str] | None = None,
    record_no: int | None = None,
    rolled_back: str | None = None,
    rule: str | None = None,
    column: str | None = None,
    after: int = 0,
) -> Generator[dict[str, Any]]:
    """The ledger of a batch in the order of its file, in flat memory; or what its roll back restored, or spared.

    With ``rule`` or ``column`` the records with such a reason; ``after`` a record number goes on behind it.
    """
    asked = {"seqno": seqno, "outcomes": outcomes, "record_no": record_no, "rolled_back": rolled_back,
             "rule": rule, "column": column, "after": after}  # fmt: skip
    return stream(connection, _SQL["records"], asked)


def common_reasons(
    connection: Connection, seqno: int, outcomes: list[str], limit: int
) -> list[dict[str, Any]]:
    """The commonest reasons: rule, column, number of records, first record, example message."""
    with transaction(connection) as cursor:
        asked = {"seqno": seqno, "outcomes": outcomes, "limit": limit}
        return rows(cursor, _SQL["common_reasons"], asked)


def rejects_as_csv(
    connection: Connection, batch: Batch, template: ImportTemplate, header: Iterable[str]
) -> Generator[str]:
    """The rejected records, also those that were parked first or given up, in the layout of their file plus a column of
    reasons.

    Line by line, each ending with CR LF; the first is the header, empty if the file has none. Every cell is quoted, and
    one that a spreadsheet would compute gets a leading apostrophe; an import of this very export takes reasons and
    apostrophes back.
    """
    line = csv.writer(_Echo(), delimiter=template.file.delimiter, quotechar=template.file.quote,
                      quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow  # fmt: skip
    names = list(header)
    width = len(names) or template.field_count
    yield line([*names, REASON_HEADER]) if template.file.header else ""
    with contextlib.closing(records(connection, batch.seqno, TO_MEND)) as found:
        for record in found:
            cells = [neutral(cell) for cell in record["raw"] or ()]
            cells += [""] * (width - len(cells))
            reasons = record["parked"]["reasons"] if record["parked"] else record["reasons"]
            messages = " ".join(reason["message"] for reason in reasons)
            # The file may have to be in an encoding that has not all signs of our sentences.
            messages = messages.encode(codec_of(template), "xmlcharrefreplace").decode(codec_of(template))
            yield line([*cells, f"{REASON_MARK}{messages}"])


def export_rejects(
    connection: Connection, batch: Batch, template: ImportTemplate, header: Iterable[str], out: TextIO
) -> int:
    """Write them to a file; returns their number."""
    with contextlib.closing(rejects_as_csv(connection, batch, template, header)) as lines:
        out.write(next(lines))
        return sum(1 for line in lines if out.write(line))


def as_csv(found: Generator[dict[str, Any]]) -> Generator[str]:
    """Records of the ledger as CSV, line by line, the first with the names of the columns; closes ``found``."""
    line = csv.writer(_Echo(), quoting=csv.QUOTE_ALL).writerow
    with contextlib.closing(found):
        yield line(["record", "outcome", "rules", "reasons", "warnings", "cells", "replayed", "rolled back"])
        for record in found:
            yield line(_in_cells(record))


def _in_cells(record: dict[str, Any]) -> list[Any]:
    reasons, warnings, replayed = record["reasons"] or (), record["warnings"] or (), record["parked"] or {}
    return [
        record["record_no"],
        record["outcome"],
        " ".join(reason["rule"] for reason in reasons),
        neutral(" ".join(reason.get("message") or "" for reason in reasons)),
        neutral(" ".join(warning.get("message") or "" for warning in warnings)),
        json.dumps(record["raw"], ensure_ascii=False) if record.get("raw") is not None else "",
        replayed.get("outcome", "") if _settled(replayed) else "",
        (record["rolled_back"] or {}).get("result", ""),
    ]


def _settled(parked: dict[str, Any]) -> bool:
    """Whether something has become of a parked record: replayed, given up, or withdrawn by a roll back."""
    return bool(parked.get("replayed_at")) or parked.get("outcome") != Outcome.PARKED


class _Echo:
    """A file that gives back what is written, for a csv.writer whose lines go somewhere else."""

    def write(self, text: str) -> str:
        return text


def neutral(cell: str) -> str:
    """A cell that a spreadsheet shows and does not compute."""
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell


def check(connection: Connection) -> list[dict[str, Any]]:
    """Every invariant of the whole database: its name, what it says, the number of violations and the first one."""
    results = []
    for name, query in queries("check").items():
        statement, _, body = query.partition("\n")
        with transaction(connection) as cursor:
            # Our own statements from sql/check.sql, wrapped.
            counted = f"SELECT count(*) AS violations, min(place) AS first FROM ({body}) AS v (place)"  # noqa: S608
            found = row(cursor, counted)
        assert found
        results.append({"check": name, "says": statement.removeprefix("-- "), **found})
    return results


def _json(values: Iterable[Any]) -> str:
    """A JSON array. jsonb cannot hold NUL: a cell shows it as its symbol; the file itself is kept."""
    return json.dumps([v.replace("\0", "␀") if isinstance(v, str) else v for v in values], ensure_ascii=False)


def _copy(cursor: Cursor, statement: str, lines: Iterable[Iterable[Any]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(lines)
    buffer.seek(0)
    cursor.copy_expert(statement, buffer)


def _shown(reason: Reason) -> dict[str, str | None]:
    return {key: value.replace("\0", "␀") if value else value for key, value in reason.as_dict().items()}
