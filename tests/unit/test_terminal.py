"""How the command line writes values and reasons of users."""

from __future__ import annotations

from typing import Any

import pytest

from rowledger.cli.terminal import reasons_in_words, value_in_words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        ("Malmö", "Malmö"),
        ("two\nlines", "two ⏎ lines"),
        ("[red]x\x1b", r"\[red]x\u001b"),
        (["press", "[b]", 7], r"press, \[b], 7"),
        (True, "true"),
        (1.5, "1.5"),
        ({"a": "é"}, '{"a": "é"}'),
    ],
)
def test_a_value_is_written_as_people_write_it(value: Any, words: str) -> None:
    assert value_in_words(value) == words


def test_reasons_and_warnings_are_told_in_one_line() -> None:
    reasons = [
        {"rule": "format", "message": "[x] is no date."},
        {"rule": "required", "message": "City is missing."},
    ]
    assert reasons_in_words(reasons, None) == r"format: \[x] is no date. required: City is missing."
    assert reasons_in_words(None, reasons[1:]) == "required: City is missing."
    assert reasons_in_words(None, None) == ""
