"""File -> numbered records, a chunk at a time.

In: the bytes of an upload and its template. Out: ``Records``: how many there are, structural rejects, and chunks of
raw cells as Arrow tables. Promises: every record of a readable file gets a number (1 for the first after the header,
blank lines are skipped and counted apart) and is either in a chunk or a structural reject; memory is flat.

The bytes are first brought into one form (``_prepare``: UTF-8, LF, no byte-order mark), then DuckDB's CSV reader cuts
them into a scratch database. It is asked to pad short records with a null that no file can contain, so that the
number of fields of every record is known, and it is given two marks, because it says neither where it skipped a
blank line nor that an open quote swallowed the end of the file:
a line ``MARK`` in place of every blank line, and a line ``MARK end`` after the last.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rowledger.errors import FileError, SetupError
from rowledger.model import Reason, Reject
from rowledger.templates import ImportTemplate, fold_header

MARK = "\ufdd0rowledger"  # a Unicode noncharacter: not for interchange, so no file has it by right
END_MARK = f"{MARK} end"
REASON_MARK = "rowledger: "  # begins the reason that an export of rejects adds to a record
REASON_HEADER = "rowledger_reasons"

BLOCK_BYTES = 2 << 20
MAX_RECORD_BYTES = 1_000_000
MAX_COLUMNS = 5000
NAMED_COLUMNS = 20
SHOWN_BYTES = 10_000  # DuckDB shows no more of a rejected line
CHUNK_CELLS = 5_000_000
SPARE_COLUMNS = 2
NOWHERE = "\x01rowledger-null\x02"

_CODECS = {"windows-1252": "cp1252", "utf-16": "utf-16"}
_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


@dataclass(frozen=True)
class Layout:
    """Where the template's columns stand in this file.

    ``places`` has the 0-based place of each template column or None; ``names`` what the file calls each.
    ``reason_place`` is the place of the reason column of an export of rejects that was uploaded again.
    """

    width: int
    places: tuple[int | None, ...]
    names: tuple[str, ...]
    header: tuple[str, ...] | None
    unnamed: tuple[int, ...]
    reason_place: int | None
    warnings: tuple[Reason, ...]

    def names_by_place(self) -> list[str]:
        """What to call each column of the file, mapped by the template or not."""
        names = [f"column {place + 1}" for place in range(self.width)]
        for place, name in zip(range(self.width), self.header or (), strict=False):
            names[place] = name or names[place]
        for mapped, name in zip(self.places, self.names, strict=True):
            if mapped is not None:
                names[mapped] = name
        return names


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


class Records:
    """The records of one file, cut and counted. Use as a context manager: the scratch files go at its end."""

    def __init__(self, path: Path, template: ImportTemplate, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="records-", dir=scratch))
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

    def _read(self, path: Path, template: ImportTemplate) -> None:
        self._template = template
        text = self._folder / "text.csv"
        facts = _prepare(path, text, template)
        self.layout = read_layout(text, template)
        self._offset = 1 if template.file.header else 0
        self._cut(text)
        self._number(text)
        self._reopen()
        if self.count > template.file.max_records:
            raise FileError(
                "too_many_records",
                f"The file has {self.count:,} records; this template takes {template.file.max_records:,} at most.",
            )
        self.warnings = (*facts.warnings, *self.layout.warnings)
        self._inner_breaks = facts.controls or facts.lines != self._lines
        self._inner_blanks = facts.blank_lines != self.blank_lines

    def _cut(self, text: Path) -> None:
        """Cut the text into the scratch table ``records``: one row per line of records, in order."""
        import duckdb

        columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(self.layout.width + SPARE_COLUMNS))
        self._db = duckdb.connect(str(self._folder / "records.duckdb"))
        self._db.execute("SET threads = 1")
        self._db.execute(
            f"SET memory_limit = '{64 + self.layout.width // 5}MB'"
        )  # a column takes about 0.13 MB
        self._db.execute(f"SET temp_directory = '{self._folder}'")
        try:
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
        except duckdb.OutOfMemoryException:
            raise _too_long(text, self._template) from None
        except duckdb.Error as error:
            raise SetupError(f"The file could not be cut into records ({type(error).__name__}).") from error

    def _reopen(self) -> None:
        """Give back what cutting took: from here on the scratch table is only read, a chunk at a time."""
        import duckdb

        self._db.close()
        self._db = duckdb.connect(
            str(self._folder / "records.duckdb"),
            config={
                "threads": 1,
                "memory_limit": f"{32 + self.layout.width // 5}MB",
                "temp_directory": str(self._folder),
            },
        )

    def _number(self, text: Path) -> None:
        """Find the line of every blank and every reject, and from them the numbers of the records."""
        import numpy as np

        ((accepted,),) = self._query("SELECT count(*) FROM records")
        bad = self._query(
            "SELECT line, min(error_type), any_value(csv_line), min(line_byte_position) FROM reject_errors "
            "GROUP BY line ORDER BY line"
        )
        self._bad_lines = np.array([line for line, *_ in bad], dtype=np.int64)
        blank_rows = self._query(
            "SELECT rowid FROM records WHERE c0 = $mark AND c1 IS NULL ORDER BY rowid", {"mark": MARK}
        )
        self._blank_lines = self._line_of(np.array([row for (row,) in blank_rows], dtype=np.int64))
        self._lines = accepted + len(bad)
        for line, error, *_ in bad:
            if error == "LINE SIZE OVER MAXIMUM":  # DuckDB loses its place behind such a record
                raise _record_too_long(int(self._number_of(line)))
        last = self._query("SELECT c0 FROM records ORDER BY rowid DESC LIMIT 1")
        if last != [(END_MARK,)] or (bad and bad[-1][0] == self._lines):
            raise _open_quote(int(self._number_of(self._lines)), self._template)
        self._rows = accepted - 1
        self.blank_lines = len(self._blank_lines)
        self.count = max(0, self._lines - 1 - self.blank_lines - self._offset)
        self._unnamed_columns()
        self._structural = [
            _structural_reject(
                int(self._number_of(line)), error, raw, byte, text, self.layout.width, self._template
            )
            for line, error, raw, byte in bad
        ]

    def _line_of(self, row: Any) -> Any:
        """Row of the scratch table (0-based) -> line among all lines of records (1-based)."""
        import numpy as np

        accepted_before = self._bad_lines - 1 - np.arange(len(self._bad_lines))
        return row + 1 + np.searchsorted(accepted_before, row, side="right")

    def _number_of(self, line: Any) -> Any:
        """Line -> record number (0 for the header); a blank line has that of the record before it."""
        import numpy as np

        return line - self._offset - np.searchsorted(self._blank_lines, line, side="right")

    def chunks(self, after: int, size: int) -> Iterator[Chunk]:
        """The records numbered above ``after``, in order, about ``size`` at a time."""
        import numpy as np

        start, first = self._row_after(after), after + 1
        size = max(1, min(size, CHUNK_CELLS // self.layout.width))
        structural = [reject for reject in self._structural if reject.record_no > after]
        while start < self._rows:
            stop = min(start + size, self._rows)
            cells = self._db.sql(
                "SELECT * FROM records WHERE rowid >= $start AND rowid < $stop",
                params={"start": start, "stop": stop},
            ).to_arrow_table()
            numbers = self._number_of(self._line_of(np.arange(start, stop, dtype=np.int64)))
            last = self.count if stop == self._rows else int(numbers[-1])
            here = [reject for reject in structural if reject.record_no <= last]
            structural = structural[len(here) :]
            if last >= first:
                yield self._chunk(first, last, cells, numbers, here)
            start, first = stop, max(first, last + 1)
        if structural:
            yield self._chunk(first, self.count, None, None, structural)

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

    def _row_after(self, record_no: int) -> int:
        """The first row of the scratch table whose record number is above ``record_no``."""
        low, high = 0, self._rows
        while low < high:
            middle = (low + high) // 2
            if int(self._number_of(self._line_of(middle))) <= record_no:
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
        if cells is None:
            empty = pa.table(
                {"record_no": pa.array([], pa.int64())} | {n: pa.array([], pa.string()) for n in names}
            )
            return Chunk(first, last, empty, tuple(rejects))
        cells = cells.append_column("record_no", pa.array(numbers))
        wanted = pc.greater_equal(cells["record_no"], first)
        if self.blank_lines:
            wanted = pc.and_(wanted, pc.invert(pc.and_(pc.equal(cells["c0"], MARK), pc.is_null(cells["c1"]))))
        cells = cells.filter(wanted)
        if self._inner_blanks:
            cells = _each_cell(cells, lambda column: pc.replace_substring(column, MARK, ""))
        if self.layout.reason_place is not None or not self._template.file.header:
            cells = _without_reasons(cells, self.layout)
        wrong = pc.or_(pc.is_null(cells[f"c{width - 1}"]), pc.is_valid(cells[f"c{width}"]))
        reasons = self._wrong_width(cells.filter(wrong))
        good = cells.filter(pc.invert(wrong)).select(["record_no", *names])
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
            found.append(Reject(row["record_no"], (_width_reason(len(raw), self.layout.width),), raw))
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
                found.setdefault(number, []).append(_control_reason(name, value))
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


def raw_cells(chunk: Chunk, record_nos: list[int]) -> list[tuple[int, tuple[str, ...]]]:
    """The cells of some records of a chunk."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = pc.is_in(chunk.cells["record_no"], value_set=pa.array(record_nos, pa.int64()))
    return [(row.pop("record_no"), tuple(row.values())) for row in chunk.cells.filter(chosen).to_pylist()]


