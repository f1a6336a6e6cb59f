"""ImportTemplate -> Great Expectations suite, and the verdict of a suite on a frame.

Nobody writes suites by hand: the same template always derives the same suite, whose hash is kept with every batch.
Lists kept in the database enter as suite parameters, so that they are not part of the suite.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rowledger import values
from rowledger.errors import SetupError
from rowledger.templates import OWN_PREFIX, Column, ImportTemplate

if TYPE_CHECKING:
    import pandas as pd

RECORD_NO = f"{OWN_PREFIX}record_no"


@dataclass(frozen=True)
class Finding:
    """One expectation that some records did not meet: which column of the template, which rule, which records."""

    index: int
    rule: str
    record_nos: tuple[int, ...]


def first_record_column(column: Column) -> str:
    """The helper column of a frame with the first record of the file that has the same value."""
    return f"{OWN_PREFIX}first_record_with {column.name}"


def derive(template: ImportTemplate) -> list[dict[str, Any]]:
    """The expectations of a template: type, kwargs and meta of each, in the order of its columns."""
    return [
        {
            "type": kind,
            "kwargs": kwargs,
            "meta": {"column": index, "rule": rule},
            "severity": _severity(column),
        }
        for index, column in enumerate(template.columns)
        for rule, kind, kwargs in _expectations(column)
    ]


def _severity(column: Column) -> str:
    return "critical" if column.severity == "reject" else "warning"


def _expectations(column: Column) -> list[tuple[str, str, dict[str, Any]]]:
    """Rule word, expectation type and arguments for every rule of a column."""
    here = {"column": column.name}
    found: list[tuple[str, str, dict[str, Any]]] = []
    if column.required:
        found.append(("required", "expect_column_values_to_not_be_null", here))
    if column.type == "list":
        return found + [
            (rule, _ITEMS, here | {"separator": column.separator} | kwargs)
            for rule, kwargs in item_rules(column)
        ]
    found += _type_expectations(column, here)
    if column.pattern:
        found.append(("pattern", "expect_column_values_to_match_regex", here | _whole(column.pattern)))
    found += [("not_in_set", "expect_column_values_to_be_in_set", here | one) for one in _sets(column)]
    if column.unique:
        pair = {
            "column_A": RECORD_NO,
            "column_B": first_record_column(column),
            "ignore_row_if": "either_value_is_missing",
        }
        found.append(("unique", "expect_column_pair_values_to_be_equal", pair))
    return found


_ITEMS = "expect_column_values_to_be_rowledger_items"


def item_rules(column: Column) -> list[tuple[str, dict[str, Any]]]:
    """Rule word and arguments of ``values.right_items`` for every rule that a list's items have to obey."""
    return [
        *(("length", lengths) for lengths in _lengths(column)),
        *([("pattern", _whole(column.pattern))] if column.pattern else ()),
        *(("not_in_set", one) for one in _sets(column)),
    ]


def _lengths(column: Column) -> list[dict[str, int]]:
    if _bounded(column) and {"min_length", "max_length"}.isdisjoint(column.model_fields_set):
        return []
    lengths = {"min_value": column.min_length, "max_value": column.max_length}
    return [{key: value for key, value in lengths.items() if value is not None}]


def _sets(column: Column) -> list[dict[str, Any]]:
    return [
        *([{"value_set": list(column.values)}] if column.values else ()),
        *([{"value_set": {"$PARAMETER": column.reference}}] if column.reference else ()),
    ]


