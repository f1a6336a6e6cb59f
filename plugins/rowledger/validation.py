"""Chunk + suite -> a verdict per record.

In: raw cells of well-formed records. Out: the accepted records with typed values, ready to be staged, and the
rejected ones with all their reasons and their raw cells. Great Expectations judges every rule of the template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rowledger import suites, values
from rowledger.model import Kind, Reason, Reject
from rowledger.records_in import Chunk, Records
from rowledger.templates import Column, ImportTemplate

SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Verdicts:
    """What became of a chunk so far: rejects, and ``accepted``, an Arrow table.

    It has ``record_no``, ``match_key``, ``warnings`` (JSON text or null) and a typed column per field of the kind
    that the template fills.
    """

    rejects: tuple[Reject, ...]
    accepted: Any


@dataclass(frozen=True)
class Judged:
    """A chunk, its cleaned columns, and per record number all reasons and all warnings."""

    chunk: Chunk
    numbers: Any
    cleaned: list[Any]
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
        for _, place in self._unique:
            if place is not None:
                records.index_first(place, values.clean)

    def judge(self, chunk: Chunk) -> Judged:
        """Let Great Expectations judge every well-formed record of the chunk."""
        numbers = chunk.cells["record_no"].combine_chunks()
        cleaned = [self._cleaned(chunk, place) for place in self._records.layout.places]
        reasons, warnings = self._reasons(numbers, cleaned) if len(numbers) else ({}, {})
        return Judged(chunk, numbers, cleaned, reasons, warnings)

    def verdicts(self, judged: Judged) -> Verdicts:
        """Turn what was judged into rejects with their cells and accepted records with typed values."""
        import pyarrow as pa
        import pyarrow.compute as pc

        chunk, numbers, reasons = judged.chunk, judged.numbers, dict(judged.reasons)
        typed = {
            column.field: _typed(column, array)
            for column, array in zip(self._template.columns, judged.cleaned, strict=True)
            if column.field
        }
        match_key = self._match_key(typed, numbers, reasons)
        rejects = [*chunk.rejects, *_rejects(chunk, reasons, judged.warnings)]
        table = pa.table(
            {"record_no": numbers, "match_key": match_key, "warnings": _as_json(numbers, judged.warnings)}
            | typed
        )
        if reasons:
            table = table.filter(
                pc.invert(pc.is_in(numbers, value_set=pa.array(sorted(reasons), pa.int64())))
            )
        return Verdicts(tuple(sorted(rejects, key=lambda reject: reject.record_no)), table)

    def _cleaned(self, chunk: Chunk, place: int | None) -> Any:
        import pyarrow as pa

        if place is None:
            return pa.nulls(chunk.cells.num_rows, pa.string())
        return values.clean(chunk.cells[f"c{place}"].combine_chunks())

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
                else self._records.first_with(place, numbers, columns[column.name])
            )
        frame = pa.table(columns).to_pandas()
        frame.index = pd.Index(numbers.to_pandas())
        return frame

    def _reason(
        self, column: Column, rule: str, name: str, value: str | None, number: int, frame: Any
    ) -> Reason:
        shown = value if value is None or len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"
        if rule == "unique":
            first = int(frame.at[number, suites.first_record_column(column)])
            return Reason(
                rule, name, shown, f'{name} "{shown}" is already in record {first}; it may occur only once.'
            )
        return Reason(rule, name, shown, _message(column, rule, name, shown, self._references))

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


def _typed(column: Column, text: Any) -> Any:
    """The cleaned cells as the values that are stored; null where they do not obey their type."""
    if column.type == "date":
        return values.as_dates(text, column.format or "")
    if column.type == "email":
        return values.as_emails(text)
    if column.type == "phone":
        return values.as_phones(text, column.region)
    return text


def _message(
    column: Column, rule: str, name: str, value: str | None, references: Mapping[str, list[str]]
) -> str:
    """The sentence for a business user: what is wrong with which value, and what would be right."""
    if rule == "required":
        return f"{name} is empty, but must be filled in."
    if rule == "length":
        least = f"at least {column.min_length} and " if column.min_length else ""
        return f'{name} "{value}" must have {least}at most {column.max_length} characters.'
    if rule == "pattern":
        return f'{name} "{value}" does not have the form {column.pattern}.'
    if rule == "not_in_set":
        allowed = list(column.values or references.get(column.reference or "", []))
        listed = ", ".join(allowed[:10]) + (f" and {len(allowed) - 10} more" if len(allowed) > 10 else "")
        return f'{name} "{value}" is not allowed; allowed are: {listed}.'
    forms = {
        "date": f"a date of the form {column.format} between {values.FIRST_YEAR} and {values.LAST_YEAR}",
        "email": "an email address",
        "phone": "a phone number that can be dialled"
        + ("" if column.region else ", with its country code such as +49"),
        "code": "a code of letters, digits and signs without spaces",
    }
    return f'{name} "{value}" is not {forms[column.type]}.'


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
