"""Rejected records mended one by one and sent again, as a batch of their own that is linked to the first, both ways.

In: the ledger with the cells of rejected records; the cells as somebody has mended them. Out: a file in the layout of
the first one, and a waiting batch of it, with the same template version, domain, origins and lists.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rowledger import batches, uploads
from rowledger.batches import RequestKey
from rowledger.db import Connection, Cursor, queries, row, rows, transaction
from rowledger.errors import FileError, NotPossible, WrongValue
from rowledger.layouts import REASON_HEADER, Layout, layout_of
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate, fold_header
from rowledger.text_in import codec_of

_SQL = queries("mending")


@dataclass(frozen=True)
class Columns:
    """The columns of the batch's file as people mend them: without the reasons that an export of rejects has added."""

    names: tuple[str, ...]
    header: tuple[str, ...] | None
    multiline: frozenset[int]
    without: int | None

    def of(self, raw: Sequence[str]) -> list[str]:
        """The cells of a record of the file that stand in them."""
        return [cell for place, cell in enumerate(raw) if place != self.without]


@dataclass(frozen=True)
class Mended:
    """A rejected record of a batch, and its cells as they are to be."""

    record_no: int
    cells: tuple[str, ...]


def columns(batch: Batch, template: ImportTemplate, settings: Settings) -> Columns:
    """What the batch's file looks like. Raises NotPossible if the file is not kept any more, or never was readable."""
    with _kept(batch, settings) as path:
        layout = layout_of(path, template, settings.scratch)
    without = next(
        (place for place, name in enumerate(layout.header or ()) if fold_header(name) == REASON_HEADER), None
    )
    return _columns(layout, template, without)


@contextmanager
def _kept(batch: Batch, settings: Settings) -> Iterator[Path]:
    gone = NotPossible(
        f"The file of import batch {batch.seqno} is not kept any more, so it is not known what stood where."
    )
    with ExitStack() as stack:
        fetched = uploads.fetched(batch.file_path, batch.file_sha256, settings.uploads, settings.scratch)
        try:
            path = stack.enter_context(fetched)
        except FileError:
            raise gone from None
        if not path.exists():
            raise gone
        yield path


def _columns(layout: Layout, template: ImportTemplate, without: int | None) -> Columns:
    def kept(all_of_them: Sequence[str]) -> tuple[str, ...]:
        return tuple(one for place, one in enumerate(all_of_them) if place != without)

    multiline = {
        p for p, c in zip(layout.places, template.columns, strict=True) if p is not None and c.multiline
    }
    places = [place for place in range(layout.width) if place != without]
    return Columns(
        kept(layout.names_by_place()),
        kept(layout.header) if layout.header else None,
        frozenset(places.index(place) for place in multiline),
        without,
    )


def page(
    connection: Connection,
    batch: Batch,
    *,
    after: int = 0,
    limit: int,
    rule: str | None = None,
    column: str | None = None,
) -> list[dict[str, Any]]:
    """Rejected records after a number that were not sent again: record_no, reasons, warnings, raw; one more than ``limit``."""
    asked = {"seqno": batch.seqno, "after": after, "limit": limit + 1, "rule": rule, "column": column}
    with transaction(connection) as cursor:
        return rows(cursor, _SQL["page"], asked)


def sent(connection: Connection, batch: Batch) -> list[dict[str, Any]]:
    """The batches that mended records of this one were sent as, and how many each has."""
    with transaction(connection) as cursor:
        return rows(cursor, _SQL["sent"], {"seqno": batch.seqno})


def total(connection: Connection, batch: Batch) -> int:
    """How many records of the batch are rejected, also after they were parked, or given up."""
    with transaction(connection) as cursor:
        found = row(cursor, _SQL["total"], {"seqno": batch.seqno})
    assert found
    return int(found["records"])


def file_of(mended: Sequence[Mended], template: ImportTemplate, found: Columns) -> bytes:
    """The mended records as a file of the template, every cell as it is. Raises WrongValue."""
    text = io.StringIO(newline="")
    write = csv.writer(
        text, delimiter=template.file.delimiter, quotechar=template.file.quote, quoting=csv.QUOTE_ALL, lineterminator="\r\n"
    ).writerow  # fmt: skip
    if found.header:
        write(found.header)
    for record in mended:
        _refuse_unwritable(record, template)
        write(record.cells)
    return text.getvalue().encode(codec_of(template))


def _refuse_unwritable(record: Mended, template: ImportTemplate) -> None:
    for cell in record.cells:
        try:
            cell.encode(codec_of(template))
        except UnicodeEncodeError as error:
            sign = error.object[error.start]
            raise WrongValue(
                "cells",
                f'Record {record.record_no}: the character "{sign}" cannot be written in {template.file.encoding}, '
                "the encoding of this template.",
            ) from None


def check(connection: Connection, batch: Batch, mended: Sequence[Mended]) -> None:
    """Whether the records can be sent. Raises NotPossible."""
    with transaction(connection) as cursor:
        _check(cursor, batch, [record.record_no for record in mended])


def send(
    connection: Connection,
    settings: Settings,
    batch: Batch,
    template: ImportTemplate,
    mended: Sequence[Mended],
    content: bytes,
    *,
    by: str,
    through: str,
    key: RequestKey | None = None,
) -> int:
    """Make a waiting batch of the mended records; returns its seqno. Raises NotPossible, UnknownCode or KeyReused."""
    numbers = [record.record_no for record in mended]
    name = Path(batch.file_name)
    upload = uploads.keep(io.BytesIO(content), f"{name.stem}_mended{name.suffix}", settings.uploads)

    def link(cursor: Cursor, child: int) -> None:
        cursor.execute(_SQL["alone"], {"seqno": batch.seqno})
        _check(cursor, batch, numbers)
        cursor.execute(_SQL["link"], {"child_seqno": child, "seqno": batch.seqno, "record_nos": numbers})

    return batches.register_child(
        connection,
        upload,
        template,
        batch.suite_hash,
        batch,
        "rerun",
        by=by,
        through=through,
        key=key,
        also=link,
    )


def _check(cursor: Cursor, batch: Batch, numbers: list[int]) -> None:
    if not batch.status.terminal:
        raise NotPossible(
            f"Import batch {batch.seqno} has not ended yet; its rejected records can be mended then."
        )
    if gone := batches.records_not_kept(cursor, batch.seqno):
        raise NotPossible(gone)
    if len(set(numbers)) < len(numbers):
        raise NotPossible("A record is named twice; name each once.")
    found = row(cursor, _SQL["not_to_mend"], {"seqno": batch.seqno, "record_nos": numbers})
    if found and found["child_seqno"]:
        raise NotPossible(
            f"Record {found['record_no']} was mended and sent already, as import batch {found['child_seqno']}."
        )
    if found:
        raise NotPossible(
            f"Record {found['record_no']} of import batch {batch.seqno} is not rejected; there is nothing to mend."
        )