def header_of(path: Path, template: ImportTemplate, scratch: Path) -> tuple[str, ...]:
    """The header of a file as it stands there."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix="header-", dir=scratch) as text:
        _prepare(path, Path(text.name), template)
        return read_layout(Path(text.name), template).header or ()


@dataclass(frozen=True)
class _TextFacts:
    """What was seen while the bytes were brought into one form. ``lines`` counts physical lines and the end mark."""

    lines: int
    blank_lines: int
    controls: bool
    warnings: tuple[Reason, ...]


def _prepare(path: Path, text_path: Path, template: ImportTemplate) -> _TextFacts:
    """Write the file as UTF-8 with LF, blank lines and the end marked. Raises FileError for what is not such text."""
    decoder = codecs.getincrementaldecoder(_CODECS.get(template.file.encoding, template.file.encoding))(
        "strict"
    )
    lines = blank_lines = offset = 0
    controls = mojibake = held_cr = False
    before = "\n"  # the character before the block: a line break at the very start opens with a blank line
    try:
        source = path.open("rb")
    except OSError as error:
        raise FileError(
            "file_missing", f"The uploaded file cannot be read any more ({error.strerror})."
        ) from None
    with source, text_path.open("wb") as target:
        offset = _skip_bom(source, template)
        first = True
        while True:
            block = source.read(BLOCK_BYTES)
            if first:
                _refuse_no_text(block)
            text = _decode(decoder, block, offset, lines, template)
            offset += len(block)
            if first:
                text, first = _without_separator_line(text, template), False
            # CR LF may be cut in two by the block; hold a CR back until the next character is known.
            text = ("\r" if held_cr else "") + text
            held_cr = bool(block) and text.endswith("\r")
            text = text[:-1] if held_cr else text
            if "\r" in text:
                text = text.replace("\r\n", "\n").replace("\r", "\n")
            if MARK in text:
                raise FileError(
                    "encoding", "The file has the noncharacter U+FDD0, which is not for interchange."
                )
            if text and (before == "\n" == text[0] or "\n\n" in text):
                text = ("" if before != "\n" else MARK if text[0] == "\n" else "") + text
                text = text.replace("\n\n", f"\n{MARK}\n").replace("\n\n", f"\n{MARK}\n")
                blank_lines += text.count(MARK)
            controls = controls or _has_controls(text)
            mojibake = mojibake or bool(_MOJIBAKE.search(text))
            lines += text.count("\n")
            before = text[-1] if text else before
            target.write(text.encode("utf-8"))
            if not block:
                break
        if before == "\0":
            raise FileError(
                "trailing_nul", "The file ends with NUL bytes: the copy was cut short. Send it again."
            )
        target.write(f"{'' if before == chr(10) else chr(10)}{END_MARK}\n".encode())
    warnings = (_MOJIBAKE_WARNING,) if mojibake else ()
    return _TextFacts(lines + (2 if before != "\n" else 1), blank_lines, controls, warnings)


_MOJIBAKE = re.compile("Ã[\u0080-\u00bf]|â(?:€|\u0080)|Ã(?:Ÿ|œ|„|–)")
_MOJIBAKE_WARNING = Reason(
    "suspect_mojibake",
    None,
    None,
    "The file looks like UTF-8 that was read and saved as Windows-1252 (Ã¼ in place of ü). Check names with accents.",
)


def _skip_bom(source: io.BufferedReader, template: ImportTemplate) -> int:
    head = source.read(4)
    encoding = template.file.encoding
    for bom, name in _BOMS:
        if head.startswith(bom):
            if name.lower() != encoding:
                raise FileError(
                    "encoding",
                    f"The file is {name}, the template expects {encoding}. Save it as {encoding.upper()}.",
                    "byte 0",
                )
            # The UTF-16 decoder reads its own mark, to know the order of bytes.
            source.seek(0 if name == "UTF-16" else len(bom))
            return source.tell()
    if encoding == "utf-16" and head:
        raise FileError(
            "encoding", "The file has no UTF-16 byte-order mark. Save it as UTF-16 with one.", "byte 0"
        )
    source.seek(0)
    return 0


def _decode(
    decoder: codecs.IncrementalDecoder, block: bytes, offset: int, lines: int, template: ImportTemplate
) -> str:
    held = len(decoder.getstate()[0])
    try:
        return decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        line = lines + 1 + bytes(error.object[: error.start]).count(b"\n")
        raise FileError(
            "encoding",
            f"The file is not {template.file.encoding}: byte 0x{error.object[error.start]:02X} has no meaning there. "
            f"Save it as {template.file.encoding.upper()}, or use a template for its encoding.",
            f"byte {offset - held + error.start}, line {line}",
        ) from None


_BINARY = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
)


def _refuse_no_text(head: bytes) -> None:
    if not head:
        raise FileError("empty_file", "The file is empty.")
    for magic, name in _BINARY:
        if head.startswith(magic):
            raise FileError("not_text", f"The file is {name}, not text. Export it as CSV.", "byte 0")
    sample = head[:2000].rstrip(b"\0")  # NULs at the end are a fault of their own
    if sample.count(0) * 4 > len(sample) and not sample.startswith(
        (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    ):
        message = "The file is full of NUL bytes: it is UTF-16 without a mark, or not text."
        raise FileError("encoding", message, "byte 0")


def _without_separator_line(text: str, template: ImportTemplate) -> str:
    """Excel's first line ``sep=;`` says the delimiter; it must agree with the template."""
    match = re.match(r"sep=(.)(?:\r\n|\r|\n)", text, re.IGNORECASE)
    if not match:
        return text
    if match[1] != template.file.delimiter:
        raise FileError(
            "delimiter_mismatch", _delimiter_sentence(match[1], template.file.delimiter), "line 1"
        )
    return text[match.end() :]


