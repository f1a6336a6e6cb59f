"""What a cell means as text, date, address, phone, number, boolean or list: written tables of what is taken and what is not."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import phonenumbers
import pyarrow as pa
import pytest

from rowledger import values


def clean(*cells: str) -> list[str | None]:
    return values.clean(pa.array(cells, pa.string())).to_pylist()


def dates(form: str, *texts: str | None) -> list[date | None]:
    return values.as_dates(pa.array(texts, pa.string()), form).to_pylist()


def emails(*texts: str | None) -> list[str | None]:
    return values.as_emails(pa.array(texts, pa.string())).to_pylist()


def phones(region: str | None, *texts: str | None) -> list[str | None]:
    return values.as_phones(pa.array(texts, pa.string()), region).to_pylist()


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("", None),
        ("   ", None),
        ("\t\n", None),
        ("\u00a0\u2003\u3000", None),  # no-break, em and ideographic spaces are white space too
        (" a b ", "a b"),
        ("\u00a0a\u00a0", "a"),
        ("a\nb\n", "a\nb"),
        ("Jose\u0301", "José"),
        ("José", "José"),
        ("ﬁ", "ﬁ"),  # a ligature stays: no compatibility forms
        ("\u200ba", "\u200ba"),  # zero width is not white space: types refuse it, names keep it
        ("007", "007"),
        ("NULL", "NULL"),
        ("👩‍👩‍👧", "👩‍👩‍👧"),
    ],
)
def test_a_cell_is_trimmed_composed_and_absent_when_empty(cell: str, text: str | None) -> None:
    assert clean(cell) == [text]
    assert clean("plain", cell, "é") == ["plain", text, "é"]  # the same beside other cells


def test_no_cells_and_only_empty_cells_are_clean_too() -> None:
    assert clean() == []
    assert clean("", " ") == [None, None]


@pytest.mark.parametrize(
    ("form", "text", "day"),
    [
        ("DD-MM-YYYY", "01-02-2025", date(2025, 2, 1)),
        ("MM-DD-YYYY", "01-02-2025", date(2025, 1, 2)),
        ("YYYYMMDD", "20250201", date(2025, 2, 1)),
        ("DD.MM.YYYY", "31.12.2100", date(2100, 12, 31)),
        ("YYYY/MM/DD", "1900/01/01", date(1900, 1, 1)),
        ("DD MM YYYY", "29 02 2024", date(2024, 2, 29)),
        ("DD-MM-YYYY", "29-02-2000", date(2000, 2, 29)),
        ("DD-MM-YYYY", "29-02-1900", None),
        ("DD-MM-YYYY", "29-02-2023", None),
        ("DD-MM-YYYY", "31-02-2025", None),
        ("DD-MM-YYYY", "31-04-2025", None),
        ("DD-MM-YYYY", "32-01-2025", None),
        ("DD-MM-YYYY", "00-01-2025", None),
        ("DD-MM-YYYY", "01-00-2025", None),
        ("DD-MM-YYYY", "01-13-2025", None),
        ("DD-MM-YYYY", "1-2-2025", None),
        ("DD-MM-YYYY", "01-2-2025", None),
        ("DD-MM-YYYY", "01-02-25", None),
        ("DD-MM-YYYY", "01-02-02025", None),
        ("DD-MM-YYYY", "01-02-+2025", None),
        ("DD-MM-YYYY", "01.02.2025", None),
        ("DD.MM.YYYY", "01-02-2025", None),
        ("DD.MM.YYYY", "01x02x2025", None),
        ("YYYYMMDD", "2025-02-01", None),
        ("DD-MM-YYYY", "2025-02-01", None),
        ("DD-MM-YYYY", "01-02-2025 00:00", None),
        ("DD-MM-YYYY", "01-02-2025\n", None),
        ("DD-MM-YYYY", "01-02-2025\0", None),
        ("DD-MM-YYYY", "01-02-2025x", None),
        ("DD-MM-YYYY", "01- 2-2025", None),
        ("DD MM YYYY", "01  02 2025", None),
        ("DD-MM-YYYY", "31-12-1899", None),
        ("DD-MM-YYYY", "01-01-2101", None),
        ("DD-MM-YYYY", "01-01-294277", None),
        ("DD-MM-YYYY", "01-01-0000", None),
        ("DD-MM-YYYY", "infinity", None),
        ("DD-MM-YYYY", "today", None),
        ("DD-MM-YYYY", "J2451187", None),
        ("DD-MM-YYYY", "01-Feb-2025", None),
        ("DD-MM-YYYY", "０１-０２-２０２５", None),  # full-width digits
        ("DD-MM-YYYY", "٠١-٠٢-٢٠٢٥", None),  # Arabic-Indic digits
        ("DD-MM-YYYY", "01\u201102\u20112025", None),  # no-break hyphens
        ("DD-MM-YYYY", None, None),
    ],
)
def test_a_date_is_real_in_its_declared_form_and_of_our_time(form: str, text: str, day: date | None) -> None:
    assert dates(form, text) == [day]


def test_every_day_of_two_centuries_is_a_date_and_no_other_text_of_that_form_is() -> None:
    texts = [
        f"{d:02}{m:02}{y}"
        for y in (1899, 1900, 2000, 2023, 2024, 2100, 2101)
        for m in range(14)
        for d in range(33)
    ]
    expected = []
    for text in texts:
        try:
            day = date(int(text[4:]), int(text[2:4]), int(text[:2]))
        except ValueError:
            day = None
        expected.append(day if day and 1900 <= day.year <= 2100 else None)
    assert dates("DDMMYYYY", *texts) == expected
    assert sum(day is not None for day in expected) == 5 * 365 + 2


LONG = ".".join(["x" * 61] * 3)
EMAILS = [
    # taken as they are
    ("anna@example.com", "anna@example.com"),
    ("Anna.Schmidt@example.com", "Anna.Schmidt@example.com"),
    ("anna+news@example.com", "anna+news@example.com"),
    ("anna_b-c@example.com", "anna_b-c@example.com"),
    ("a@b.de", "a@b.de"),
    ("1@2.de", "1@2.de"),
    ("a.b.c.d@sub.example.co.uk", "a.b.c.d@sub.example.co.uk"),
    ("o'neil@example.com", "o'neil@example.com"),
    ("=1@example.com", "=1@example.com"),
    ("-a@example.com", "-a@example.com"),
    ("a!#$%&'*+-/=?^_`{|}~@example.com", "a!#$%&'*+-/=?^_`{|}~@example.com"),
    ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ("anna@" + "b" * 63 + ".de", "anna@" + "b" * 63 + ".de"),
    ("a" * 64 + f"@{LONG}.de", "a" * 64 + f"@{LONG}.de"),
    ("ü@ü.de", "ü@ü.de"),
    ("用户@例子.广告", "用户@例子.广告"),
    ("anna@straße.de", "anna@straße.de"),
    # taken, and written another way
    ("anna@Example.COM", "anna@example.com"),
    ("INFO@Example.com", "info@example.com"),
    ("Postmaster@bücher.de", "postmaster@bücher.de"),
    ("anna@BÜCHER.de", "anna@bücher.de"),
    ("anna@xn--bcher-kva.de", "anna@bücher.de"),
    ("jo\u0308rg@example.de", "jörg@example.de"),
    ("anna@example\u3002com", "anna@example.com"),
    # something is missing, or there is too much
    ("anna", None),
    ("anna@", None),
    ("@example.com", None),
    ("anna@b", None),
    ("anna@localhost", None),
    ("anna@@example.com", None),
    ("anna@exa@mple.com", None),
    ("anna@" + "b" * 64 + ".de", None),
    ("a" * 64 + f"@{LONG}.ccccc", None),
    ("a" * 64 + "@" + "ü." * 30 + "de", None),  # 155 bytes here, over 254 in ASCII
    # dots and hyphens
    (".anna@example.com", None),
    ("anna.@example.com", None),
    ("an..na@example.com", None),
    ("anna@.example.com", None),
    ("anna@example..com", None),
    ("anna@example.com.", None),
    ("anna@-example.com", None),
    ("anna@example-.com", None),
    ("anna@exam_ple.com", None),
    # blanks, quotes, names, lists
    ("an na@example.com", None),
    ("anna@exa mple.com", None),
    ('"an na"@example.com', None),
    ("anna\u00a0b@example.com", None),
    ("anna@example.com\nb", None),
    ("Anna <anna@example.com>", None),
    ("mailto:anna@example.com", None),
    ("anna@example.com;b@example.com", None),
    ("anna@example.com,b@example.com", None),
    ("anna(home)@example.com", None),
    ("anna\\@example.com", None),
    # addresses of machines and names that are nobody's
    ("anna@[192.168.1.1]", None),
    ("anna@192.168.1.1", None),
    ("anna@example.123", None),
    ("anna@example.test", None),
    ("anna@example.invalid", None),
    ("anna@example.local", None),
    # invisible and look-alike characters
    ("an\u200bna@example.com", None),
    ("anna@exa\u200bmple.com", None),
    ("\u202eanna@example.com", None),
    ("anna@exam\u00adple.com", None),
    ("anna＠example.com", None),
    ("anna@😀.com", None),
    ("anna@xn--a.de", None),
    ("anna\0@example.com", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "address"), EMAILS)
def test_an_email_address_is_what_the_table_says(text: str, address: str | None) -> None:
    assert emails(text) == [address]


def test_a_column_of_addresses_is_judged_like_each_alone() -> None:
    texts, addresses = zip(*EMAILS, strict=True)
    assert emails(*texts, None, *texts) == [*addresses, None, *addresses]
    assert emails() == []
    chunked = pa.chunked_array([pa.array(texts[:9]), pa.array(texts[9:])])
    assert values.as_emails(chunked).to_pylist() == list(addresses)


PHONES = [
    ("DE", "0171 1234567", "+491711234567"),
    ("DE", "0049 171 1234567", "+491711234567"),
    ("DE", "+49 (0)171 1234567", "+491711234567"),
    ("DE", "+491711234567", "+491711234567"),
    ("DE", "+4901711234567", "+491711234567"),
    ("DE", "(030) 123-456", "+4930123456"),
    ("DE", "030/123456", "+4930123456"),
    ("DE", "+49.171.1234567", "+491711234567"),
    ("DE", "+1 202-555-0123", "+12025550123"),
    ("DE", "+12025550123", "+12025550123"),
    ("DE", "+390612345678", "+390612345678"),  # Italian numbers keep their 0
    ("IT", "06 12345678", "+390612345678"),
    (None, "+49 171 1234567", "+491711234567"),
    (None, "0171 1234567", None),  # of which country?
    ("DE", "12", None),
    ("DE", "110", None),
    ("DE", "+", None),
    ("DE", "0", None),
    ("DE", "+49", None),
    ("DE", "+491", None),
    ("DE", "++491711234567", None),
    ("DE", "+999123456789", None),
    ("DE", "+999 123456789", None),
    ("DE", "+12345678", None),
    ("DE", "1" * 16, None),
    ("DE", "0800 REWE", None),
    ("DE", "0171 1234567 x5", None),
    ("DE", "0171 1234567\n", None),
    ("DE", "tel:+491711234567", None),
    ("DE", "０１７１１２３４５６７", None),
    ("DE", "٠١٧١١٢٣٤٥٦٧", None),
    ("DE", "0171\u00a01234567", None),
    ("DE", "anna@example.com", None),
    ("DE", None, None),
]


@pytest.mark.parametrize(("region", "text", "number"), PHONES)
def test_a_phone_number_is_what_the_table_says(region: str | None, text: str, number: str | None) -> None:
    assert phones(region, text) == [number]


def test_the_quick_way_with_international_numbers_says_what_phonenumbers_says() -> None:
    draw = random.Random(20)
    codes = [str(code) for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE] + ["210", "999", "0"]
    texts = [f"+{draw.choice(codes)}{draw.randrange(10 ** draw.randint(4, 13)):04}" for _ in range(4000)]

    def judged(text: str) -> Any:
        try:
            parsed = phonenumbers.parse(text, None)
        except phonenumbers.NumberParseException:
            return None
        fits = (
            phonenumbers.is_possible_number_with_reason(parsed) == phonenumbers.ValidationResult.IS_POSSIBLE
        )
        return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164) if fits else None

    expected = [judged(text) for text in texts]
    assert phones(None, *texts) == expected
    assert 1000 < sum(number is not None for number in expected) < 3900


def test_columns_without_values_stay_so() -> None:
    assert phones("DE") == []
    assert phones("DE", None, None) == [None, None]
    assert emails(None, None) == [None, None]
    assert dates("DD-MM-YYYY", None, None) == [None, None]


@pytest.mark.parametrize(
    ("mark", "text", "number"),
    [
        (".", "0", "0"),
        (".", "-12", "-12"),
        (".", "+5", "5"),
        (".", "007", "7"),
        (".", "1.50", "1.5"),
        (".", "100", "100"),
        (".", "100.0", "100"),
        (".", "-0.00", "0"),
        (".", "-0.05", "-0.05"),
        (",", "1234,5", "1234.5"),
        (".", "9" * 20 + "." + "9" * 10, "9" * 20 + "." + "9" * 10),
        (".", "9" * 21, None),
        (".", "0." + "1" * 11, None),
        (".", "9223372036854775808", "9223372036854775808"),
        (",", "1.5", None),
        (".", "1,5", None),
        (".", "1,234.56", None),
        (",", "1.234,56", None),
        (".", "1 234", None),
        (".", "1'234", None),
        (".", "1_000", None),
        (".", "5.", None),
        (".", ".5", None),
        (".", "--5", None),
        (".", "5-", None),
        (".", "(5)", None),
        (".", "5%", None),
        (".", "€5", None),
        (".", "\u22125", None),  # the minus of typographers
        (".", "1e3", None),
        (".", "1e131071", None),
        (".", "NaN", None),
        (".", "Infinity", None),
        (".", "0x10", None),
        (".", "１２", None),
        (".", "²", None),
        (".", "5\n", None),
        (".", "15", "15"),
        (".", "1x5", None),  # the mark is a mark, not any character
        (".", None, None),
    ],
)
def test_a_number_is_plain_digits_with_the_declared_mark(mark: str, text: str, number: str | None) -> None:
    assert values.as_numbers(pa.array([text, "1", None], pa.string()), mark).to_pylist() == [
        number,
        "1",
        None,
    ]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("ja", True), ("JA", True), ("Straße", True), ("STRASSE", True), ("nein", False), ("0", False), ("j", None),
     ("yes", None), ("true", None), ("jaa", None), ("ја", None), ("", None), (None, None)],
)  # fmt: skip
def test_a_boolean_is_one_of_its_words_in_any_case(text: str | None, meaning: bool | None) -> None:
    cells = pa.array([text, "nein", None], pa.string())
    assert values.as_booleans(cells, ["ja", "Straße"], ["nein", "0"]).to_pylist() == [meaning, False, None]


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("a", ["a"]),
        ("b;a", ["b", "a"]),
        (" a ;\u00a0b\u2003;", ["a", "b"]),
        (";;", None),
        (" ; ", None),
        ("a;b;a; b", ["a", "b"]),
        ("a;A", ["a", "A"]),
        ("a|b", ["a|b"]),
        ("a\nb;c", ["a\nb", "c"]),
        ("", None),
        (None, None),
    ],
)
def test_a_list_has_no_blank_items_and_none_twice(cell: str | None, items: list[str] | None) -> None:
    cells = pa.array(["x;y", cell, None, "y;x;y", cell], pa.string())
    for text in (cells, cells[1:], pa.concat_arrays([cells, cells])[5:]):
        cleaned = values.clean_list(values.clean(text), ";")
        start = len(cells) - len(text)
        assert (
            values.as_lists(cleaned, ";").to_pylist() == [["x", "y"], items, None, ["y", "x"], items][start:]
        )


def test_lists_of_nothing_are_lists_too() -> None:
    assert values.clean_list(pa.array([], pa.string()), "|").to_pylist() == []
    assert values.clean_list(pa.array([None, None], pa.string()), "|").to_pylist() == [None, None]


def test_every_item_of_a_list_is_judged() -> None:
    lists = pa.array([["a", "bbb"], None, ["ééé", "12"], ["１２"]], pa.list_(pa.string()))
    judged = {
        "length": values.right_items(lists, min_value=2, max_value=2),
        "pattern": values.right_items(lists, regex=r"\A(?:[a-z]|\d+)\z"),
        "set": values.right_items(lists, value_set=["a", "12"]),
        "empty set": values.right_items(lists, value_set=[]),
    }
    assert {rule: list(map(int, right)) for rule, right in judged.items()} == {
        "length": [0, 0, 0, 1, 1],
        "pattern": [1, 0, 0, 1, 0],
        "set": [1, 0, 0, 1, 0],
        "empty set": [0, 0, 0, 0, 0],
    }
    assert values.keep_items(lists, judged["set"]).to_pylist() == [["a"], None, ["12"], None]
