"""Great Expectations column expectations for the types of templates whose built-in ones are slow or too kind.

Importing this module registers them. ``expect_column_values_to_match_strftime_format`` takes 1-2-2025 for
DD-MM-YYYY and costs 4 s a million; for addresses, phone numbers, numbers, booleans and lists there is none.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnMapMetricProvider,
    column_condition_partial,
)

from rowledger import values


def _valid(column: pd.Series, parsed: Any) -> pd.Series:
    return pd.Series(pc.is_valid(parsed).to_numpy(zero_copy_only=False), index=column.index)


def _array(column: pd.Series) -> Any:
    array = pa.array(column, type=pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


class ColumnValuesRowledgerDate(ColumnMapMetricProvider):
    """Which values are dates of a declared form."""

    condition_metric_name = "column_values.rowledger_date"
    condition_value_keys = ("format",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, format: str, **_: Any) -> pd.Series:
        return _valid(column, values.as_dates(_array(column), format))


class ExpectColumnValuesToBeRowledgerDate(ColumnMapExpectation):
    """Expect dates in a declared form such as DD-MM-YYYY, real in the calendar, of the years 1900 to 2100."""

    format: str
    map_metric: ClassVar[str] = "column_values.rowledger_date"
    success_keys: ClassVar[tuple[str, ...]] = ("format", "mostly")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "format")


class ColumnValuesRowledgerEmail(ColumnMapMetricProvider):
    """Which values are email addresses."""

    condition_metric_name = "column_values.rowledger_email"
    condition_value_keys = ()

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, **_: Any) -> pd.Series:
        return _valid(column, values.as_emails(_array(column)))


class ExpectColumnValuesToBeRowledgerEmail(ColumnMapExpectation):
    """Expect email addresses that email-validator accepts."""

    map_metric: ClassVar[str] = "column_values.rowledger_email"
    success_keys: ClassVar[tuple[str, ...]] = ("mostly",)
    args_keys: ClassVar[tuple[str, ...]] = ("column",)


class ColumnValuesRowledgerPhone(ColumnMapMetricProvider):
    """Which values are phone numbers."""

    condition_metric_name = "column_values.rowledger_phone"
    condition_value_keys = ("region",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, region: str | None = None, **_: Any) -> pd.Series:
        return _valid(column, values.as_phones(_array(column), region))


class ExpectColumnValuesToBeRowledgerPhone(ColumnMapExpectation):
    """Expect phone numbers in E.164, or ones that phonenumbers can read with the default region."""

    region: str | None = None
    map_metric: ClassVar[str] = "column_values.rowledger_phone"
    success_keys: ClassVar[tuple[str, ...]] = ("region", "mostly")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "region")


class ColumnValuesRowledgerNumber(ColumnMapMetricProvider):
    """Which values are numbers."""

    condition_metric_name = "column_values.rowledger_number"
    condition_value_keys = ("decimal",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, decimal: str, **_: Any) -> pd.Series:
        return _valid(column, values.as_numbers(_array(column), decimal))


class ExpectColumnValuesToBeRowledgerNumber(ColumnMapExpectation):
    """Expect numbers in plain digits, with a declared decimal mark."""

    decimal: str
    map_metric: ClassVar[str] = "column_values.rowledger_number"
    success_keys: ClassVar[tuple[str, ...]] = ("decimal", "mostly")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "decimal")


class ColumnValuesRowledgerBoolean(ColumnMapMetricProvider):
    """Which values are words for true or false."""

    condition_metric_name = "column_values.rowledger_boolean"
    condition_value_keys = ("true", "false")

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, true: list[str], false: list[str], **_: Any) -> pd.Series:
        return _valid(column, values.as_booleans(_array(column), true, false))


class ExpectColumnValuesToBeRowledgerBoolean(ColumnMapExpectation):
    """Expect one of the words for true or for false; case does not count."""

    true: list[str]
    false: list[str]
    map_metric: ClassVar[str] = "column_values.rowledger_boolean"
    success_keys: ClassVar[tuple[str, ...]] = ("true", "false", "mostly")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "true", "false")


class ColumnValuesRowledgerItems(ColumnMapMetricProvider):
    """Which values are lists all of whose items obey a rule."""

    condition_metric_name = "column_values.rowledger_items"
    condition_value_keys = ("separator", "min_value", "max_value", "regex", "value_set")

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, separator: str, **rule: Any) -> pd.Series:
        lists = values.as_lists(_array(column), separator)
        rules = {key: rule.get(key) for key in ("min_value", "max_value", "regex", "value_set")}
        wrong = pc.list_parent_indices(lists).to_numpy()[~values.right_items(lists, **rules)]
        right = pd.Series(True, index=column.index)
        right.iloc[wrong] = False
        return right


class ExpectColumnValuesToBeRowledgerItems(ColumnMapExpectation):
    """Expect lists whose every item has a length within limits, matches a regular expression or is in a set."""

    separator: str
    min_value: int | None = None
    max_value: int | None = None
    regex: str | None = None
    value_set: list[str] | dict[str, str] | None = None
    map_metric: ClassVar[str] = "column_values.rowledger_items"
    success_keys: ClassVar[tuple[str, ...]] = (
        "separator",
        "min_value",
        "max_value",
        "regex",
        "value_set",
        "mostly",
    )
    args_keys: ClassVar[tuple[str, ...]] = ("column", "separator")
