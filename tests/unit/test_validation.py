"""The sentences that people read: what is wrong with which value, and what would be right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rowledger import loading, templates
from rowledger.model import Reason
from rowledger.records_in import Records
from rowledger.validation import Validation

KIND = replace(loading.kinds()["contact"], attributes=True)
LISTS = {"lands": ["DE", "FR"], "none": [], "@origins": ["WEB", "FAIR"]}


def reasons(column: str, cell: str, folder: Path) -> list[Reason]:
    """The reasons or warnings of one cell, for a column called P."""
    text = f"""
kind: contact
title: x
columns:
  - {{field: email, header: E, type: email}}
  - {{header: P, {column}}}
"""
    template = templates.parse_template(text, "x", {"contact": KIND}, "x.yml")
    path = folder / "file.csv"
    path.write_text(f'E,P\na@b.de,"{cell}"\n', encoding="utf-8")
    with Records(path, template, folder) as records:
        validation = Validation(template, KIND, records, LISTS)
        ((chunk),) = list(records.chunks(0, 10))
        judged = validation.judge(chunk)
    found = judged.reasons | judged.warnings
    return found.get(1, [])


@pytest.mark.parametrize(
    ("column", "cell", "value", "message"),
    [
        ("type: number", "1,5", "1,5", 'P "1,5" is not a number such as 1234.5, without thousands marks, with at most 20 digits before and 10 after the decimal mark.'),
        ("type: number, decimal: ','", "1.5", "1.5", 'P "1.5" is not a number such as 1234,5, without'),
        ("type: boolean", "perhaps", "perhaps", 'P "perhaps" is not a word for true (true, yes, 1) or for false (false, no, 0).'),
        ("type: boolean, words: {true: [ja, j], false: [nein]}, severity: warn", "1", "1", 'P "1" is not a word for true (ja, j) or for false (nein).'),
        ("type: list, values: [a, b]", "a|c", "c", 'P "c" is not allowed; allowed are: a, b.'),
        ("type: list, values: [a, b]", "d|a|c", "d|c", 'P "d", "c" are not allowed; allowed are: a, b.'),
        ("type: list, separator: ;, reference: lands", "NL;DE", "NL", 'P "NL" is not allowed; allowed are: DE, FR.'),
        ("type: list, reference: none", "NL", "NL", 'P "NL" is not allowed; allowed are: none.'),
        ("type: list, values: [z]", "|".join("abcdefgh"), "a|b|c|d|e", 'P "a", "b", "c", "d", "e" and 3 more are not allowed; allowed are: z.'),
        ("type: list, pattern: '[a-z]+'", "a|B|2", "B|2", 'P "B", "2" do not have the form [a-z]+.'),
        ("type: list, pattern: '[a-z]+'", "a|B", "B", 'P "B" does not have the form [a-z]+.'),
        ("type: list, max_length: 3", "abc|abcd", "abcd", 'P "abcd" must have at most 3 characters.'),
        ("type: list, min_length: 2, max_length: 3", "a|abc|abcd", "a|abcd", 'P "a", "abcd" must have at least 2 and at most 3 characters each.'),
        ("type: list, required: true", " | | ", None, "P is empty, but must be filled in."),
        ("type: list, field: origins", "WEB|OLD", "OLD", 'P "OLD" is not allowed; allowed are: WEB, FAIR.'),
        ("type: list, max_length: 3", "é" * 500, "é" * 200 + "…", f'P "{"é" * 200}…" must have at most 3 characters.'),
        ("values: [a]", "b", "b", 'P "b" is not allowed; allowed are: a.'),
    ],
)  # fmt: skip
def test_a_reason_names_the_value_and_what_would_be_right(
    column: str, cell: str, value: str | None, message: str, tmp_path: Path
) -> None:
    (reason,) = reasons(column, cell, tmp_path)
    assert (reason.column, reason.value) == ("P", value)
    assert reason.message.startswith(message)


def test_a_list_that_breaks_two_rules_has_two_reasons_with_the_items_of_each(tmp_path: Path) -> None:
    found = reasons("type: list, max_length: 3, pattern: '[a-z]+'", "abcd|1|ab|B2", tmp_path)
    assert [(reason.rule, reason.value) for reason in found] == [("length", "abcd"), ("pattern", "1|B2")]


@pytest.mark.parametrize(
    ("type_", "repeated", "message"),
    [("email", [2], 'E "A@x.de" is already in record 1; it may occur only once.'), ("text", [], None)],
)
def test_an_email_address_may_occur_once_in_any_case(
    type_: str, repeated: list[int], message: str | None, tmp_path: Path
) -> None:
    text = f"kind: contact\ntitle: x\ncolumns:\n  - {{field: email, header: P, type: email}}\n  - {{header: E, type: {type_}, unique: true}}\n"
    template = templates.parse_template(text, "x", {"contact": KIND}, "x.yml")
    path = tmp_path / "file.csv"
    path.write_text("P,E\na@b.de,a@x.de\nb@b.de, A@x.de\nc@b.de,b@x.de\n", encoding="utf-8")
    with Records(path, template, tmp_path) as records:
        validation = Validation(template, KIND, records, LISTS)
        found: dict[int, list[Reason]] = {}
        for chunk in records.chunks(0, 1):
            found |= validation.judge(chunk).reasons
    assert list(found) == repeated
    assert [reason.message for reasons in found.values() for reason in reasons] == [message] * len(repeated)
