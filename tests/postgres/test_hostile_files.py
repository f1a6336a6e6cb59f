"""Files that are wrong in every way known to us: one fault a file, ``tests/data/<template>/<fault>.csv``.

A file that cannot be read fails as a whole, with its rule and the first place; in a file that can be read every record
gets its outcome, the wrong ones with their rules, and the others go on.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from rowledger import ledger
from rowledger.db import Connection, rows, transaction
from rowledger.model import Batch
from rowledger.settings import Settings
from rowledger.text_in import BLOCK_BYTES

DATA = Path(__file__).parent.parent / "data"
Submit, Work, Run = Callable[..., int], Callable[[int], Batch], Callable[..., Batch]
Became = Callable[[int], list[tuple[Any, ...]]]
Fresh = Callable[..., AbstractContextManager[str]]

HEADER = "Customer number,Email,Last name\n"
ADA, EVA = "K1,ada@example.com,Ångström\n", "K3,eva@example.com,Čapek\n"

# File -> rule, and what the message says: the first place, what was seen.
FAILED: dict[str, tuple[str, ...]] = {
    "contacts/beyond_unicode": ("encoding", "byte 81, line 3"),
    "contacts/cut_inside_a_character": ("encoding", "byte 61, line 2"),
    "contacts/duplicate_column": ("duplicate_column", "the header"),
    "contacts/duplicate_column_by_alias": ("duplicate_column", "the header", '"Email", "E-Mail-Adresse"'),
    "contacts/empty": ("empty_file", "is empty"),
    "contacts/gzip": ("not_text", "byte 0"),
    "contacts/half_a_character": ("encoding", "byte 0, line 1"),
    "contacts/homoglyph_in_the_header": ("missing_column", "the header", "U+0435"),
    "contacts/json": ("header_mismatch", "line 1"),
    "contacts/missing_column": ("missing_column", "the header"),
    "contacts/missing_columns": ("missing_column", "the header", '"Last name", "Customer number", "Email"'),
    "contacts/no_header": ("header_mismatch", "line 1", '"K1", "ada@example.com"'),
    "contacts/noncharacter_of_our_own": ("encoding", "U+FDD0"),
    "contacts/nuls_at_the_end": ("trailing_nul", "ends with NUL bytes"),
    "contacts/old_excel": ("not_text", "byte 0"),
    "contacts/only_a_byte_order_mark": ("empty_file", "is empty"),
    "contacts/only_blank_lines": ("header_mismatch", "line 1"),
    "contacts/open_quote_at_the_very_end": ("unterminated_quote", "record 2"),
    "contacts/open_quote_in_the_first_record": ("unterminated_quote", "record 1"),
    "contacts/open_quote_in_the_header": ("unterminated_quote", "the header"),
    "contacts/open_quote_in_the_last_record": ("unterminated_quote", "record 3"),
    "contacts/open_quote_in_the_middle": ("unterminated_quote", "record 2"),
    "contacts/overlong_utf8": ("encoding", "byte 82, line 3"),
    "contacts/pdf": ("not_text", "byte 0"),
    "contacts/pipes": ("delimiter_mismatch", "line 1", "pipe (|)"),
    "contacts/png": ("not_text", "byte 0"),
    "contacts/semicolons": (
        "delimiter_mismatch",
        "line 1",
        "separated by semicolon (;), the template expects comma (,)",
    ),
    "contacts/sep_line_as_the_only_line": ("header_mismatch", "line 1"),
    "contacts/sep_line_of_another_delimiter": ("delimiter_mismatch", "line 1"),
    "contacts/separated_header_only": ("delimiter_mismatch", "line 1"),
    "contacts/surrogates_in_utf8": ("encoding", "byte 81, line 3"),
    "contacts/tabs": ("delimiter_mismatch", "line 1", "tab"),
    "contacts/title_above_the_header": ("header_mismatch", "line 1"),
    "contacts/title_and_commas_above_the_header": ("header_mismatch", "line 1"),
    "contacts/unnamed_column": ("unnamed_column", "record 2"),
    "contacts/utf16_big_endian": ("encoding", "byte 0"),
    "contacts/utf16_little_endian": ("encoding", "byte 0", "The file is UTF-16"),
    "contacts/utf16_without_mark": ("encoding", "byte 0"),
    "contacts/utf32": ("encoding", "byte 0", "The file is UTF-32"),
    "contacts/utf32_big_endian": ("encoding", "byte 0"),
    "contacts/web_page": ("header_mismatch", "line 1", "web page"),
    "contacts/web_page_after_a_blank_line": ("header_mismatch", "line 1"),
    "contacts/windows_1252": ("encoding", "byte 51, line 2", "0xC5"),
    "contacts/zip": ("not_text", "byte 0", "zip archive or an Excel workbook"),
    "contracts/commas": ("delimiter_mismatch", "line 1", "comma (,)"),
    "contracts/duplicate_column_by_alias": ("duplicate_column", "the header", '"Signed on"'),
    "contracts/empty": ("empty_file", "is empty"),
    "contracts/missing_column": ("missing_column", "the header", '"Sign-up date"'),
    "contracts/no_header": ("header_mismatch", "line 1", '"C1"'),
    "contracts/open_quote_in_the_last_record": ("unterminated_quote", "record 2"),
    "contracts/windows_1252": ("encoding", "line 2"),
    "result_codes/commas": ("delimiter_mismatch", "line 1"),
    "result_codes/empty": ("empty_file", "is empty"),
    "result_codes/open_quote_in_the_first_record": ("unterminated_quote", "record 1"),
    "result_codes/open_quote_in_the_last_record": ("unterminated_quote", "record 3"),
    "result_codes_with_header/byte_without_meaning": ("encoding", "byte 86, line 3"),
    "result_codes_with_header/utf8_with_mark": ("encoding", "byte 0"),
    "result_codes_with_header/zip": ("not_text", "byte 0"),
}

# File -> what became of each record: its outcome, or for a rejected one its rules.
RECORDS = {
    "contacts/apostrophes_as_quotes": "created too_many_fields created",
    "contacts/backslash_at_the_end_of_a_cell": "created created created",
    "contacts/backslash_before_a_quote": "created bad_quoting created",
    "contacts/backslash_dot_in_a_quoted_cell": "created created created",
    "contacts/backslash_dot_line": "created too_few_fields created",
    "contacts/birth_dates": "created format created format created format format format format format format format format format format format format format format format format format format format created",
    "contacts/blank_line_in_a_quoted_cell": "created required",
    "contacts/blank_line_in_the_header": "created",
    "contacts/blank_lines": "created format created",
    "contacts/blank_lines_of_spaces": "created too_few_fields created",
    "contacts/byte_order_mark": "created created",
    "contacts/byte_order_mark_before_a_quoted_header": "created created",
    "contacts/byte_order_mark_in_the_middle": "created format created",
    "contacts/case_and_spaces_in_the_header": "created",
    "contacts/cell_of_quotes_only": "created created",
    "contacts/columns_in_another_order": "created",
    "contacts/combining_marks": "created length",
    "contacts/comment_lines": "created too_few_fields created",
    "contacts/control_characters": "created control_char control_char control_char control_char created",
    "contacts/countries_out_of_the_list": "not_in_set created not_in_set not_in_set",
    "contacts/cr_line_ends": "created created created",
    "contacts/crlf_line_ends": "created created created",
    "contacts/doubled_quotes": "created created created",
    "contacts/email_addresses": "format format format created format created format created format format format format created format format format format created format",
    "contacts/emoji": "created created created length",
    "contacts/empty_and_quoted_empty_and_spaces": "created created created required required required",
    "contacts/empty_records_of_commas": "created required created",
    "contacts/formula_cells": "created created created created created created created created",
    "contacts/header_only": "",
    "contacts/header_only_without_line_end": "",
    "contacts/headers_of_two_files_joined": "created created format+format unchanged+duplicate_in_file unchanged+duplicate_in_file created",
    "contacts/identical_records": "created unchanged+duplicate_in_file created unchanged+duplicate_in_file",
    "contacts/kelvin_and_sharp_s": "created created created created",
    "contacts/leading_zeros": "created created",
    "contacts/line_break_in_an_unknown_header": "created created format",
    "contacts/line_break_in_the_header": "created",
    "contacts/line_separators_in_a_cell": "created created created",
    "contacts/long_first_record": "too_many_fields created created",
    "contacts/long_record": "created too_many_fields created",
    "contacts/markup": "created created created",
    "contacts/mixed_line_ends": "created created created",
    "contacts/mixed_line_ends_and_a_fault": "created format created too_few_fields",
    "contacts/mojibake": "created created",
    "contacts/much_too_long_record": "created too_many_fields created",
    "contacts/no_final_line_end": "created created created",
    "contacts/no_key": "missing_key missing_key created",
    "contacts/nul_in_a_cell": "created control_char created",
    "contacts/phone_numbers": "created created created format format format format created format created created format format format format",
    "contacts/quote_closed_in_a_later_record": "bad_quoting created created",
    "contacts/quote_inside_a_cell": "created created created",
    "contacts/quoted_line_breaks": "created control_char required",
    "contacts/quotes_inside_a_cell": "created created created",
    "contacts/repeated_header": "created repeated_header created repeated_header created",
    "contacts/right_to_left": "created created",
    "contacts/same_address_in_two_unicode_forms": "created unchanged+duplicate_in_file",
    "contacts/same_key_with_other_values": "superseded_in_file created superseded_in_file created",
    "contacts/sep_line": "created created created",
    "contacts/short_record": "created too_few_fields created",
    "contacts/spaces_before_a_quote": "created created created",
    "contacts/sql_in_the_header": "created",
    "contacts/sql_words": "created created created created",
    "contacts/text_after_a_closing_quote": "created bad_quoting created",
    "contacts/trailing_delimiter": "too_many_fields too_many_fields created",
    "contacts/trailing_delimiter_in_the_header_too": "created created",
    "contacts/translated_header": "created",
    "contacts/turkish_i": "created superseded_in_file created created",
    "contacts/two_final_line_ends": "created created created",
    "contacts/two_keys_in_a_chain": "superseded_in_file superseded_in_file created created",
    "contacts/two_tables": "created created too_few_fields too_few_fields too_few_fields",
    "contacts/typographic_quotes": "created created created",
    "contacts/unicode_forms": "created created created",
    "contacts/unknown_column": "created",
    "contacts/unnamed_empty_column": "created created",
    "contacts/vertical_tab_and_form_feed": "created control_char control_char",
    "contacts/very_long_values": "created length created length created created format",
    "contacts/warned_phone_numbers": "created+format created",
    "contacts/word_for_null_of_our_own": "created control_char too_few_fields created",
    "contacts/words_for_nothing": "created created created created created created",
    "contacts/zero_width_in_a_key": "format format created",
    "contacts/zero_width_space_in_the_header": "created",
    "contracts/byte_order_mark": "created created",
    "contracts/columns_in_another_order": "created created",
    "contracts/form_ids": "required required format format format created created created length control_char",
    "contracts/future_sign_up": "future_date created",
    "contracts/header_only": "",
    "contracts/identical_records": "created unchanged+duplicate_in_file created unchanged+duplicate_in_file",
    "contracts/leading_zeros_and_case": "created created created created",
    "contracts/nul_in_a_cell": "created control_char created",
    "contracts/quoted_line_breaks": "created control_char",
    "contracts/registered_already": "unchanged updated created",
    "contracts/repeated_header": "created repeated_header created",
    "contracts/same_contract_twice": "superseded_in_file created created",
    "contracts/short_and_long_records": "too_few_fields too_many_fields too_many_fields too_few_fields created",
    "contracts/sign_up_dates": "created format format format format format format created format format format created future_date required format format format",
    "contracts/text_after_a_closing_quote": "created bad_quoting created",
    "contracts/unknown_customers": "created+unknown_contact format created+unknown_contact",
    "result_codes/backslash_dot_line": "updated too_few_fields updated",
    "result_codes/blank_lines": "updated format",
    "result_codes/byte_order_mark": "updated updated",
    "result_codes/dates": "format format format format format format format format format format format format format format format format format format format format format format format format format format format updated",
    "result_codes/formula_cells": "updated ignored+unknown_status unknown_contract",
    "result_codes/future_date": "future_date updated",
    "result_codes/header_in_a_file_without": "format+format+format updated",
    "result_codes/identical_records": "updated unchanged+duplicate_in_file unchanged+duplicate_in_file",
    "result_codes/long_first_record": "too_many_fields updated",
    "result_codes/nul_in_a_cell": "updated control_char updated",
    "result_codes/numbers_as_codes": "ignored+unknown_status ignored+unknown_status ignored+unknown_status ignored+unknown_status ignored+unknown_status format ignored+unknown_status ignored+unknown_status ignored+unknown_status ignored+unknown_status updated",
    "result_codes/only_blank_lines": "",
    "result_codes/quoted_line_breaks": "updated updated control_char",
    "result_codes/short_and_long_records": "too_few_fields updated too_many_fields too_few_fields too_many_fields",
    "result_codes/text_after_a_closing_quote": "updated bad_quoting updated",
    "result_codes/unknown_codes_and_contracts": "ignored+unknown_status unknown_contract unknown_contract+unknown_status unknown_contract updated",
    "result_codes_with_header/utf8": "updated",
    "result_codes_with_header/windows_1252": "updated",
}

# File -> the rules of the warnings about it as a whole; other files have none.
WARNED = {
    "contacts/line_break_in_an_unknown_header": ["unknown_column"],
    "contacts/mojibake": ["suspect_mojibake"],
    "contacts/sql_in_the_header": ["unknown_column", "unknown_column"],
    "contacts/trailing_delimiter_in_the_header_too": ["unnamed_column"],
    "contacts/unknown_column": ["unknown_column"],
    "contacts/unnamed_empty_column": ["unnamed_column"],
    "contacts/zero_width_space_in_the_header": ["invisible_character"],
    "result_codes_with_header/utf8": ["suspect_mojibake"],
}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """The templates without their limit of rejects, so that a file of faults shows what became of each."""
    folder = shutil.copytree(settings.templates, tmp_path / "templates")
    for path in folder.glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(?m)^  max_rejected_share:.*\n", "", text), encoding="utf-8")
    return dataclasses.replace(settings, templates=folder)


@pytest.fixture(scope="module")
def database_url(fresh_database: Fresh) -> Iterator[str]:
    """One database for all files of faults; each test has a domain of its own."""
    with fresh_database() as url:
        yield url


@pytest.fixture
def run(submit: Submit, work: Work, domain: str) -> Run:
    """Submit a file of tests/data, or bytes and text, and work it off."""

    def run(content: Path | bytes | str, template: str = "contacts") -> Batch:
        template = content.parent.name if isinstance(content, Path) else template
        return work(submit(content, template, domain=domain))

    return run


def test_every_file_of_faults_has_its_expectation() -> None:
    files = {str(path.relative_to(DATA).with_suffix("")) for path in DATA.glob("*/*.csv")}
    assert files == set(FAILED) | set(RECORDS)
    assert not set(FAILED) & set(RECORDS)


@pytest.mark.parametrize("file", sorted(FAILED))
def test_a_file_that_cannot_be_read_fails_with_its_rule_and_place(
    file: str, run: Run, became: Became, connection: Connection
) -> None:
    rule, *told = FAILED[file]
    batch = run(DATA / f"{file}.csv")
    assert (batch.failed, batch.error_rule) == (True, rule), batch.error_message
    assert [words for words in told if words not in (batch.error_message or "")] == []
    assert became(batch.seqno) == []
    assert contacts(connection) == {}


@pytest.mark.parametrize("file", sorted(RECORDS))
def test_every_record_of_a_readable_file_gets_its_outcome(
    file: str, run: Run, connection: Connection
) -> None:
    batch = run(DATA / f"{file}.csv")
    assert batch.succeeded, batch.error_message
    assert told(connection, batch.seqno) == RECORDS[file].split()
    assert batch.records_in_file == sum(batch.counts.values()) == len(RECORDS[file].split())
    assert [warning["rule"] for warning in batch.warnings] == WARNED.get(file, [])
    assert [check for check in ledger.check(connection) if check["violations"]] == []


@pytest.mark.parametrize("file", ["formula_cells", "sql_words", "markup", "words_for_nothing", "typographic_quotes",
                                  "line_separators_in_a_cell", "doubled_quotes", "right_to_left"])  # fmt: skip
def test_text_is_stored_as_it_stands(file: str, run: Run, connection: Connection) -> None:
    path = DATA / "contacts" / f"{file}.csv"
    run(path)
    with path.open(encoding="utf-8", newline="") as source:
        cells = {row["Customer number"]: row["Last name"] for row in csv.DictReader(source)}
    assert {key: contact["last_name"] for key, contact in contacts(connection).items()} == cells


def test_leading_zeros_stay(run: Run, connection: Connection) -> None:
    run(DATA / "contacts/leading_zeros.csv")
    stored = {key: contact["postal_code"] for key, contact in contacts(connection).items()}
    assert stored == {"007": "01067", "00000000000000000001": "00100"}


def test_accents_are_stored_in_one_form_and_look_alikes_stay(run: Run, connection: Connection) -> None:
    run(DATA / "contacts/unicode_forms.csv")
    assert [c["last_name"] for c in contacts(connection).values()] == ["Jos\u00e9", "Jos\u00e9", "ﬁn Ａ"]


def test_length_is_counted_in_characters_as_the_database_counts(run: Run, connection: Connection) -> None:
    run(DATA / "contacts/emoji.csv")
    assert contacts(connection)["K3"]["last_name"] == "👍🏽" * 50


def test_a_cell_that_is_empty_quoted_empty_or_blank_is_absent(run: Run, connection: Connection) -> None:
    run(DATA / "contacts/empty_and_quoted_empty_and_spaces.csv")
    assert [contact["city"] for contact in contacts(connection).values()] == [None, None, None]


def test_a_value_that_is_only_warned_about_is_left_out(run: Run, connection: Connection) -> None:
    run(DATA / "contacts/warned_phone_numbers.csv")
    assert [c["mobile"] for c in contacts(connection).values()] == [None, "+491713920012"]


def test_line_breaks_and_blank_lines_in_a_cell_stay(run: Run, connection: Connection) -> None:
    run(DATA / "contacts/blank_line_in_a_quoted_cell.csv")
    assert contacts(connection)["K1"]["street"] == "a\n\nb"


def test_a_backslash_and_a_dot_on_a_line_end_nothing(run: Run, connection: Connection) -> None:
    run(DATA / "contacts/backslash_dot_in_a_quoted_cell.csv")
    assert [c["street"] for c in contacts(connection).values()] == ["a\n\\.\nb", "\\.", "c"]


def test_windows_1252_is_read_as_the_template_says(run: Run, connection: Connection) -> None:
    batch = run("Form ID;Date Result;Result code;Agent;Remark\nF1;x;20;Weiß;50 €\n".encode("cp1252"),
                "result_codes_with_header")  # fmt: skip
    (record,) = ledger.records(connection, batch.seqno)
    assert record["raw"] == ["F1", "x", "20", "Weiß", "50 €"]


@pytest.mark.parametrize(
    ("file", "record_no", "raw"),
    [
        ("contacts/short_record", 2, ["K2", "bob@example.com"]),
        ("contacts/long_record", 2, ["K2", "bob@example.com", "Brontë", "more"]),
        ("contacts/trailing_delimiter", 1, ["K1", "ada@example.com", "Ångström", ""]),
        ("contacts/much_too_long_record", 2, ["K2", "bob@example.com", "Brontë", *"x" * 40]),
        ("contacts/text_after_a_closing_quote", 2, ['K2,bob@example.com,"Bron"të']),
        ("contacts/nul_in_a_cell", 2, ["K2", "bob@example.com", "Bro␀nte"]),
        ("contacts/quoted_line_breaks", 2, ["K2", "Bron\ntë", "Abbey Lane"]),
        ("result_codes/unknown_codes_and_contracts", 1, ["F1", "02-02-2026", "99", "", ""]),
        ("result_codes/unknown_codes_and_contracts", 2, ["F9", "02-02-2026", "20", "", ""]),
    ],
)
def test_a_refused_record_keeps_its_cells(
    file: str, record_no: int, raw: list[str], run: Run, connection: Connection
) -> None:
    batch = run(DATA / f"{file}.csv")
    (record,) = ledger.records(connection, batch.seqno, record_no=record_no)
    assert record["raw"] == raw


def test_a_record_lists_all_its_reasons_in_the_words_of_its_file(run: Run, connection: Connection) -> None:
    batch = run("Kundennummer,E-Mail-Adresse,Nachname,Land\nK 1,nobody,,XX\n")
    (record,) = ledger.records(connection, batch.seqno)
    assert [(reason["rule"], reason["column"]) for reason in record["reasons"]] == [
        ("format", "Kundennummer"), ("format", "E-Mail-Adresse"), ("required", "Nachname"), ("not_in_set", "Land"),
    ]  # fmt: skip


# Files too large to be kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["x" * 50_000_000, '"' + "x" * 50_000_000 + '"', '"' + ("x" * 99 + "\n") * 500_000 + '"'],
                         ids=["unquoted", "quoted", "lines"])  # fmt: skip
def test_a_cell_of_50_megabytes_fails_the_file_at_its_record(cell: str, run: Run) -> None:
    batch = run(f"{HEADER}{ADA}K2,bob@example.com,{cell}\n{EVA}")
    assert (batch.failed, batch.error_rule) == (True, "record_too_long")
    assert "(at record 2)" in (batch.error_message or "")


@pytest.mark.parametrize(
    ("before", "place"), [("", "the header"), (HEADER, "record 1"), (HEADER + ADA, "record 2")]
)
def test_a_quote_that_swallows_a_large_file_is_found_where_it_opens(
    before: str, place: str, run: Run
) -> None:
    batch = run(f'{before}"{ADA * 200_000}')
    assert (batch.failed, batch.error_rule) == (True, "record_too_long")
    assert f"(at {place})" in (batch.error_message or "")


def test_a_long_cell_is_refused_alone(run: Run, connection: Connection) -> None:
    batch = run(f"{HEADER}{ADA}K2,bob@example.com,{'x' * 400_001}\n{EVA}")
    assert told(connection, batch.seqno) == ["created", "length", "created"]


def test_too_many_columns_fail_the_file(run: Run) -> None:
    batch = run(HEADER.strip() + "".join(f",c{i}" for i in range(4998)) + "\n" + ADA)
    assert (batch.failed, batch.error_rule) == (True, "too_many_columns")


def test_a_record_of_very_many_fields_keeps_them_all(run: Run, connection: Connection) -> None:
    batch = run(f"{HEADER}{ADA}K2,bob@example.com,Brontë{',x' * 20_000}\n{EVA}")
    assert told(connection, batch.seqno) == ["created", "too_many_fields", "created"]
    (record,) = ledger.records(connection, batch.seqno, record_no=2)
    assert len(record["raw"]) == 20_003


def test_ten_thousand_blank_lines_are_no_records(run: Run, connection: Connection) -> None:
    blank = "\n" * 10_000
    batch = run(f"{blank}{HEADER}{blank}{ADA}{blank}K2,nobody,Brontë\n{blank}{EVA}{blank}")
    assert told(connection, batch.seqno) == ["created", "format", "created"]


def test_ten_thousand_identical_records_make_one_contact(run: Run, connection: Connection) -> None:
    batch = run(HEADER + ADA * 10_000)
    assert batch.counts == {**dict.fromkeys(batch.counts, 0), "created": 1, "unchanged": 9_999}
    assert len(contacts(connection)) == 1


@pytest.mark.parametrize("shift", range(-3, 2))
def test_line_ends_and_blank_lines_are_counted_across_the_blocks_of_a_file(
    shift: int, run: Run, connection: Connection
) -> None:
    """CR LF, and the two line ends of a blank line, are cut in two by the edge of a block."""
    header = "Customer number,Email,Last name,Remark\r\n"
    wide = "K{},a{}@example.com,Ångström,{}\r\n"
    lines, size = [header], len(header)
    while BLOCK_BYTES + shift - size > 250_000:
        lines.append(wide.format(len(lines), len(lines), "x" * 100_000))
        size += len(lines[-1].encode())
    lines.append(wide.format(len(lines), len(lines), ""))
    missing = BLOCK_BYTES + shift - size - len(lines[-1].encode())
    lines[-1] = lines[-1].replace("\r\n", "x" * missing + "\r\n")
    last = len(lines) - 1
    batch = run("".join(lines) + "\r\n\r\n" + "L1,nobody,Brontë,\r\n" + "L2,l2@example.com,Čapek,\r\n")
    assert told(connection, batch.seqno) == ["created"] * last + ["format", "created"]


# What a template says of its files -----------------------------------------------------------------------------


def test_more_records_than_the_template_takes_fail_the_file(
    settings: Settings, run: Run, connection: Connection
) -> None:
    change(settings, "contacts", "  header: true", "  header: true\n  max_records: 2")
    assert run(HEADER + ADA + EVA).succeeded
    batch = run(HEADER + ADA + EVA + "K4,eva4@example.com,New\n")
    assert (batch.failed, batch.error_rule) == (True, "too_many_records")
    assert set(contacts(connection)) == {"K1", "K3"}


def test_utf_16_is_read_where_the_template_expects_it(
    settings: Settings, run: Run, connection: Connection
) -> None:
    change(settings, "contacts", "encoding: utf-8", "encoding: utf-16")
    assert run((HEADER + ADA).encode("utf-16")).succeeded
    assert run(codecs.BOM_UTF16_BE + (HEADER + EVA).encode("utf-16-be")).succeeded
    assert {c["last_name"] for c in contacts(connection).values()} == {"Ångström", "Čapek"}
    assert run((HEADER + ADA).encode("utf-16-le")).error_rule == "encoding"
    assert run((HEADER + ADA).encode("utf-8")).error_rule == "encoding"


def test_in_a_file_of_one_column_a_blank_line_is_no_record_and_a_quoted_empty_cell_is(
    settings: Settings, run: Run, connection: Connection
) -> None:
    (settings.templates / "emails.yml").write_text(
        "kind: contact\ntitle: Addresses\ncolumns:\n  - {field: email, header: Email, type: email, required: true}\n"
    )
    batch = run('Email\nada@example.com\n\n""\n   \neva@example.com\n', "emails")
    assert told(connection, batch.seqno) == ["created", "required", "required", "created"]


def test_a_file_with_half_of_its_records_wrong_is_loaded_and_with_more_is_not(
    settings: Settings, run: Run, connection: Connection
) -> None:
    change(settings, "contacts", "policies:\n", "policies:\n  max_rejected_share: 0.5\n")
    assert told(connection, run(HEADER + ADA + "K2,nobody,x\n").seqno) == ["created", "format"]
    batch = run(HEADER + EVA + "K2,nobody,x\nK4,eva4@example.com\n")
    assert (batch.failed, batch.error_rule) == (True, "too_many_rejects")
    assert "2 of 3 records are wrong, more than the 50%" in (batch.error_message or "")
    assert told(connection, batch.seqno) == ["unprocessed", "format", "too_few_fields"]
    assert set(contacts(connection)) == {"K1"}


def test_a_kept_file_that_has_gone_fails_its_batch(
    submit: Submit, work: Work, connection: Connection
) -> None:
    seqno = submit(HEADER + ADA)
    with transaction(connection) as cursor:
        (row,) = rows(cursor, "SELECT file_path FROM import_batch ORDER BY seqno DESC LIMIT 1")
    Path(row["file_path"]).unlink()
    assert work(seqno).error_rule == "file_missing"


def change(settings: Settings, template: str, old: str, new: str) -> None:
    path = settings.templates / f"{template}.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def told(connection: Connection, seqno: int) -> list[str]:
    """The outcome of every record; rules in place of the word rejected, other rules and warnings after it."""
    found = []
    for number, record in enumerate(ledger.records(connection, seqno), 1):
        assert record["record_no"] == number
        rules = [reason["rule"] for reason in [*(record["reasons"] or ()), *(record["warnings"] or ())]]
        found.append("+".join(rules if record["outcome"] == "rejected" else [record["outcome"], *rules]))
    return found


def contacts(connection: Connection) -> dict[str, dict[str, Any]]:
    """The contacts of the domain of the last batch, by external id."""
    with transaction(connection) as cursor:
        query = "SELECT * FROM contact WHERE domain_id = %(domain_id)s ORDER BY external_id"
        (last,) = rows(cursor, "SELECT domain_id FROM import_batch ORDER BY seqno DESC LIMIT 1")
        found = rows(cursor, query, last)
        return {row["external_id"]: row for row in found}
