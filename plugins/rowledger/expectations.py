"""Great Expectations column expectations for the types of templates whose built-in ones are slow or too kind.

Importing this module registers them. ``expect_column_values_to_match_strftime_format`` takes 1-2-2025 for
DD-MM-YYYY and costs 4 s a million; for addresses and phone numbers there is none.
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
