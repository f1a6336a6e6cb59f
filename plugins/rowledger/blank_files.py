"""A template as a file to fill in: a CSV of its header, or a spreadsheet with drop-downs of the codes allowed.

In: a template and, for the spreadsheet, the codes of a domain. Out: bytes. A spreadsheet keeps every cell as text, so
that leading zeros and dates stay as they are typed, and nothing that a code begins with is ever computed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rowledger import reference
from rowledger.db import Connection
from rowledger.errors import SetupError
from rowledger.templates import Column, ImportTemplate, in_words

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

LAST_ROW = 1_048_576  # of a sheet
MOST_CHOICES = 5000  # nobody looks for a value in a longer list
PROMPT, PROMPT_TITLE = 255, 32  # how long Excel lets them be
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def as_csv(template: ImportTemplate) -> bytes:
    """The header as the template has it; nothing for files without one. Raises SetupError."""
    if not template.file.header:
        return b""
    file = template.file
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=file.delimiter, quotechar=file.quote, lineterminator="\r\n")
    writer.writerow([column.name for column in template.columns])
    header = text.getvalue()
    try:
        # Spreadsheets take UTF-8 without a mark for something else; plain ASCII is the same in both.
        return header.encode(
            "utf-8-sig" if file.encoding == "utf-8" and not header.isascii() else file.encoding
        )
    except UnicodeEncodeError as error:
        letter, encoding = error.object[error.start], file.encoding
        raise SetupError(
            f'Template "{template.name}" has the letter {letter!r} in a header, which {encoding} cannot write.'
        ) from None


def fields(template: ImportTemplate) -> list[str]:
    """What the fields of a record are called, in the order of a file; those that the template leaves out are numbered."""
    if template.file.header:
        return [column.name for column in template.columns]
    by_place = {column.position: column.name for column in template.columns}
    return [by_place.get(place, f"column {place}") for place in range(1, template.field_count + 1)]


def choices(connection: Connection, template: ImportTemplate, domain: str) -> dict[str, list[str]]:
    """The codes that each column with a closed set may have in a domain, by column name. Raises UnknownCode."""
    named = [column.reference for column in template.columns if column.reference]
    lists = reference.list_values(connection, named, domain)
    found = {
        column.name: list(column.values or lists.get(column.reference or "", []))
        for column in template.columns
        if column.values or column.reference
    }
    if template.kind == "contract_status":  # the codes are no list of the template, but of the domain
        statuses = reference.listed(connection, reference.Status, domain)
        found.setdefault(template.column_of("result_code").name, [s.code for s in statuses if s.in_use])
    return found


def as_xlsx(template: ImportTemplate, choices: Mapping[str, Sequence[str]]) -> bytes:
    """A workbook: the sheet to fill in, how to do it, and the codes that its drop-downs offer."""
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Records"
    words = {c.name: [*c.words.true, *c.words.false] for c in template.columns if c.type == "boolean"}
    offered = {
        name: found for name, found in (words | dict(choices)).items() if 0 < len(found) <= MOST_CHOICES
    }
    places = _add_codes(book, offered)
    _add_columns(sheet, template, places)
    _add_instructions(book, template)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _add_codes(book: Workbook, offered: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A sheet with a column of codes for each column of the file; returns where the codes of each stand."""
    from openpyxl.utils import get_column_letter

    places = {}
    sheet = book.create_sheet("Codes")
    for number, (name, values) in enumerate(offered.items(), 1):
        _text(sheet, 1, number, name, bold=True)
        for place, value in enumerate(values, 2):
            _text(sheet, place, number, value)
        letter = get_column_letter(number)
        places[name] = f"Codes!${letter}$2:${letter}${len(values) + 1}"
        sheet.column_dimensions[letter].width = 24
    return places


def _add_columns(sheet: Worksheet, template: ImportTemplate, places: Mapping[str, str]) -> None:
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    by_name = {column.name: column for column in template.columns}
    first = 2 if template.file.header else 1
    for number, name in enumerate(fields(template), 1):
        if template.file.header:
            _text(sheet, 1, number, name, bold=True)
        letter = get_column_letter(number)
        sheet.column_dimensions[letter].width = min(max(len(name) + 4, 14), 40)
        sheet.column_dimensions[letter].number_format = "@"
        rule = DataValidation(
            allow_blank=True, showInputMessage=True, **_rule(by_name.get(name), places.get(name))
        )
        rule.promptTitle, rule.prompt = _cut(name, PROMPT_TITLE), _cut(_prompt(by_name.get(name)), PROMPT)
        rule.add(f"{letter}{first}:{letter}{LAST_ROW}")
        sheet.add_data_validation(rule)
    if template.file.header:
        sheet.freeze_panes = "A2"


def _rule(column: Column | None, place: str | None) -> dict[str, Any]:
    """What a cell is held to. Several codes in one cell cannot be held against a drop-down, which then only offers."""
    if column is None or place is None:
        return {"type": None}
    closed = bool(column.values or column.reference or column.type == "boolean") and not column.clear
    return {
        "type": "list",
        "formula1": place,
        "showErrorMessage": column.type != "list" and column.severity == "reject",
        # A result code may be new, a cell may have the word that clears: Excel asks, and takes it all the same.
        "errorStyle": "stop" if closed else "warning",
        "errorTitle": _cut(column.name, PROMPT_TITLE),
        "error": "This is not one of the codes on the sheet Codes.",
    }


def _prompt(column: Column | None) -> str:
    if column is None:
        return "Not used; leave it empty."
    return _sentence(in_words.rules(column))


def _add_instructions(book: Workbook, template: ImportTemplate) -> None:
    sheet = book.create_sheet("How to fill in", 1)
    told = [
        (template.title, None),
        ("Fill in the sheet Records, one record a line, and save that sheet as CSV:", None),
        *((f"– {line}", None) for line in in_words.file_format(template)),
        ("", None),
        ("Column", "What it holds"),
    ]
    by_name = {column.name: column for column in template.columns}
    told += [(name, _prompt(by_name.get(name))) for name in fields(template)]
    for place, (left, right) in enumerate(told, 1):
        _text(sheet, place, 1, left, bold=place == 1 or left == "Column")
        if right:
            _text(sheet, place, 2, right, bold=left == "Column")
    sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = 28, 100


def _sentence(phrases: Sequence[str]) -> str:
    text = "; ".join(phrases)
    return f"{text[0].upper()}{text[1:]}."


def _text(sheet: Worksheet, row: int, column: int, value: str, *, bold: bool = False) -> None:
    """A cell that is text, whatever it begins with."""
    from openpyxl.styles import Font

    cell = sheet.cell(row, column)
    cell.value = _visible(value)
    cell.data_type, cell.quotePrefix, cell.number_format = "s", True, "@"
    if bold:
        cell.font = Font(bold=True)


def _visible(text: str) -> str:
    """Without what no workbook may hold."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    return ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text)


def _cut(text: str, length: int) -> str:
    text = _visible(text)
    return text if len(text) <= length else text[: length - 1] + "…"