def _delimiter_sentence(seen: str, expected: str) -> str:
    names = {",": "comma (,)", ";": "semicolon (;)", "\t": "tab", "|": "pipe (|)"}
    return (
        f"The fields are separated by {names.get(seen, seen)}, the template expects {names[expected]}. "
        "Save the file with that separator, or use a template for this one."
    )


_CONTROL_BYTES = bytes(b for b in range(0x20) if b not in b"\n") + b"\x7f"


def _has_controls(text: str) -> bool:
    data = text.encode("utf-8")
    return (
        len(data.translate(None, _CONTROL_BYTES)) != len(data)
        or re.search(rb"\xc2[\x80-\x9f]", data) is not None
    )


def read_layout(text: Path, template: ImportTemplate) -> Layout:
    """Find the template's columns in a prepared file, by position or by its header. Raises FileError."""
    first, raw = _first_record(text, template)
    seen = _other_delimiter(raw, first, template)
    if seen:
        raise FileError("delimiter_mismatch", _delimiter_sentence(seen, template.file.delimiter), "line 1")
    if len(first) > MAX_COLUMNS:
        raise FileError(
            "too_many_columns", f"The file has {len(first):,} columns; {MAX_COLUMNS:,} is the most.", "line 1"
        )
    if template.file.header:
        return _layout_by_header(first, template)
    return Layout(
        width=template.field_count,
        places=tuple((column.position or 0) - 1 for column in template.columns),
        names=tuple(column.name for column in template.columns),
        header=None,
        unnamed=(),
        reason_place=None,
        warnings=(),
    )


