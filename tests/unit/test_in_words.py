"""Templates in words: every rule of a column is told, and nothing that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowledger import loading, templates
from rowledger.suites import derive
from rowledger.templates import ImportTemplate, in_words

FOLDER = Path(__file__).parents[2] / "include" / "templates"
HEAD = "kind: contact\ntitle: T\ncolumns:\n"


def template(column: str, rest: str = "") -> ImportTemplate:
    return templates.parse_template(
        f"{HEAD}  - {{header: Email, field: email, type: email}}\n  - {column}\n{rest}",
        "t",
        loading.kinds(),
        "t",
    )


def rules(column: str) -> list[str]:
    return in_words.rules(template(column).columns[1])


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("{header: A}", ["text", "at most 255 characters"]),
        ("{header: A, required: true, min_length: 2, max_length: 9}", ["must be filled in", "text", "2 to 9 characters"]),
        ("{header: A, type: code, pattern: '[a-z]+'}",
         ["a code: ASCII characters without blanks", "at most 255 characters", "matches the pattern [a-z]+"]),
        ("{header: A, type: date, format: DD-MM-YYYY}", ["a date as DD-MM-YYYY"]),
        ("{header: A, type: email}", ["an email address"]),
        ("{header: A, type: email, max_length: 50}", ["an email address", "at most 50 characters"]),
        ("{header: A, type: phone, region: DE}", ["a phone number, without a country code one of DE"]),
        ("{header: A, type: phone}", ["a phone number"]),
        ("{header: A, type: number, decimal: ','}", ["a number with a comma before decimals"]),
        ("{header: A, type: boolean, words: {true: [ja], false: [nein, n]}}", ["ja for true, nein or n for false"]),
        ("{header: A, values: [x, y]}", ["text", "one of: x, y"]),
        ("{header: A, reference: countries}", ["text", "one of the list countries"]),
        ("{header: A, type: list, separator: ' ', max_length: 5, pattern: '[a-z]+'}",
         ["one or more texts, separated by blanks", "each at most 5 characters", "each item matches the pattern [a-z]+"]),
        ("{header: A, field: origins, type: list}",
         ["one or more texts, separated by vertical bars", "one of the active origins of the domain"]),
        ("{header: A, unique: true, multiline: true, severity: warn}",
         ["text", "at most 255 characters", "each value at most once in a file", "line breaks are allowed",
          "what is wrong is only warned about, and the record is taken"]),
    ],
)  # fmt: skip
def test_what_a_value_has_to_be(column: str, told: list[str]) -> None:
    assert rules(column) == told


def test_every_expectation_of_a_column_is_told() -> None:
    """A rule word that the suite has and the words do not would be a rule that nobody reads."""
    told = {"required": "must be filled in", "length": " characters", "pattern": "matches the pattern",
            "not_in_set": "one of", "unique": "at most once", "format": ""}  # fmt: skip
    for name in ("contacts", "travel_leads", "result_codes", "contracts"):
        found = templates.find_template(FOLDER, name, loading.kinds())
        for one in derive(found):
            words = in_words.rules(found.columns[one["meta"]["column"]])
            assert any(told[one["meta"]["rule"]] in phrase for phrase in words), (name, one)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("{header: A, field: city}", ["replaces what is stored"]),
        (
            "{header: A, field: city, clear: '-'}",
            ["replaces what is stored", 'the word "-" empties the field'],
        ),
        ("{header: A, field: city, on_update: never}", ["only new rows get it"]),
        ("{header: A, field: city, on_update: fill_if_empty}", ["fills the field only if it is empty"]),
        ("{header: A, field: roles, type: list, on_update: add}", ["joins what is stored"]),
        ("{header: A, field: external_id}", ["finds the contact"]),
        ("{header: A, field: opt_outs, type: list}", ["opt the contact out"]),
        ("{header: A}", ["is checked and not loaded"]),
    ],
)
def test_what_a_value_does(column: str, told: list[str]) -> None:
    assert in_words.writing(template(column).columns[1], "contact", ("external_id", "email")) == told


def test_policies_are_told_with_what_holds_when_nothing_is_said() -> None:
    kind = loading.kinds()["contract_status"]
    codes = templates.find_template(FOLDER, "result_codes", loading.kinds())
    assert in_words.policies(codes, kind.match_keys, kind.policies) == [
        "A row is found by Form ID.",
        "A record about a contract that is not registered is rejected.",
        "A record with a code that the domain does not have is ignored.",
        "Dates after today are rejected.",
        "If more than 50 % of the records are rejected, nothing is loaded.",
    ]
    said = template("{header: A}", "policies: {mode: update_only, match: [email]}")
    contact = loading.kinds()["contact"]
    assert in_words.policies(said, contact.match_keys, contact.policies) == [
        "A row is found by Email.",
        "Only known rows are updated; records about unknown ones are ignored.",
    ]


def test_what_a_file_looks_like() -> None:
    codes = templates.find_template(FOLDER, "result_codes", loading.kinds())
    assert in_words.file_format(codes)[0] == "cells separated by semicolons"
    assert (
        in_words.file_format(codes)[3] == "no line of names: every record has exactly 5 fields, in this order"
    )
    assert in_words.file_format(template("{header: A}"))[2:4] == [
        "saved as UTF-8",
        "the first line names the columns, which may stand in any order",
    ]
