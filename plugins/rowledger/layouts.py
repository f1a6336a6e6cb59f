"""Where the columns of a template stand in a file: by position, or by the names in its header."""

from __future__ import annotations

import csv
import itertools
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from rowledger.errors import FileError
from rowledger.heads import HEAD_BYTES, first_records
from rowledger.model import Reason
from rowledger.structure import bounded_lines, cut, delimiter_sentence, open_quote, record_too_long
from rowledger.templates import ImportTemplate, fold_header
from rowledger.text_in import END_MARK, MARK, prepare

MAX_COLUMNS = 5000
NAMED_COLUMNS = 20
REASON_HEADER = "rowledger_reasons"  # the column that an export of rejects adds
REASON_MARK = "rowledger: "  # begins the reason that it gives


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


def read_layout(text: Path, template: ImportTemplate) -> Layout:
    """Find the template's columns in a prepared file, by position or by its header. Raises FileError."""
    first, raw = _first_record(text, template)
    seen = _other_delimiter(raw, first, template)
    if seen:
        raise FileError("delimiter_mismatch", delimiter_sentence(seen, template.file.delimiter), "line 1")
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


def header_of(path: Path, template: ImportTemplate, scratch: Path) -> tuple[str, ...]:
    """The header of a file as it stands there."""
    return layout_of(path, template, scratch).header or ()


def layout_of(path: Path, template: ImportTemplate, scratch: Path) -> Layout:
    """Where the columns stand in a file, of which no more than its beginning is read, if that will do."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="header-", dir=scratch) as folder:
        beginning, text = Path(folder) / "beginning", Path(folder) / "text"
        with path.open("rb") as source:
            head = source.read(HEAD_BYTES)
        first = first_records(head, template, 1, whole=False)
        beginning.write_bytes(first or b"")
        prepare(beginning if first else path, text, template)
        return read_layout(text, template)


def _first_record(text: Path, template: ImportTemplate) -> tuple[list[str], str]:
    """The cells of the first record that is not blank, and its first line as text."""
    with text.open(encoding="utf-8", newline="") as file:
        lines = bounded_lines(file)
        try:
            line = next((line for line in lines if not line.startswith(MARK)), "")
        except csv.Error:
            raise record_too_long(0 if template.file.header else 1) from None
        if not line:
            if template.file.header:
                raise FileError(
                    "header_mismatch", "The file has only blank lines; it has no header.", "line 1"
                )
            return [], ""

        try:
            first = next(cut(itertools.chain([line], lines), template))
        except csv.Error:
            raise record_too_long(0 if template.file.header else 1) from None
    if any(END_MARK in cell for cell in first):
        raise open_quote(0 if template.file.header else 1, template)
    return [cell.replace(MARK, "") for cell in first], line


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