def _type_expectations(column: Column, here: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    if column.type == "date":
        return [("format", "expect_column_values_to_be_rowledger_date", here | {"format": column.format})]
    if column.type == "number":
        return [("format", "expect_column_values_to_be_rowledger_number", here | {"decimal": column.decimal})]
    if column.type == "boolean":
        words = {"true": list(column.words.true), "false": list(column.words.false)}
        return [("format", "expect_column_values_to_be_rowledger_boolean", here | words)]
    found = [
        ("length", "expect_column_value_lengths_to_be_between", here | lengths)
        for lengths in _lengths(column)
    ]
    if column.type == "code":
        found.append(("format", "expect_column_values_to_match_regex", here | _whole(values.CODE_PATTERN)))
    if column.type == "email":
        found.append(("format", "expect_column_values_to_be_rowledger_email", here))
    if column.type == "phone":
        region = {"region": column.region} if column.region else {}
        found.append(("format", "expect_column_values_to_be_rowledger_phone", here | region))
    return found


def _bounded(column: Column) -> bool:
    """Whether another rule bounds the length of the values, so that the default limit says nothing more."""
    return column.type in ("email", "phone", "number", "boolean") or bool(column.values or column.reference)


def _whole(pattern: str) -> dict[str, str]:
    """A pattern describes the whole value; Great Expectations by itself looks for it anywhere."""
    return {"regex": rf"\A(?:{pattern})\z"}


def suite_hash(template: ImportTemplate) -> str:
    """SHA-256 of the derived suite."""
    return hashlib.sha256(json.dumps(derive(template), sort_keys=True).encode()).hexdigest()


def printable(template: ImportTemplate) -> dict[str, Any]:
    """The suite as Great Expectations writes it."""
    data = _Judge(template).suite.to_json_dict()
    return {"name": data["name"], "hash": suite_hash(template), "expectations": data["expectations"]}


def warm() -> None:
    """Import everything a judge needs, so that processes forked from this one start at once."""
    import duckdb  # noqa: F401
    import email_validator  # noqa: F401
    import phonenumbers  # noqa: F401
    import pyarrow.csv  # noqa: F401

    _context()


@functools.cache
def _context() -> Any:
    """One context for all judges of a process and of those forked from it: each makes a temporary folder."""
    context = _great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    return context


@functools.cache
def _great_expectations() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations

    from rowledger import expectations  # noqa: F401 - registers the expectations of this project

    return great_expectations


class _Judge:
    """A derived suite, ready to judge frames; made once per batch because its making costs more than a chunk."""

    def __init__(self, template: ImportTemplate) -> None:
        gx = _great_expectations()
        self._template = template
        expectations = derive(template)
        # Not with add_expectation_configuration: of two expectations of one type for one column it keeps the last.
        self.suite = gx.ExpectationSuite(template.name, expectations=expectations)
        if len(self.suite.expectations) != len(
            expectations
        ):  # it logs those it cannot make, and goes on without
            raise SetupError(f'The suite of template "{template.name}" could not be derived whole.')
        self._configurations = self.suite.expectation_configurations

    def findings(self, frame: pd.DataFrame, references: Mapping[str, list[str]]) -> list[Finding]:
        """Every expectation that failed, with all its records.

        ``frame`` has one row per record, the record number as its index, and a text column per template column.
        Raises SetupError if an expectation raised: an error of ours is never a verdict.
        """
        by_columns: dict[tuple[str, ...], list[Any]] = {}
        for one in self._configurations:
            by_columns.setdefault(_columns(one), []).append(_with_lists(one, references))
        results = [
            result
            for columns, configurations in by_columns.items()
            for result in _results(frame[list(columns)], configurations)
        ]
        return [finding for one in results if (finding := self._finding(one))]

    def _finding(self, result: Any) -> Finding | None:
        meta = result.expectation_config.meta
        if _raised(result.exception_info):
            column = self._template.columns[meta["column"]]
            raise SetupError(
                f'The expectation for rule "{meta["rule"]}" of column "{column.name}" could not be judged; '
                "this is a fault of Rowledger or of the template, not of the file."
            )
        if result.success:
            return None
        return Finding(meta["column"], meta["rule"], tuple(result.result["unexpected_index_list"]))


def _columns(configuration: Any) -> tuple[str, ...]:
    return tuple(
        configuration.kwargs[name]
        for name in ("column", "column_A", "column_B")
        if name in configuration.kwargs
    )


def _results(frame: pd.DataFrame, configurations: list[Any]) -> list[Any]:
    """The results of expectations about the columns of a frame.

    A frame of few columns at a time, because every condition copies the whole of the frame that it is about. A batch
    definition in place of the validator would do the same, but hashes the whole frame twice to name the batch.
    """
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.validator.validator import Validator

    engine = PandasExecutionEngine()
    engine.load_batch_data("chunk", frame)
    validator = Validator(execution_engine=engine, data_context=_context())
    return list(
        validator.graph_validate(
            configurations=configurations,
            runtime_configuration={
                "catch_exceptions": True,
                "result_format": {"result_format": "COMPLETE", "include_unexpected_rows": False},
            },
        )
    )


def _with_lists(configuration: Any, references: Mapping[str, list[str]]) -> Any:
    """The configuration with its suite parameter, if it has one, replaced by the list of that name."""
    if not isinstance(configuration.kwargs.get("value_set"), dict):
        return configuration
    configuration = copy.deepcopy(configuration)
    configuration.kwargs = with_lists(configuration.kwargs, references)
    return configuration


def with_lists(arguments: dict[str, Any], references: Mapping[str, list[str]]) -> dict[str, Any]:
    """The arguments of an expectation with the list in place of its name, if they name one."""
    value_set = arguments.get("value_set")
    return (
        arguments | {"value_set": references[value_set["$PARAMETER"]]}
        if isinstance(value_set, dict)
        else arguments
    )


def judge(template: ImportTemplate) -> _Judge:
    """The judge of a template's files."""
    return _Judge(template)


def _raised(info: Mapping[str, Any]) -> bool:
    """Great Expectations reports one flag, or one per metric."""
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(one.get("raised_exception") for one in info.values())
