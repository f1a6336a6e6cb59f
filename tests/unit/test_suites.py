"""A template derives one suite; its verdicts are complete, and an error is never a verdict."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from rowledger import loading, suites, templates
from rowledger.errors import SetupError
from rowledger.suites import Finding
from rowledger.templates import ImportTemplate


def template(*columns: str, header: str = "header: E-mail") -> ImportTemplate:
    lines = [f"  - {{field: email, {header}, type: email}}", *(f"  - {{{column}}}" for column in columns)]
    text = "kind: contact\ntitle: x\ncolumns:\n" + "\n".join(lines)
    return templates.parse_template(text, "sample", loading.kinds(), "sample.yml")


def derived(column: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Rule, expectation and arguments of the second column, called Name, without its name."""
    found = [one for one in suites.derive(template(column)) if one["meta"]["column"] == 1]
    return [
        (one["meta"]["rule"], one["type"], {k: v for k, v in one["kwargs"].items() if k != "column"})
        for one in found
    ]


ITEMS = "expect_column_values_to_be_rowledger_items"
LENGTH = ("length", "expect_column_value_lengths_to_be_between", {"max_value": 255})


@pytest.mark.parametrize(
    ("rules", "expectations"),
    [
        ("", [LENGTH]),
        ("required: true", [("required", "expect_column_values_to_not_be_null", {}), LENGTH]),
        ("min_length: 2, max_length: 9", [(LENGTH[0], LENGTH[1], {"min_value": 2, "max_value": 9})]),
        ("type: code", [LENGTH, ("format", "expect_column_values_to_match_regex", {"regex": r"\A(?:[!-~]+)\z"})]),
        ("type: email", [("format", "expect_column_values_to_be_rowledger_email", {})]),
        ("type: phone, region: DE", [("format", "expect_column_values_to_be_rowledger_phone", {"region": "DE"})]),
        ("type: phone", [("format", "expect_column_values_to_be_rowledger_phone", {})]),
        ("type: date, format: DD-MM-YYYY", [("format", "expect_column_values_to_be_rowledger_date", {"format": "DD-MM-YYYY"})]),
        ("type: email, max_length: 255", [LENGTH, ("format", "expect_column_values_to_be_rowledger_email", {})]),
        ("pattern: 'a|b'", [LENGTH, ("pattern", "expect_column_values_to_match_regex", {"regex": r"\A(?:a|b)\z"})]),
        ("values: [a, b]", [("not_in_set", "expect_column_values_to_be_in_set", {"value_set": ["a", "b"]})]),
        ("type: number, decimal: ','", [("format", "expect_column_values_to_be_rowledger_number", {"decimal": ","})]),
        ("type: boolean, words: {true: [yes, 1], false: [NO, n]}", [("format", "expect_column_values_to_be_rowledger_boolean", {"true": ["yes", "1"], "false": ["NO", "n"]})]),
        ("type: list", [("length", ITEMS, {"separator": "|", "max_value": 255})]),
        ("type: list, separator: ;, values: [a], required: true", [("required", "expect_column_values_to_not_be_null", {}), ("not_in_set", ITEMS, {"separator": ";", "value_set": ["a"]})]),
        ("type: list, reference: lands, min_length: 2", [("length", ITEMS, {"separator": "|", "min_value": 2, "max_value": 255}), ("not_in_set", ITEMS, {"separator": "|", "value_set": {"$PARAMETER": "lands"}})]),
        ("type: list, pattern: 'a|b'", [("length", ITEMS, {"separator": "|", "max_value": 255}), ("pattern", ITEMS, {"separator": "|", "regex": r"\A(?:a|b)\z"})]),
        ("reference: lands", [("not_in_set", "expect_column_values_to_be_in_set", {"value_set": {"$PARAMETER": "lands"}})]),
    ],
)  # fmt: skip
def test_every_rule_of_a_column_derives_its_expectation(rules: str, expectations: list[Any]) -> None:
    assert derived(f"header: Name, {rules}") == expectations


def test_a_unique_column_is_compared_with_the_first_record_of_its_value() -> None:
    (rule, kind, pair) = derived("header: Name, unique: true")[-1]
    assert (rule, kind) == ("unique", "expect_column_pair_values_to_be_equal")
    assert (pair["column_A"], pair["column_B"]) == (
        suites.RECORD_NO,
        suites.first_record_column(template("header: Name").columns[1]),
    )
    assert pair["ignore_row_if"] == "either_value_is_missing"


def test_a_warning_is_less_severe_than_a_rejection() -> None:
    suite = suites.derive(template("header: Name, severity: warn"))
    assert [(one["meta"]["column"], one["severity"]) for one in suite] == [
        (0, "critical"),
        (1, "warning"),
    ]


def test_the_hash_of_a_suite_follows_its_rules_and_not_its_comments() -> None:
    first = template("header: Name, max_length: 9")
    again = template("header: Name, max_length: 9 ,aliases: [Surname]")
    assert first.hash != again.hash
    assert suites.suite_hash(first) == suites.suite_hash(again)
    assert suites.suite_hash(first) != suites.suite_hash(template("header: Name, max_length: 8"))
    assert re.fullmatch("[0-9a-f]{64}", suites.suite_hash(first))


