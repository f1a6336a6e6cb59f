"""Templates as files to fill in: what Excel is given, and what comes back from it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from rowledger import blank_files, loading, templates
from rowledger.errors import SetupError
from rowledger.templates import ImportTemplate

FOLDER = Path(__file__).parents[2] / "include" / "templates"


def named(name: str) -> ImportTemplate:
    return templates.find_template(FOLDER, name, loading.kinds())


def parsed(columns: str, file: str = "{}") -> ImportTemplate:
    text = f"kind: contact\ntitle: T\nfile: {file}\ncolumns:\n  - {{header: Email, field: email, type: email}}\n{columns}"
    return templates.parse_template(text, "t", loading.kinds(), "t")


def book(template: ImportTemplate, **choices: list[str]) -> Any:
    return load_workbook(io.BytesIO(blank_files.as_xlsx(template, choices)))


def rules(sheet: Any) -> dict[str, Any]:
    return {str(rule.sqref): rule for rule in sheet.data_validations.dataValidation}


def test_the_header_is_written_as_the_template_reads_it() -> None:
    assert blank_files.as_csv(parsed("  - {header: 'A;\"B'}", "{delimiter: ';'}")) == b'Email;"A;""B"\r\n'
    assert blank_files.as_csv(parsed("  - {header: Straße}")) == "\ufeffEmail,Straße\r\n".encode()
    assert blank_files.as_csv(
        parsed("  - {header: Straße}", "{encoding: windows-1252}")
    ) == "Email,Straße\r\n".encode("cp1252")
    assert blank_files.as_csv(named("result_codes")) == b""


def test_a_letter_that_the_encoding_does_not_have_is_named() -> None:
    with pytest.raises(SetupError, match="the letter 'Ł' in a header, which windows-1252 cannot write"):
        blank_files.as_csv(parsed("  - {header: Łódź}", "{encoding: windows-1252}"))


def test_a_spreadsheet_has_the_header_and_drop_downs_of_the_codes() -> None:
    made = book(named("contacts"), Country=["AT", "DE"])
    sheet = made["Records"]
    assert [cell.value for cell in sheet[1]] == blank_files.fields(named("contacts"))
    country = rules(sheet)["K2:K1048576"]
    assert (country.type, country.formula1, country.showErrorMessage, country.errorStyle) == (
        "list",
        "Codes!$A$2:$A$3",
        True,
        "stop",
    )
    assert [cell.value for cell in made["Codes"]["A"]] == ["Country", "AT", "DE"]
    assert sheet.freeze_panes == "A2"


def test_a_file_without_header_has_none_in_the_spreadsheet_and_says_the_fields_as_they_are_filled_in() -> (
    None
):
    made = book(named("result_codes"), **{"Result code": ["10", "20"]})
    sheet = made["Records"]
    assert sheet["A1"].value is None
    prompts = {where: (rule.promptTitle, rule.prompt) for where, rule in rules(sheet).items()}
    assert prompts["A1:A1048576"] == (
        "Form ID",
        "Must be filled in; a code: ASCII characters without blanks; at most 40 characters.",
    )
    assert rules(sheet)["C1:C1048576"].formula1 == "Codes!$A$2:$A$3"
    assert rules(sheet)["C1:C1048576"].errorStyle == "warning", (
        "a code may be new: it is ignored, not refused"
    )


def test_a_list_in_a_cell_is_offered_codes_and_held_to_none() -> None:
    sheet = book(named("contacts"), Roles=["customer", "press"])["Records"]
    assert rules(sheet)["N2:N1048576"].formula1 == "Codes!$A$2:$A$3"
    assert not rules(sheet)["N2:N1048576"].showErrorMessage


def test_words_for_true_and_false_are_a_drop_down() -> None:
    made = book(parsed("  - {header: 'On', type: boolean, words: {true: ['yes, please'], false: ['no']}}"))
    assert [cell.value for cell in made["Codes"]["A"]] == ["On", "yes, please", "no"]
    assert rules(made["Records"])["B2:B1048576"].errorStyle == "stop"


def test_columns_are_text_so_that_nothing_is_taken_for_a_number_or_a_date() -> None:
    sheet = book(named("contacts"))["Records"]
    assert {sheet.column_dimensions[letter].number_format for letter in "ABL"} == {"@"}


def test_nothing_in_a_spreadsheet_is_ever_computed() -> None:
    made = book(parsed("  - {header: '=1+1', values: ['=2+2', '+x']}"), **{"=1+1": ["=2+2", "+x"]})
    cells = [made["Records"]["B1"], made["Codes"]["A1"], made["Codes"]["A2"], made["Codes"]["A3"]]
    assert [(cell.value, cell.data_type, cell.quotePrefix) for cell in cells] == [
        ("=1+1", "s", True), ("=1+1", "s", True), ("=2+2", "s", True), ("+x", "s", True)
    ]  # fmt: skip
    assert "f" not in {cell.data_type for sheet in made for row in sheet for cell in row}


def test_titles_are_cut_to_what_excel_takes_and_control_characters_do_not_break_the_file() -> None:
    long = "x" * 300
    sheet = book(parsed(f'  - {{header: "a\\u0001{long}"}}'))["Records"]
    assert sheet["B1"].value.startswith("a\N{REPLACEMENT CHARACTER}x")
    assert len(rules(sheet)["B2:B1048576"].promptTitle) == 32


def test_a_list_that_nobody_could_look_through_is_no_drop_down() -> None:
    made = book(named("contacts"), Country=[f"v{i}" for i in range(blank_files.MOST_CHOICES + 1)])
    assert made["Codes"].max_column == 1
    assert made["Codes"]["A1"].value is None
    assert rules(made["Records"])["K2:K1048576"].type is None


def test_the_instructions_name_every_column_and_how_to_save() -> None:
    told = {
        row[0].value: row[1].value for row in book(named("contacts"))["How to fill in"].iter_rows(max_col=2)
    }
    assert told["Last name"] == "Must be filled in; text; at most 100 characters."
    assert "– saved as UTF-8" in told