def _first_record(text: Path, template: ImportTemplate) -> tuple[list[str], str]:
    """The cells of the first record that is not blank, and its first line as text."""
    with text.open(encoding="utf-8", newline="") as file:
        lines = _bounded(file)
        try:
            line = next((line for line in lines if not line.startswith(MARK)), "")
        except csv.Error:
            raise _record_too_long(0 if template.file.header else 1) from None
        if not line:
            if template.file.header:
                raise FileError(
                    "header_mismatch", "The file has only blank lines; it has no header.", "line 1"
                )
            return [], ""

        try:
            first = next(_cells(itertools.chain([line], lines), template))
        except csv.Error:
            raise _record_too_long(0 if template.file.header else 1) from None
    if any(END_MARK in cell for cell in first):
        raise _open_quote(0 if template.file.header else 1, template)
    return [cell.replace(MARK, "") for cell in first], line


def _bounded(file: TextIO) -> Iterator[str]:
    """The lines of a file. Raises csv.Error for one that is longer than any record may be."""
    while line := file.readline(MAX_RECORD_BYTES + 1):
        if len(line) > MAX_RECORD_BYTES:
            raise csv.Error
        yield line


def _cells(lines: Iterable[str], template: ImportTemplate) -> Iterator[list[str]]:
    """Records cut in Python: the first of a file, and the few that DuckDB does not give back whole."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    return csv.reader(lines, delimiter=template.file.delimiter, quotechar=template.file.quote)


def _other_delimiter(line: str, first: list[str], template: ImportTemplate) -> str | None:
    """A delimiter that would cut the first line where the template's does not."""
    if len(first) != 1 or len(template.columns) < 2:
        return None
    for mark in (";", ",", "\t", "|"):
        cells = line.split(mark)
        if template.file.header:
            names = [fold_header(cell.strip(template.file.quote)) for cell in cells]
            fits = any(
                _place(column.header, column.aliases, names) is not None for column in template.columns
            )
        else:
            fits = len(cells) >= template.field_count
        if len(cells) > 1 and fits and mark != template.file.delimiter:
            return mark
    return None


