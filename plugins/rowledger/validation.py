"""Chunk + suite -> a verdict per record.

In: raw cells of well-formed records. Out: the accepted records with typed values, ready to be staged, and the
rejected ones with all their reasons and their raw cells. Great Expectations judges every rule of the template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rowledger import suites, values
from rowledger.model import Kind, Reason, Reject
from rowledger.records_in import Chunk, Records
from rowledger.templates import Column, ImportTemplate

SHOWN_CHARACTERS = 200
SHOWN_ITEMS = 5


@dataclass(frozen=True)
class Verdicts:
    """What became of a chunk so far: rejects, and ``accepted``, an Arrow table.

    It has ``record_no``, ``match_key``, ``warnings`` (JSON text or null), a typed column per field that the template
    fills and, if it has clear words, ``cleared``, the names of the fields that a record clears, or null.
    """

    rejects: tuple[Reject, ...]
    accepted: Any


@dataclass(frozen=True)
class Judged:
    """A chunk, its cleaned columns, and per record number all reasons and all warnings."""

    chunk: Chunk
    numbers: Any
    cleaned: list[Any]
    cleared: dict[str, Any]
    reasons: dict[int, list[Reason]]
    warnings: dict[int, list[Reason]]


class Validation:
    """Judges the chunks of one file against one template."""

    def __init__(
        self, template: ImportTemplate, kind: Kind, records: Records, references: Mapping[str, list[str]]
    ) -> None:
        self._template = template
        self._kind = kind
        self._records = records
        self._references = references
        self._judge = suites.judge(template)
        self._unique = [
            (column, place)
            for column, place in zip(template.columns, records.layout.places, strict=True)
            if column.unique
        ]
        for column, place in self._unique:
            if place is not None:
                records.index_first(place, partial(_compared, column))

    def judge(self, chunk: Chunk) -> Judged:
        """Let Great Expectations judge every well-formed record of the chunk."""
        import pyarrow.compute as pc

        numbers = chunk.cells["record_no"].combine_chunks()
        places = zip(self._template.columns, self._records.layout.places, strict=True)
        cells = [(column, _cells(chunk, place)) for column, place in places]
        cleaned = [_cleaned(column, array) for column, array in cells]
        cleared = {
            column.field: pc.fill_null(pc.equal(values.clean(array), column.clear), False)
            for column, array in cells
            if column.field and column.clear is not None
        }
        reasons, warnings = self._reasons(numbers, cleaned) if len(numbers) else ({}, {})
        return Judged(chunk, numbers, cleaned, cleared, reasons, warnings)

    def verdicts(self, judged: Judged) -> Verdicts:
        """Turn what was judged into rejects with their cells and accepted records with typed values."""
        import pyarrow as pa
        import pyarrow.compute as pc

        chunk, numbers, reasons = judged.chunk, judged.numbers, dict(judged.reasons)
        typed = {
            column.field: _typed(column, array, self._references)
            for column, array in zip(self._template.columns, judged.cleaned, strict=True)
            if column.field
        }
        match_key = self._match_key(typed, numbers, reasons)
        rejects = [*chunk.rejects, *_rejects(chunk, reasons, judged.warnings)]
        table = pa.table(
            {"record_no": numbers, "match_key": match_key, "warnings": _as_json(numbers, judged.warnings)}
            | typed
            | ({"cleared": _names(judged.cleared)} if judged.cleared else {})
        )
        if reasons:
            table = table.filter(
                pc.invert(pc.is_in(numbers, value_set=pa.array(sorted(reasons), pa.int64())))
            )
        return Verdicts(tuple(sorted(rejects, key=lambda reject: reject.record_no)), table)

    def _reasons(
        self, numbers: Any, cleaned: list[Any]
    ) -> tuple[dict[int, list[Reason]], dict[int, list[Reason]]]:
        """Per record number all its reasons and all its warnings, in the order of the columns."""
        frame = self._frame(numbers, cleaned)
        reasons: dict[int, list[Reason]] = {}
        warnings: dict[int, list[Reason]] = {}
        for finding in self._judge.findings(frame, self._references):
            column = self._template.columns[finding.index]
            name = self._records.layout.names[finding.index]
            found = reasons if column.severity == "reject" else warnings
            cells = frame[column.name].loc[list(finding.record_nos)]
            for number, value in zip(finding.record_nos, cells, strict=True):
                found.setdefault(number, []).append(
                    self._reason(
                        column, finding.rule, name, value if isinstance(value, str) else None, number, frame
                    )
                )
        return reasons, warnings

    def _frame(self, numbers: Any, cleaned: list[Any]) -> Any:
        """The pandas frame that Great Expectations judges; its index is the record number."""
        import pandas as pd
        import pyarrow as pa

        names = [column.name for column in self._template.columns]
        columns = dict(zip(names, cleaned, strict=True))
        for column, place in self._unique:
            columns[suites.RECORD_NO] = numbers
            columns[suites.first_record_column(column)] = (
                pa.nulls(len(numbers), pa.int64())
                if place is None
                else self._records.first_with(place, numbers, _compared(column, columns[column.name]))
            )
        frame = pa.table(columns).to_pandas()
        frame.index = pd.Index(numbers.to_pandas())
        return frame

    def _reason(
        self, column: Column, rule: str, name: str, value: str | None, number: int, frame: Any
    ) -> Reason:
        shown = value if value is None else _cut(value)
        if rule == "unique":
            first = int(frame.at[number, suites.first_record_column(column)])
            return Reason(
                rule, name, shown, f'{name} "{shown}" is already in record {first}; it may occur only once.'
            )
        if column.type == "list" and value is not None:
            return self._items_reason(column, rule, name, value)
        return Reason(rule, name, shown, _message(column, rule, name, f'"{shown}"', self._references))

    def _items_reason(self, column: Column, rule: str, name: str, value: str) -> Reason:
        """The reason why a list is wrong, which names the wrong items."""
        import pyarrow as pa
        import pyarrow.compute as pc

        lists = values.as_lists(pa.array([value]), column.separator)
        right = _right_items(column, lists, self._references, rule)
        wrong = pc.filter(pc.list_flatten(lists), pa.array(~right)).to_pylist()
        shown, more = wrong[:SHOWN_ITEMS], len(wrong) - SHOWN_ITEMS
        shown = [_cut(item) for item in shown]
        quoted = ", ".join(f'"{item}"' for item in shown) + (f" and {more} more" if more > 0 else "")
        message = _message(column, rule, name, quoted, self._references, several=len(wrong) > 1)
        return Reason(rule, name, column.separator.join(shown), message)

    def _match_key(self, typed: dict[str, Any], numbers: Any, reasons: dict[int, list[Reason]]) -> Any:
        """The key that finds the target: the first key of the template that the record has."""
        import pyarrow.compute as pc

        fields = self._template.policies.match or [key for key in self._kind.match_keys if key in typed]
        keys = [pc.ascii_lower(typed[field]) if field == "email" else typed[field] for field in fields]
        if len(keys) > 1:
            keys = [pc.binary_join_element_wise(f"{rank}", key, ":") for rank, key in enumerate(keys)]
        match_key = pc.coalesce(*keys)
        names = " or ".join(self._records.layout.names[self._template.columns.index(self._template.column_of(f))]
                            for f in fields)  # fmt: skip
        for number in pc.filter(numbers, pc.is_null(match_key)).to_pylist():
            if not reasons.get(number):
                message = f"The record has no {names}, so it cannot be told whom or what it is about."
                reasons.setdefault(number, []).append(Reason("missing_key", names, None, message))
        return match_key


def _cells(chunk: Chunk, place: int | None) -> Any:
    import pyarrow as pa

    if place is None:
        return pa.nulls(chunk.cells.num_rows, pa.string())
    return chunk.cells[f"c{place}"].combine_chunks()


def _cleaned(column: Column, cells: Any) -> Any:
    """Cells as the text that is judged; null is absent: an empty cell, the clear word, a list without items."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = values.clean(cells)
    if column.clear is not None:
        text = pc.if_else(pc.equal(text, column.clear), None, text)
    if column.type == "list":
        if isinstance(text, pa.ChunkedArray):
            text = text.combine_chunks()
        text = values.clean_list(text, column.separator)
    return text


