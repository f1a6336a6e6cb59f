"""What can be wrong with the structure of a file, in words; and records cut by Python where DuckDB is no help."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import TextIO

from rowledger.errors import FileError
from rowledger.model import Reason
from rowledger.templates import ImportTemplate

MAX_RECORD_BYTES = 1_000_000


def width_reason(found: int, expected: int) -> Reason:
    """A record with too few or too many fields."""
    rule = "too_few_fields" if found < expected else "too_many_fields"
    return Reason(
        rule, None, None, f"The record has {found} field{'s' * (found != 1)}, it should have {expected}."
    )


def control_reason(name: str, value: str) -> Reason:
    """A cell with a line break, a tab or another control character."""
    found = next(c for c in value if ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F)
    what = {"\n": "a line break", "\t": "a tab", "\0": "a NUL character"}.get(
        found, f"the control character U+{ord(found):04X}"
    )
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value)
    return Reason("control_char", name, shown, f"{name} contains {what}, which this column does not allow.")


def delimiter_sentence(seen: str, expected: str) -> str:
    """The delimiter that was seen, and the one that the template expects."""
    names = {",": "comma (,)", ";": "semicolon (;)", "\t": "tab", "|": "pipe (|)"}
    return (
        f"The fields are separated by {names.get(seen, seen)}, the template expects {names[expected]}. "
        "Save the file with that separator, or use a template for this one."
    )


def open_quote(number: int, template: ImportTemplate) -> FileError:
    """A quote of the record of that number (0: the header) swallows the rest of the file."""
    return FileError(
        "unterminated_quote",
        f"A quote ({template.file.quote}) is opened and never closed, so that the rest of the file reads as one cell. "
        "Close it, or double it where it is meant as a character.",
        _place_of(number),
    )


def record_too_long(number: int) -> FileError:
    """The record of that number (0: the header) is longer than any may be."""
    return FileError(
        "record_too_long",
        f"A record is longer than {MAX_RECORD_BYTES // 1_000_000} MB. Is a quote opened and never closed?",
        _place_of(number),
    )


def records_too_long() -> FileError:
    """No record is too long for itself, but too many long ones follow each other."""
    return FileError(
        "records_too_long",
        "Too many long records follow each other: 2,000 of them have more than 100 MB. Send the file in parts of "
        "at most 100 MB each, or with shorter records.",
    )


def _place_of(number: int) -> str:
    return f"record {number}" if number else "the header"


def bounded_lines(file: TextIO) -> Iterator[str]:
    """The lines of a file. Raises csv.Error for one that is longer than any record may be."""
    while line := file.readline(MAX_RECORD_BYTES + 1):
        if len(line) > MAX_RECORD_BYTES:
            raise csv.Error
        yield line


def cut(lines: Iterable[str], template: ImportTemplate) -> Iterator[list[str]]:
    """Records cut in Python: the first of a file, and the few that DuckDB does not give back whole."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    return csv.reader(lines, delimiter=template.file.delimiter, quotechar=template.file.quote)