def _layout_by_header(header: list[str], template: ImportTemplate) -> Layout:
    folded = [fold_header(name) for name in header]
    _refuse_foreign_header(header, folded, template)
    doubles = [name for name, fold in zip(header, folded, strict=True) if fold and folded.count(fold) > 1]
    for column in template.columns:
        names = [fold_header(name) for name in (column.header or "", *column.aliases)]
        by_alias = [name for name, fold in zip(header, folded, strict=True) if fold in names]
        doubles = doubles or (by_alias if len(by_alias) > 1 else [])
    if doubles:
        raise FileError(
            "duplicate_column",
            f"The header names a column twice: {_listed(doubles)}. Keep one.",
            "the header",
        )
    places = [_place(column.header, column.aliases, folded) for column in template.columns]
    _refuse_missing(header, folded, places, template)
    reason_place = folded.index(REASON_HEADER) if REASON_HEADER in folded else None
    known = {*places, reason_place}
    unknown = [name for place, name in enumerate(header) if place not in known and folded[place]]
    return Layout(
        width=len(header),
        places=tuple(places),
        names=tuple(
            header[place].strip() if place is not None else column.name
            for place, column in zip(places, template.columns, strict=True)
        ),
        header=tuple(header),
        unnamed=tuple(place for place, fold in enumerate(folded) if not fold),
        reason_place=reason_place,
        warnings=(*_unknown(unknown), *_header_oddities(header, folded, places)),
    )


def _unknown(names: list[str]) -> list[Reason]:
    warnings = [
        Reason(
            "unknown_column", name, None, f'The template does not know the column "{name}"; it was left out.'
        )
        for name in names[:NAMED_COLUMNS]
    ]
    more = len(names) - NAMED_COLUMNS
    if more > 0:
        message = f"The template does not know {more:,} more columns; they were left out."
        warnings.append(Reason("unknown_column", None, None, message))
    return warnings


def _header_oddities(header: list[str], folded: list[str], places: list[int | None]) -> list[Reason]:
    """Warnings about names that were taken although something is odd about them."""
    found = []
    for place, (name, fold) in enumerate(zip(header, folded, strict=True)):
        hidden = sorted({f"U+{ord(c):04X}" for c in name if unicodedata.category(c) == "Cf"})
        if not fold:
            message = f"Column {place + 1} has no name and no values; it was left out."
            found.append(Reason("unnamed_column", None, None, message))
        elif hidden and place in places:
            message = f'The column name "{name}" has invisible characters ({", ".join(hidden)}); it was taken without them.'
            found.append(Reason("invisible_character", name, None, message))
    return found


def _place(header: str | None, aliases: tuple[str, ...], folded: list[str]) -> int | None:
    names = [fold_header(name) for name in (header or "", *aliases)]
    return next((place for place, name in enumerate(folded) if name in names), None)