def _compared(column: Column, cells: Any) -> Any:
    """Cells as they are compared with those of other records: an email address in any case, as in the keys."""
    import pyarrow.compute as pc

    text = values.clean(cells)
    return pc.ascii_lower(text) if column.type == "email" else text


def _names(cleared: dict[str, Any]) -> Any:
    """Per record the names of the fields that it clears, or null."""
    import numpy as np
    import pyarrow as pa

    flags = np.column_stack([flag.to_numpy(zero_copy_only=False) for flag in cleared.values()])
    names = pa.array(list(cleared) * len(flags), pa.string())
    offsets = pa.array(range(0, len(names) + 1, len(cleared)), pa.int32())
    return values.keep_items(pa.ListArray.from_arrays(offsets, names), flags.reshape(-1))


def _right_items(column: Column, lists: Any, references: Mapping[str, list[str]], *rules: str) -> Any:
    """Which items of all lists obey the rules of that name; all rules, if none is named."""
    import numpy as np

    right = np.ones(len(lists.flatten()), dtype=bool)
    for rule, arguments in suites.item_rules(column):
        if not rules or rule in rules:
            right &= values.right_items(lists, **suites.with_lists(arguments, references))
    return right


def _typed(column: Column, text: Any, references: Mapping[str, list[str]]) -> Any:
    """The cleaned cells as the values that are stored; null where they do not obey their type."""
    if column.type == "number":
        return values.as_numbers(text, column.decimal)
    if column.type == "boolean":
        return values.as_booleans(text, column.words.true, column.words.false)
    if column.type == "list":
        lists = values.as_lists(text, column.separator)
        if column.severity == "warn":  # otherwise a record with a wrong item is rejected
            return values.keep_items(lists, _right_items(column, lists, references))
        return lists
    if column.type == "date":
        return values.as_dates(text, column.format or "")
    if column.type == "email":
        return values.as_emails(text)
    if column.type == "phone":
        return values.as_phones(text, column.region)
    return text