def test_the_hash_of_a_suite_is_the_same_tomorrow() -> None:
    """It is kept with every batch: a change of how suites are derived must be seen here and be meant."""
    suite = suites.suite_hash(template("header: Name, values: [é]"))
    assert suite == "b5f8dc132a2ae313b31f7dd495b692579e45041855d2e37ed83a96780f736cb7"


def test_the_printed_suite_is_the_one_that_judges() -> None:
    printed = suites.printable(template("header: Name, required: true, severity: warn"))
    assert printed["hash"] == suites.suite_hash(template("header: Name, required: true, severity: warn"))
    derived_types = [one["type"] for one in suites.derive(template("header: Name, required: true"))]
    assert [one["type"] for one in printed["expectations"]] == derived_types
    assert json.dumps(printed)


def frame(**columns: list[str | None]) -> pd.DataFrame:
    table = pa.table(
        {name.replace("_", "-"): pa.array(cells, pa.string()) for name, cells in columns.items()}
    )
    made = table.to_pandas()
    made.index = pd.Index(range(1, len(made) + 1))
    return made


def test_a_verdict_names_every_record_however_many() -> None:
    records = 2500
    judged = suites.judge(template()).findings(frame(E_mail=["wrong"] * records + ["a@b.de", None]), {})
    assert judged == [Finding(0, "format", tuple(range(1, records + 1)))]


def test_a_frame_that_meets_every_expectation_has_no_findings() -> None:
    judge = suites.judge(template())
    assert judge.findings(frame(E_mail=["a@b.de"]), {}) == []
    assert judge.findings(frame(E_mail=[None, None]), {}) == []
    assert judge.findings(frame(E_mail=["a@b.de"]), {}) == []  # a judge judges chunk after chunk


@pytest.mark.parametrize("type", ["text", "list"])
def test_lists_of_the_database_enter_as_parameters(type: str) -> None:
    judge = suites.judge(template(f"header: Land, reference: lands, type: {type}"))
    cells = frame(E_mail=["a@b.de", "a@b.de"], Land=["DE", "FR"])
    assert judge.findings(cells, {"lands": ["DE"]}) == [Finding(1, "not_in_set", (2,))]
    assert judge.findings(cells, {"lands": ["FR", "DE"]}) == []


def test_one_wrong_item_makes_a_list_wrong() -> None:
    judge = suites.judge(
        template(
            "header: Tags, type: list, separator: ;, max_length: 3, pattern: '[a-z]+', values: [a, b, abcd, '1']"
        )
    )
    cells = ["a;b", "a;abcd", "b;1", None, "c;A;defg", "a"]
    assert judge.findings(frame(E_mail=[None] * 6, Tags=cells), {}) == [
        Finding(1, "length", (2, 5)),
        Finding(1, "pattern", (3, 5)),
        Finding(1, "not_in_set", (5,)),
    ]


def test_a_pattern_reads_the_same_whatever_else_the_chunk_holds() -> None:
    """The reader of patterns must not change with the data: other digits than 0 to 9 are none, in any company."""
    judge = suites.judge(template("header: Zip, pattern: '\\d+\\w$'"))
    cells = ["12a", "１２a", "12é", "12\n", "12_", None]
    assert judge.findings(frame(E_mail=[None] * 6, Zip=cells), {}) == [Finding(1, "pattern", (2, 3, 4))]
    assert judge.findings(frame(E_mail=[None], Zip=["12a"]), {}) == []


def test_an_expectation_that_raises_is_never_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    from rowledger import values

    def broken(text: Any) -> Any:
        raise ZeroDivisionError

    judge = suites.judge(template("header: Name, required: true"))
    monkeypatch.setattr(values, "as_emails", broken)
    with pytest.raises(SetupError, match='rule "format" of column "E-mail" could not be judged'):
        judge.findings(frame(E_mail=["a@b.de"], Name=[None]), {})


def test_a_column_may_be_called_like_anything() -> None:
    names = ["record number", "index", "$PARAMETER", "a.b", "'; --", "{x}", "%s", "straße 👍", "column"]
    columns = [f"header: {json.dumps(name, ensure_ascii=False)}, values: [x]" for name in names]
    judge = suites.judge(template(*columns))
    cells = pa.table({"E-mail": ["a@b.de"] * 2} | {name: ["x", "y"] for name in names}).to_pandas()
    cells.index = pd.Index([5, 6])
    assert judge.findings(cells, {}) == [Finding(n, "not_in_set", (6,)) for n in range(1, len(names) + 1)]


def test_two_rules_of_one_sort_for_one_column_are_both_judged() -> None:
    judge = suites.judge(
        template("header: Zip, type: code, pattern: '.*x', values: [ax, b x, b], reference: zips")
    )
    cells = frame(E_mail=[None] * 4, Zip=["ax", "b x", "b", "cx"])
    assert judge.findings(cells, {"zips": ["ax", "cx"]}) == [
        Finding(1, "format", (2,)),
        Finding(1, "pattern", (3,)),
        Finding(1, "not_in_set", (4,)),
        Finding(1, "not_in_set", (2, 3)),
    ]
