"""File -> numbered records, a chunk at a time.

In: the bytes of an upload and its template. Out: ``Records``: how many there are, structural rejects, and chunks of
raw cells as Arrow tables. Promises: every record of a readable file gets a number (1 for the first after the header,
blank lines are skipped and counted apart) and is either in a chunk or a structural reject; memory is flat, but for
what DuckDB holds while it cuts: some kilobytes for every field beyond the spare columns.

The bytes are first brought into one form (``prepare``: UTF-8, LF, no byte-order mark), then DuckDB's CSV reader cuts
them into a scratch database. It is asked to pad short records with a null that no file can contain, so that the
number of fields of every record is known, and it is given two marks, because it says neither where it skipped a
blank line nor that an open quote swallowed the end of the file:
a line ``MARK`` in place of every blank line, and a line ``MARK end`` after the last.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rowledger.errors import FileError, SetupError
from rowledger.layouts import REASON_MARK, Layout, read_layout
from rowledger.model import Reason, Reject
from rowledger.structure import (
    MAX_RECORD_BYTES,
    bounded_lines,
    control_reason,
    cut,
    open_quote,
    record_too_long,
    records_too_long,
    width_reason,
)
from rowledger.templates import ImportTemplate
from rowledger.text_in import BLOCK_BYTES, END_MARK, MARK, prepare

FOLDER_PREFIX = "records-"
SWEEP_SECONDS = 60
SHOWN_BYTES = 10_000  # DuckDB shows no more of a rejected line
CHUNK_CELLS = 5_000_000
CHUNK_BYTES = 50_000_000
ROOMS = ((64, 122_880), (256, 2_048))  # MB for DuckDB, rows it keeps together; the second for long records
SPARE_COLUMNS = 2
NOWHERE = "\x01rowledger-null\x02"


@dataclass(frozen=True)
class Chunk:
    """Consecutive records: the cells of the well-formed ones as an Arrow table, and the others as rejects.

    ``cells`` has ``record_no`` (int64) and ``c0`` … ``c<width-1>`` (string, never null); ``first`` and ``last``
    are record numbers, both included.
    """

    first: int
    last: int
    cells: Any
    rejects: tuple[Reject, ...]

    @property
    def records(self) -> int:
        return self.last - self.first + 1


class Records:
    """The records of one file, cut and counted. Use as a context manager: the scratch files go at its end."""

    def __init__(self, path: Path, template: ImportTemplate, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        _sweep(scratch)
        self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=scratch))
        self._lock = _locked(self._folder)
        try:
            self._read(path, template)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def _read(self, path: Path, template: ImportTemplate) -> None:
        self._template = template
        text = self._folder / "text.csv"
        facts = prepare(path, text, template)
        self.layout = read_layout(text, template)
        self._offset = 1 if template.file.header else 0
        self._text, self._bytes = text, text.stat().st_size
        self._cut(text)
        self._number()
        self._reopen()
        self.warnings = (*facts.warnings, *self.layout.warnings)
        self._inner_breaks = facts.controls or facts.lines != self._lines
        self._inner_blanks = facts.blank_lines != self.blank_lines

    def _cut(self, text: Path) -> None:
        """Cut the text into the scratch table ``records``: one row per line of records, in order."""
        import duckdb

        for megabytes, together in ROOMS:
            self._megabytes = megabytes + self.layout.width // 5  # a column takes about 0.13 MB
            try:
                self._cut_within(text, together)
            except (duckdb.OutOfMemoryException, duckdb.TransactionException) as error:
                if "temp_directory" in str(error):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder)) from error
                if "Out of Memory" not in str(error) and "pin block" not in str(error):
                    raise  # the disk, not the file
                self._db.close()
                self._refuse_too_long(text)
            except duckdb.IOException:
                raise
            except duckdb.Error as error:
                raise SetupError(
                    f"The file could not be cut into records ({type(error).__name__})."
                ) from error
            else:
                return
        raise records_too_long()

    def _cut_within(self, text: Path, together: int) -> None:
        import duckdb

        columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(self.layout.width + SPARE_COLUMNS))
        self._file = self._folder / f"records_{together}.duckdb"
        self._db = duckdb.connect(
            config={
                "threads": 1,
                "memory_limit": f"{self._megabytes}MB",
                "temp_directory": str(self._folder),
            }
        )
        self._db.execute(f"ATTACH '{self._file}' AS scratch (ROW_GROUP_SIZE {together})")
        self._db.execute("USE scratch")
        self._db.execute(
            f"""CREATE TABLE records AS SELECT * FROM read_csv($path, columns={{{columns}}}, header=false,
                auto_detect=false, all_varchar=true, strict_mode=true, store_rejects=true, rejects_limit=0,
                delim=$delimiter, quote=$quote, escape=$quote, null_padding=true, parallel=false,
                nullstr=$nowhere, new_line='\\n', buffer_size={BLOCK_BYTES},
                max_line_size={MAX_RECORD_BYTES})""",  # noqa: S608 - only our own numbers
            {
                "path": str(text),
                "delimiter": self._template.file.delimiter,
                "quote": self._template.file.quote,
                "nowhere": NOWHERE,
            },
        )

    def _refuse_too_long(self, text: Path) -> None:
        """Name a record that does not fit into memory: read on record by record until one is over the limit."""
        number = 0 if self._template.file.header else 1
        with text.open(encoding="utf-8", newline="") as file:
            try:
                for record in cut(bounded_lines(file), self._template):
                    if sum(map(len, record)) > MAX_RECORD_BYTES:
                        raise record_too_long(number)
                    number += bool(record) and record != [MARK]
            except csv.Error:
                raise record_too_long(number) from None

    def _reopen(self) -> None:
        """Give back what cutting took: from here on the scratch table is only read, a chunk at a time."""
        import duckdb

        self._db.close()
        self._db = duckdb.connect(
            str(self._file),
            config={
                "threads": 1,
                "memory_limit": f"{self._megabytes - ROOMS[0][0] // 2}MB",
                "temp_directory": str(self._folder),
            },
        )

    def _number(self) -> None:
        """Find the line of every blank and every reject, and from them the numbers of the records."""
        import numpy as np

        ((accepted,),) = self._query("SELECT count(*) FROM records")
        self._bad_lines = np.unique(self._numbers("SELECT line FROM reject_errors"))
        self._blank_lines = self._line_of(
            self._numbers(
                "SELECT rowid FROM records WHERE c0 = $mark AND c1 IS NULL ORDER BY rowid", {"mark": MARK}
            )
        )
        self._lines = accepted + len(self._bad_lines)
        lost = "SELECT min(line) FROM reject_errors WHERE error_type = 'LINE SIZE OVER MAXIMUM'"
        ((line,),) = self._query(lost)
        if line is not None:  # DuckDB loses its place behind such a record
            raise record_too_long(int(self._number_of(line)))
        last = self._query("SELECT c0 FROM records ORDER BY rowid DESC LIMIT 1")
        if last != [(END_MARK,)] or (len(self._bad_lines) and self._bad_lines[-1] == self._lines):
            raise open_quote(int(self._number_of(self._lines)), self._template)
        self.blank_lines = len(self._blank_lines)
        self.count = max(0, self._lines - 1 - self.blank_lines - self._offset)
        if self.count > self._template.file.max_records:
            raise FileError(
                "too_many_records",
                f"The file has {self.count:,} records; "
                f"this template takes {self._template.file.max_records:,} at most.",
            )
        self._unnamed_columns()
        self._db.execute(
            "CREATE TABLE bad AS SELECT line, error_type AS error, csv_line AS raw, line_byte_position AS byte "
            "FROM reject_errors QUALIFY line IS DISTINCT FROM lag(line) OVER () "
            "OR error_type IS DISTINCT FROM lag(error_type) OVER ()"  # it has an error per field too many
        )

    def _numbers(self, query: str, params: dict[str, Any] | None = None) -> Any:
        """The one column of a query, as an array: of millions of lines as well."""
        import numpy as np

        (found,) = self._db.execute(query, params).fetchnumpy().values()
        return np.asarray(found, dtype=np.int64)

    def _line_of(self, row: Any) -> Any:
        """Row of the scratch table (0-based) -> line among all lines of records (1-based)."""
        import numpy as np

        accepted_before = self._bad_lines - 1 - np.arange(len(self._bad_lines))
        return row + 1 + np.searchsorted(accepted_before, row, side="right")

    def _row_of(self, line: int) -> int:
        """Line -> row of the scratch table; for a reject the row of the next line that has one."""
        import numpy as np

        return line - 1 - int(np.searchsorted(self._bad_lines, line))

    def _number_of(self, line: Any) -> Any:
        """Line -> record number (0 for the header); a blank line has that of the record before it."""
        import numpy as np

        return line - self._offset - np.searchsorted(self._blank_lines, line, side="right")

    def chunks(self, after: int, size: int, upto: int | None = None) -> Iterator[Chunk]:
        """The records numbered above ``after``, to the last one or ``upto``, in order, about ``size`` at a time."""
        import numpy as np

        upto = self.count if upto is None else upto
        start, end, first = self._line_after(after), self._line_after(upto), after + 1
        size = max(1, min(size, CHUNK_CELLS // self.layout.width, CHUNK_BYTES * self._lines // self._bytes))
        while start < end:
            stop = min(start + size, end)
            last = upto if stop == end else int(self._number_of(stop - 1))
            if last >= first:
                row, behind = self._row_of(start), self._row_of(stop)
                cells = self._db.sql(
                    "SELECT * FROM records WHERE rowid >= $row AND rowid < $behind",
                    params={"row": row, "behind": behind},
                ).to_arrow_table()
                numbers = self._number_of(self._line_of(np.arange(row, behind, dtype=np.int64)))
                yield self._chunk(first, last, cells, numbers, self._structural(start, stop))
            start, first = stop, max(first, last + 1)

    def _structural(self, start: int, stop: int) -> list[Reject]:
        """The rejects for the lines of that range that DuckDB could not cut."""
        found = self._query(
            "SELECT line, min(error), any_value(raw), min(byte) FROM bad WHERE line >= $start AND line < $stop "
            "GROUP BY line ORDER BY line",
            {"start": start, "stop": stop},
        )
        return [
            _structural_reject(
                int(self._number_of(line)), error, raw, byte, self._text, self.layout.width, self._template
            )
            for line, error, raw, byte in found
        ]

    def index_first(self, place: int, clean: Callable[[Any], Any]) -> None:
        """Learn, for every value that a column has more than once, the first record that has it."""
        self._db.execute(f"CREATE TABLE seen_{place} (value VARCHAR, record_no BIGINT)")
        for chunk in self.chunks(0, 200_000):
            found = chunk.cells.select(["record_no"]).append_column("value", clean(chunk.cells[f"c{place}"]))  # noqa: F841
            self._db.execute(
                f"INSERT INTO seen_{place} SELECT value, record_no FROM found WHERE value IS NOT NULL"  # noqa: S608
            )
        self._db.execute(
            f"CREATE TABLE first_{place} AS SELECT value, min(record_no) AS first_no FROM seen_{place} "  # noqa: S608
            "GROUP BY value HAVING count(*) > 1"
        )
        self._db.execute(f"DROP TABLE seen_{place}")

    def first_with(self, place: int, record_nos: Any, values: Any) -> Any:
        """For each record the first record of the file with the same value, or null where the value is the only one."""
        import pyarrow as pa

        asked = pa.table({"record_no": record_nos, "value": values})  # noqa: F841 - DuckDB finds it by its name
        return self._db.sql(
            f"SELECT first_no FROM asked LEFT JOIN first_{place} USING (value) ORDER BY record_no"  # noqa: S608
        ).to_arrow_table()["first_no"]

    def _line_after(self, record_no: int) -> int:
        """The first line whose record number is above ``record_no``; the mark at the end, if there is none."""
        low, high = 1, self._lines
        while low < high:
            middle = (low + high) // 2
            if int(self._number_of(middle)) <= record_no:
                low = middle + 1
            else:
                high = middle
        return low

    def _query(self, query: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._db.execute(query, params).fetchall()
        return rows

    def _unnamed_columns(self) -> None:
        """A column without a name is harmless only if it is empty all the way down."""
        for place in self.layout.unnamed:
            filled = self._query(
                f"SELECT rowid FROM records WHERE c{place} <> '' ORDER BY rowid LIMIT 1"  # noqa: S608 - a number
            )
            for (row,) in filled:
                number = int(self._number_of(self._line_of(row)))
                raise FileError(
                    "unnamed_column",
                    f"Column {place + 1} has no name in the header, but has values. Name it or remove it.",
                    f"record {number}",
                )

    def _chunk(self, first: int, last: int, cells: Any, numbers: Any, rejects: list[Reject]) -> Chunk:
        import pyarrow as pa
        import pyarrow.compute as pc

        width = self.layout.width
        names = [f"c{i}" for i in range(width)]
        cells = cells.append_column("record_no", pa.array(numbers))
        if self.blank_lines:
            cells = _only(cells, pc.invert(pc.and_(pc.equal(cells["c0"], MARK), pc.is_null(cells["c1"]))))
        if self._inner_blanks:
            cells = _each_cell(cells, lambda column: pc.replace_substring(column, MARK, ""))
        if self.layout.reason_place is not None or not self._template.file.header:
            cells = _without_reasons(cells, self.layout)
        wrong = pc.or_(pc.is_null(cells[f"c{width - 1}"]), pc.is_valid(cells[f"c{width}"]))
        reasons = self._wrong_width(cells.filter(wrong))
        good = _only(cells, pc.invert(wrong)).select(["record_no", *names])
        if self._inner_breaks:  # a cell that reads like our null is text with control characters
            good = _each_cell(good, lambda column: pc.fill_null(column, NOWHERE))
        if self._template.file.header:
            repeated, good = self._repeated_headers(good)
            reasons += repeated
        if self._inner_breaks:
            controls, good = self._control_characters(good)
            reasons += controls
        return Chunk(
            first, last, good, tuple(sorted([*rejects, *reasons], key=lambda reject: reject.record_no))
        )

    def _wrong_width(self, cells: Any) -> list[Reject]:
        found = []
        for row in cells.to_pylist():
            raw = tuple(row[f"c{i}"] for i in range(cells.num_columns - 1) if row[f"c{i}"] is not None)
            found.append(Reject(row["record_no"], (width_reason(len(raw), self.layout.width),), raw))
        return found

    def _repeated_headers(self, cells: Any) -> tuple[list[Reject], Any]:
        import pyarrow as pa
        import pyarrow.compute as pc

        header = self.layout.header or ()
        same = pa.array([True] * cells.num_rows, pa.bool_())
        for place, name in enumerate(header):
            same = pc.and_(same, pc.equal(cells[f"c{place}"], name))
        if len(header) < 2 or not pc.any(same).as_py():
            return [], cells
        reason = Reason(
            "repeated_header", None, None, "This is the header once more, not a record; delete the line."
        )
        rejects = [Reject(row["record_no"], (reason,), header) for row in cells.filter(same).to_pylist()]
        return rejects, cells.filter(pc.invert(same))

    def _control_characters(self, cells: Any) -> tuple[list[Reject], Any]:
        """Cells with characters that no text should have; line breaks and tabs pass where the template says so."""
        import pyarrow as pa
        import pyarrow.compute as pc

        multiline = {
            p for p, c in zip(self.layout.places, self._template.columns, strict=True) if c.multiline
        }
        found: dict[int, list[Reason]] = {}
        for place, name in enumerate(self.layout.names_by_place()):
            allowed = r"\t\n" if place in multiline else ""
            pattern = r"[\x00-\x08\x0b-\x1f\x7f\x{80}-\x{9f}]" if allowed else r"[\x00-\x1f\x7f\x{80}-\x{9f}]"
            hit = cells.filter(pc.match_substring_regex(cells[f"c{place}"], pattern))
            for number, value in zip(hit["record_no"].to_pylist(), hit[f"c{place}"].to_pylist(), strict=True):
                found.setdefault(number, []).append(control_reason(name, value))
        if not found:
            return [], cells
        bad = pc.is_in(cells["record_no"], value_set=pa.array(sorted(found)))
        width = self.layout.width
        rejects = [
            Reject(
                row["record_no"], tuple(found[row["record_no"]]), tuple(row[f"c{i}"] for i in range(width))
            )
            for row in cells.filter(bad).to_pylist()
        ]
        return rejects, cells.filter(pc.invert(bad))


def _locked(folder: Path) -> int | None:
    """The descriptor of a folder that is locked by it; None if somebody else holds the lock or removed the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(scratch: Path) -> None:
    """Remove what killed workers have left: a folder that nobody holds locked, and that was not made just now."""
    for folder in scratch.glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > SWEEP_SECONDS and (lock := _locked(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def raw_cells(chunk: Chunk, record_nos: list[int]) -> list[tuple[int, tuple[str, ...]]]:
    """The cells of some records of a chunk."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = pc.is_in(chunk.cells["record_no"], value_set=pa.array(record_nos, pa.int64()))
    return [(row.pop("record_no"), tuple(row.values())) for row in chunk.cells.filter(chosen).to_pylist()]


def _only(cells: Any, wanted: Any) -> Any:
    """The wanted rows; not a copy of the table if that is all of them."""
    import pyarrow.compute as pc

    return cells if pc.all(wanted, min_count=0).as_py() else cells.filter(wanted)


def _each_cell(cells: Any, change: Any) -> Any:
    for index, name in enumerate(cells.column_names):
        if name != "record_no":
            cells = cells.set_column(index, name, change(cells[name]))
    return cells


def _without_reasons(cells: Any, layout: Layout) -> Any:
    """Take back what an export of rejects added: the reason, and the ' before what a spreadsheet would compute."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def plain(column: Any) -> Any:
        return pc.replace_substring_regex(column, "^'([=+\\-@\\t\\r\\n＝＋－＠'])", "\\1")

    if layout.reason_place is not None:
        return _each_cell(cells, plain)
    extra = f"c{layout.width}"
    exported = pc.fill_null(pc.starts_with(cells[extra], REASON_MARK), False)
    if not pc.any(exported).as_py():
        return cells
    cells = _each_cell(cells, lambda column: pc.if_else(exported, plain(column), column))
    index = cells.column_names.index(extra)
    return cells.set_column(index, extra, pc.if_else(exported, pa.scalar(None, pa.string()), cells[extra]))


def _structural_reject(
    number: int, error: str, raw: str, byte: int, text: Path, width: int, template: ImportTemplate
) -> Reject:
    """The reject for a record that DuckDB could not cut; ``raw`` is its text, ``byte`` where it begins (from 1)."""
    shown = raw.replace(MARK, "").strip("\n")
    if error == "TOO MANY COLUMNS":
        try:
            cells = next(cut(io.StringIO(shown, newline=""), template))
            if len(raw.encode()) >= SHOWN_BYTES:
                cells = _read_again(text, byte, template)
        except csv.Error:
            raise record_too_long(number) from None
        return Reject(number, (width_reason(len(cells), width),), tuple(cells))
    reason = Reason(
        "bad_quoting",
        None,
        shown[:200],
        f"The quotes ({template.file.quote}) of the record are not in pairs around whole cells; "
        "a quote meant as a character is doubled.",
    )
    return Reject(number, (reason,), (shown,))


def _read_again(text: Path, byte: int, template: ImportTemplate) -> list[str]:
    with text.open("rb") as source, io.TextIOWrapper(source, encoding="utf-8", newline="") as lines:
        source.seek(byte - 1)
        return [cell.replace(MARK, "") for cell in next(cut(bounded_lines(lines), template))]