def _refuse_foreign_header(header: list[str], folded: list[str], template: ImportTemplate) -> None:
    if folded and folded[0].startswith(("<!doctype", "<html", "<?xml")):
        raise FileError(
            "header_mismatch", "The file is a web page, not a CSV file: probably an error message.", "line 1"
        )
    if all(_place(column.header, column.aliases, folded) is None for column in template.columns):
        raise FileError(
            "header_mismatch",
            f"The first record has none of the template's columns; it should name {_listed(_headers(template))}, "
            f"but reads {_listed(header)}.",
            "line 1",
        )


def _refuse_missing(
    header: list[str], folded: list[str], places: list[int | None], template: ImportTemplate
) -> None:
    absent = [column for column, place in zip(template.columns, places, strict=True) if place is None]
    missing = [column.name for column in absent if column.required]
    keys = template.policies.match or ()
    if keys and all(template.column_of(key) in absent for key in keys):
        missing += [
            template.column_of(key).name for key in keys if template.column_of(key).name not in missing
        ]
    if not missing:
        return
    taken = {place for place in places if place is not None}
    unknown = [
        _with_code_points(name) for place, name in enumerate(header) if place not in taken and folded[place]
    ]
    hint = f" The template does not know {_listed(unknown)}." if unknown else ""
    raise FileError("missing_column", f"The header lacks {_listed(missing)}.{hint}", "the header")


def _headers(template: ImportTemplate) -> list[str]:
    return [column.name for column in template.columns]


def _listed(names: list[str]) -> str:
    shown = [f'"{name[:60]}"' for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _with_code_points(name: str) -> str:
    """Show characters that look like others: a Cyrillic е in a Latin word."""
    foreign = sorted({f"U+{ord(c):04X}" for c in name if ord(c) > 0x24F})
    return f"{name} ({' '.join(foreign)})" if foreign else name


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


def _width_reason(found: int, expected: int) -> Reason:
    rule = "too_few_fields" if found < expected else "too_many_fields"
    return Reason(
        rule, None, None, f"The record has {found} field{'s' * (found != 1)}, it should have {expected}."
    )


def _control_reason(name: str, value: str) -> Reason:
    found = next(c for c in value if ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F)
    what = {"\n": "a line break", "\t": "a tab", "\0": "a NUL character"}.get(
        found, f"the control character U+{ord(found):04X}"
    )
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value)
    return Reason("control_char", name, shown, f"{name} contains {what}, which this column does not allow.")


def _structural_reject(
    number: int, error: str, raw: str, byte: int, text: Path, width: int, template: ImportTemplate
) -> Reject:
    """The reject for a record that DuckDB could not cut; ``raw`` is its text, ``byte`` where it begins (from 1)."""
    shown = raw.replace(MARK, "").strip("\n")
    if error == "TOO MANY COLUMNS":
        try:
            cells = next(_cells(io.StringIO(shown, newline=""), template))
            if len(raw.encode()) >= SHOWN_BYTES:
                cells = _read_again(text, byte, template)
        except csv.Error:
            raise _record_too_long(number) from None
        return Reject(number, (_width_reason(len(cells), width),), tuple(cells))
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
        return [cell.replace(MARK, "") for cell in next(_cells(_bounded(lines), template))]


def _open_quote(number: int, template: ImportTemplate) -> FileError:
    return FileError(
        "unterminated_quote",
        f"A quote ({template.file.quote}) is opened and never closed, so that the rest of the file reads as one cell. "
        "Close it, or double it where it is meant as a character.",
        _place_of(number),
    )


def _record_too_long(number: int) -> FileError:
    return FileError(
        "record_too_long",
        f"A record is longer than {MAX_RECORD_BYTES // 1_000_000} MB. Is a quote opened and never closed?",
        _place_of(number),
    )


def _place_of(number: int) -> str:
    return f"record {number}" if number else "the header"


def _too_long(text: Path, template: ImportTemplate) -> FileError:
    """Name the record that did not fit into memory: read on record by record until one is over the limit."""
    number = 0 if template.file.header else 1
    with text.open(encoding="utf-8", newline="") as file:
        try:
            for record in _cells(_bounded(file), template):
                number += bool(record) and record != [MARK]
        except csv.Error:
            return _record_too_long(number)
    raise SetupError("There is too little memory to cut this file into records.")