def _cut(value: str) -> str:
    return value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"


def _message(
    column: Column,
    rule: str,
    name: str,
    value: str,
    references: Mapping[str, list[str]],
    *,
    several: bool = False,
) -> str:
    """The sentence for a business user: what is wrong with which value (or items), and what would be right."""
    if rule == "required":
        return f"{name} is empty, but must be filled in."
    if rule == "length":
        least = f"at least {column.min_length} and " if column.min_length else ""
        each = " each" if several else ""
        return f"{name} {value} must have {least}at most {column.max_length} characters{each}."
    if rule == "pattern":
        return f"{name} {value} {'do' if several else 'does'} not have the form {column.pattern}."
    if rule == "not_in_set":
        allowed = list(column.values or references.get(column.reference or "", []))
        listed = ", ".join(allowed[:10]) + (f" and {len(allowed) - 10} more" if len(allowed) > 10 else "")
        return f"{name} {value} {'are' if several else 'is'} not allowed; allowed are: {listed or 'none'}."
    forms = {
        "date": f"a date of the form {column.format} between {values.FIRST_YEAR} and {values.LAST_YEAR}",
        "email": "an email address",
        "phone": "a phone number that can be dialled"
        + ("" if column.region else ", with its country code such as +49"),
        "code": "a code of letters, digits and signs without spaces",
        "number": f"a number such as 1234{column.decimal}5, without thousands marks, with at most "
        f"{values.WHOLE_DIGITS} digits before and {values.DECIMALS} after the decimal mark",
        "boolean": f"a word for true ({', '.join(column.words.true)}) or for false ({', '.join(column.words.false)})",
    }
    return f"{name} {value} is not {forms[column.type]}."


def _rejects(
    chunk: Chunk, reasons: dict[int, list[Reason]], warnings: dict[int, list[Reason]]
) -> list[Reject]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not reasons:
        return []
    chosen = pc.is_in(chunk.cells["record_no"], value_set=pa.array(sorted(reasons), pa.int64()))
    found = []
    for row in chunk.cells.filter(chosen).to_pylist():
        number = row.pop("record_no")
        found.append(
            Reject(number, tuple(reasons[number]), tuple(row.values()), tuple(warnings.get(number, ())))
        )
    return found


def _as_json(numbers: Any, warnings: dict[int, list[Reason]]) -> Any:
    import pyarrow as pa

    if not warnings:
        return pa.nulls(len(numbers), pa.string())
    texts = {number: json.dumps([reason.as_dict() for reason in found]) for number, found in warnings.items()}
    return pa.array([texts.get(number) for number in numbers.to_pylist()], pa.string())
