"""The verdicts of the derived suites equal those of a plain judge that knows only the rules, record for record.

The judge below reads the same template and works value by value, with the standard library and the two libraries
that the rules name. It shares no code with values, suites and validation.
"""

from __future__ import annotations

import csv
import datetime
import json
import random
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
import yaml
from email_validator import EmailNotValidError, validate_email

from rowledger import loading, templates
from rowledger.records_in import Records
from rowledger.validation import Validation

RECORDS = 1700
LISTS = {"countries": ["DE", "FR", "NL", "ÅL"]}
KEYS = {"contact": ["external_id", "email"], "contract_status": ["form_id"]}

TEMPLATES: dict[str, dict[str, Any]] = {
    "contacts by header": {
        "kind": "contact",
        "title": "x",
        "columns": [
            {"field": "external_id", "header": "Number", "type": "code", "unique": True, "max_length": 12},
            {"field": "email", "header": "E-mail", "type": "email"},
            {"field": "last_name", "header": "Name", "required": True, "min_length": 2, "max_length": 12},
            {"field": "street", "header": "Street", "multiline": True, "max_length": 20},
            {"field": "birth_date", "header": "Born", "type": "date", "format": "DD-MM-YYYY"},
            {"field": "phone", "header": "Phone", "type": "phone", "region": "DE"},
            {"field": "mobile", "header": "Mobile", "type": "phone", "severity": "warn"},
            {"field": "country", "header": "Country", "reference": "countries"},
            {"field": "language", "header": "Language", "values": ["de", "fr", "nl"], "severity": "warn"},
            {"field": "postal_code", "header": "Zip", "pattern": r"\d{4,5}|[A-Z]{1,2}\d\w*$"},
            {"header": "Note", "required": True, "max_length": 5, "severity": "warn"},
        ],
    },
    "contacts by email, with a column that is not there": {
        "kind": "contact",
        "title": "x",
        "file": {"delimiter": "\t", "quote": "'"},
        "columns": [
            {"field": "email", "header": "E-mail", "type": "email", "unique": True, "max_length": 30},
            {"field": "external_id", "header": "Absent", "unique": True},
            {"field": "first_name", "header": "Name", "pattern": r"[^\s.]+(\s[^\s.]+)?"},
            {"field": "birth_date", "header": "Born", "type": "date", "format": "YYYYMMDD", "severity": "warn"},
            {"field": "phone", "header": "Phone", "type": "phone", "region": "NL", "min_length": 5},
            {"field": "city", "header": "City", "values": ["Köln", "Paris"], "required": True},
        ],
        "policies": {"match": ["email"]},
    },
    "statuses by position": {
        "kind": "contract_status",
        "title": "x",
        "file": {"delimiter": ";", "header": False, "fields": 6},
        "columns": [
            {"field": "form_id", "position": 2, "title": "Form ID", "required": True, "type": "code", "unique": True},
            {"field": "date_result", "position": 1, "required": True, "type": "date", "format": "DD.MM.YYYY"},
            {"field": "result_code", "position": 4, "required": True, "values": ["10", "20", "é0"]},
            {"position": 5, "title": "Day", "type": "date", "format": "YYYY MM DD", "severity": "warn", "unique": True},
            {"position": 6, "title": "Remark", "multiline": True, "pattern": r"[A-Za-z0-9 ]*(\n.*)?", "max_length": 15},
        ],
    },
    "numbers, words and lists": {
        "kind": "contact",
        "title": "x",
        "columns": [
            {"field": "external_id", "header": "Number", "required": True, "type": "code"},
            {"field": "last_name", "header": "Name", "clear": "-", "min_length": 2},
            {"field": "phone", "header": "Phone", "type": "phone", "region": "DE", "clear": "NULL", "severity": "warn"},
            {"field": "email", "header": "E-mail", "type": "email", "unique": True},
            {"field": "attributes.points", "header": "Points", "type": "number", "pattern": "[0-9,+-]{1,9}"},
            {"field": "attributes.worth", "header": "Worth", "type": "number", "decimal": ",", "clear": "0", "severity": "warn"},
            {"field": "attributes.vip", "header": "VIP", "type": "boolean", "required": True},
            {"field": "attributes.news", "header": "News", "type": "boolean", "words": {"true": ["Straße", "ja"], "false": ["de"]}, "severity": "warn", "clear": "NA"},
            {"field": "attributes.tags", "header": "Tags", "type": "list", "values": ["de", "a b", "10", "é0"], "required": True},
            {"field": "attributes.lands", "header": "Lands", "type": "list", "separator": ";", "reference": "countries", "min_length": 2, "severity": "warn", "clear": "-"},
            {"field": "attributes.notes", "header": "Notes", "type": "list", "separator": " ", "pattern": "[A-Za-z0-9]+", "max_length": 6, "severity": "warn", "required": True, "multiline": True},
            {"header": "Days", "type": "list", "separator": ",", "max_length": 9},
        ],
    },
    "contacts by position, wrong addresses left out": {
        "kind": "contact",
        "title": "x",
        "file": {"delimiter": "|", "header": False},
        "columns": [
            {"field": "email", "position": 1, "type": "email", "severity": "warn", "required": True},
            {"field": "external_id", "position": 2, "type": "text", "max_length": 8},
            {"field": "birth_date", "position": 3, "type": "date", "format": "MM/DD/YYYY", "required": True},
            {"field": "phone", "position": 4, "type": "phone", "severity": "warn", "max_length": 14},
            {"field": "company", "position": 5, "unique": True, "severity": "warn", "min_length": 3},
            {"position": 6, "type": "code", "severity": "warn", "pattern": "[a-zA-Z]+[0-9]?"},
        ],
    },
}  # fmt: skip


# The plain judge ---------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What the rules say about one record: (rule, column) of rejects and of warnings, and the values if accepted."""

    rejects: list[tuple[str, str | None]] = field(default_factory=list)
    warnings: list[tuple[str, str | None]] = field(default_factory=list)
    stored: dict[str, Any] | None = None


def text_of(cell: str) -> str | None:
    return unicodedata.normalize("NFC", cell.strip()) or None


def items_of(column: dict[str, Any], text: str) -> list[str]:
    items = [item.strip() for item in text.split(column.get("separator", "|"))]
    return [item for place, item in enumerate(items) if item and item not in items[:place]]


def read_as(column: dict[str, Any], cell: str) -> str | list[str] | None:
    """What a cell says: nothing, a text, or items."""
    text = text_of(cell)
    if text is None or text == column.get("clear"):
        return None
    return (items_of(column, text) or None) if column.get("type") == "list" else text


def number_of(text: str, mark: str) -> str | None:
    if not re.fullmatch(rf"[+-]?[0-9]{{1,20}}({re.escape(mark)}[0-9]{{1,10}})?", text):
        return None
    number = Decimal(text.replace(mark, "."))
    shortest = f"{number:f}"
    shortest = shortest.rstrip("0").rstrip(".") if "." in shortest else shortest
    return "0" if number == 0 else shortest


def boolean_of(text: str, words: dict[str, list[str]]) -> bool | None:
    found = [
        meaning
        for meaning, listed in words.items()
        if text.casefold() in [word.casefold() for word in listed]
    ]
    return found[0] == "true" if found else None


def date_of(text: str, form: str) -> datetime.date | None:
    shape = re.escape(form).replace("YYYY", "(?P<y>[0-9]{4})").replace("MM", "(?P<m>[0-9]{2})").replace("DD", "(?P<d>[0-9]{2})")  # fmt: skip
    match = re.fullmatch(shape, text)
    if not match:
        return None
    try:
        day = datetime.date(int(match["y"]), int(match["m"]), int(match["d"]))
    except ValueError:
        return None
    return day if 1900 <= day.year <= 2100 else None


def email_of(text: str) -> str | None:
    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        return None


def phone_of(text: str, region: str | None) -> str | None:
    if not re.fullmatch(r"\+?[0-9 ()/.-]+", text):
        return None
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


DEFAULT_WORDS = {"true": ["true", "yes", "1"], "false": ["false", "no", "0"]}


def value_of(column: dict[str, Any], text: str | list[str] | None) -> Any:
    if text is None:
        return None
    if isinstance(text, list):
        if column.get("severity") != "warn":
            return text
        return [item for item in text if not broken_rules(column, item)] or None
    kind = column.get("type", "text")
    if kind == "number":
        return number_of(text, column.get("decimal", "."))
    if kind == "boolean":
        return boolean_of(text, column.get("words", DEFAULT_WORDS))
    if kind == "date":
        return date_of(text, column["format"])
    if kind == "email":
        return email_of(text)
    if kind == "phone":
        return phone_of(text, column.get("region"))
    return text


def broken_rules(column: dict[str, Any], text: str | list[str] | None) -> list[str]:
    if text is None:
        return ["required"] if column.get("required") else []
    if isinstance(text, list):
        return sorted({rule for item in text for rule in broken_rules(column, item)})
    kind, found = column.get("type", "text"), []
    # The limit of 255 is for what nothing else bounds.
    bounded = (
        kind in ("email", "phone", "date", "number", "boolean") or "values" in column or "reference" in column
    )
    given = "min_length" in column or "max_length" in column
    least, most = (
        column.get("min_length", 0),
        column.get("max_length", 255 if given or not bounded else 10**6),
    )
    if not least <= len(text) <= most:
        found.append("length")
    if value_of(column, text) is None or (kind == "code" and not re.fullmatch("[!-~]+", text)):
        found.append("format")
    if "pattern" in column and not re.match(rf"(?:{column['pattern']})\Z", text, re.ASCII):
        found.append("pattern")
    if text not in column.get("values", [text]) or text not in LISTS.get(column.get("reference", ""), [text]):
        found.append("not_in_set")
    return found


def controls(cell: str, multiline: bool) -> bool:
    return any(unicodedata.category(c) == "Cc" and not (multiline and c in "\t\n") for c in cell)


def columns_at(
    template: dict[str, Any], header: list[str] | None
) -> list[tuple[dict[str, Any], str, int | None]]:
    """The columns of a template with their names and their places in the file."""
    found = []
    for column in template["columns"]:
        name = column.get("header") or column.get("title") or f"column {column['position']}"
        place = (
            column.get("position", 0) - 1
            if header is None
            else header.index(name)
            if name in header
            else None
        )
        found.append((column, name, place))
    return found


def misshapen(
    cells: list[str], header: list[str] | None, width: int, columns: Any
) -> list[tuple[str, str | None]]:
    """What is wrong with a record before its values are looked at."""
    if len(cells) != width:
        return [("too_few_fields" if len(cells) < width else "too_many_fields", None)]
    if cells == header:
        return [("repeated_header", None)]
    by_place = {place: (column, name) for column, name, place in columns}
    found: list[tuple[str, str | None]] = []
    for place, cell in enumerate(cells):
        column, name = by_place.get(place, ({}, header[place] if header else f"column {place + 1}"))
        if controls(cell, column.get("multiline", False)):
            found.append(("control_char", name))
    return found


def judged(
    template: dict[str, Any], header: list[str] | None, width: int, rows: list[list[str]]
) -> list[Verdict]:
    columns = columns_at(template, header)
    mapped = {column["field"]: name for column, name, _ in columns if "field" in column}
    keys = template.get("policies", {}).get("match") or [
        key for key in KEYS[template["kind"]] if key in mapped
    ]
    seen: dict[str, set[str | bytes | None]] = {name: set() for _, name, _ in columns}
    verdicts = []
    for row in rows:
        cells = [cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row]
        verdict = Verdict(misshapen(cells, header, width, columns))
        verdicts.append(verdict)
        if verdict.rejects:
            continue
        stored: dict[str | None, Any] = {}
        cleared = []
        for column, name, place in columns:
            text = None if place is None else read_as(column, cells[place])
            if "clear" in column and place is not None and text_of(cells[place]) == column["clear"]:
                cleared.append(column.get("field"))
            same = text.encode().lower() if isinstance(text, str) and column.get("type") == "email" else text
            twice = ["unique"] if column.get("unique") and text and same in seen[name] else []
            if isinstance(text, str):
                seen[name].add(same)
            kept = verdict.rejects if column.get("severity", "reject") == "reject" else verdict.warnings
            kept += [(rule, name) for rule in broken_rules(column, text) + twice]
            stored[column.get("field")] = value_of(column, text)
        if not verdict.rejects and all(stored[key] is None for key in keys):
            verdict.rejects.append(("missing_key", " or ".join(mapped[key] for key in keys)))
        if not verdict.rejects:
            verdict.stored = {name: stored[name] for name in mapped}
            if any("clear" in column and "field" in column for column, _, _ in columns):
                verdict.stored["cleared"] = cleared or None
    return verdicts


# Nasty values ------------------------------------------------------------------------------------------------

ODD_EMAILS = [
    "anna@example.com", "ANNA@EXAMPLE.COM", "Info@Example.com", "ü@ü.de", "anna@BÜCHER.de", "anna@xn--bcher-kva.de",
    "a..b@example.com", "anna@example", "anna@@example.com", "o'neil@example.com", '"a b"@example.com', "a" * 64 + "@b.de",
    "a" * 65 + "@b.de", "a" * 64 + "@" + "ü." * 30 + "de", "a@" + "b" * 64 + ".de", "用户@例子.广告", "=1@example.com",
    "anna@example.com.", "anna@[1.2.3.4]", "anna@example\u3002com", "anna＠example.com", "an\u00adna@example.com",
]  # fmt: skip
ODD_PHONES = [
    "0171 1234567", "+49 171 1234567", "+491711234567", "+4901711234567", "+49 (0)171 1234567", "0049171 1234567",
    "030/123456", "110", "12", "+999123456", "+12345678", "+12025550123", "020 123 4567", "+31 20 123 4567", "+", "1" * 17,
    "0800 REWE", "0171 1234567 x5", "++49171", "+39 06 12345678",
]  # fmt: skip
ODD_NUMBERS = [
    "NaN", "Infinity", "-inf", "1e3", "1e131071", "0x10", "1_000", "１２３", "²", "1,234.56", "1.234,56", "1 234", "1'234.56",
    "5.", ".5", "+5", "--5", "5-", "(5)", "5%", "€5", "−5", "+-5", "-0", "-0,000", "00,10", "1" * 20, "1" * 21, "1,0123456789",
    "1,01234567891", "0.5000", "000000000000000000001", "9223372036854775808", "5\n", "1\u00a0000", "٣",
]  # fmt: skip
ODD_DAYS = [(29, 2, 2023), (29, 2, 2024), (31, 2, 2025), (31, 4, 2025), (0, 1, 2025), (1, 0, 2025), (1, 13, 2025), (1, 1, 1899),
            (1, 1, 1900), (31, 12, 2100), (1, 1, 2101), (29, 2, 1900), (29, 2, 2000), (1, 1, 0)]  # fmt: skip
ODD_TEXTS = [
    "", " ", "\u00a0", "NULL", "NA", "nan", "None", "\\N", "007", "=1+1", "'=1", '"', '""', "a;b|c\td,e", "José", "Jose\u0301",
    "İstanbul", "straße", "👩\u200d👩\u200d👧", "e" * 255, "e" * 256, "e\u0301" * 255, "a\u200bb", "a\u2028b", "infinity", "today",
    "12345", "１２３４５", "AB1x", "AB1é", "12345\n", "a.b", "a b", "a\u00a0b", "de", "DE", "fr ", "ÅL", "A\u030aL", "\u212bL", "é0", "e\u03010",
    "Köln", "Ko\u0308ln", "KÖLN", "10", "20", "x\ny", "x\ny\nz", "\ufeffa", "\u202ea", "a\x00", "a\x07b", "\x85", "\x7f", "a\x0bb",
]  # fmt: skip


def good(draw: random.Random, column: dict[str, Any], number: int) -> str:
    """A value that the column takes, most of the time."""
    kind = column.get("type", "text")
    if "clear" in column and draw.random() < 0.1:
        return str(column["clear"])
    if kind == "number":
        return f"{draw.choice(['', '-', '+', '0', '000'])}{draw.randrange(10**5)}{draw.choice(['', '', column.get('decimal', '.') + str(draw.randrange(1000))])}"[
            :9
        ]
    if kind == "boolean":
        word = draw.choice([word for words in column.get("words", DEFAULT_WORDS).values() for word in words])
        return str(draw.choice([word, word.upper(), word.title()]))
    if kind == "list":
        allowed = column.get("values") or LISTS.get(column.get("reference", ""), ["Ab", "x1", "42"])
        mark = draw.choice(["", "", " "]) + column.get("separator", "|")
        return mark.join(draw.choice(allowed) for _ in range(draw.choice([1, 1, 2, 3, 6]))) + draw.choice(
            ["", mark]
        )
    if kind == "date":
        day = datetime.date(1900, 1, 1) + datetime.timedelta(days=draw.randrange(73_000))
        return in_form(column["format"], day.day, day.month, day.year)
    if kind == "email":
        return f"{draw.choice('abc')}{number}@{draw.choice(['Example.com', 'b.de', 'bücher.de'])}"
    if kind == "phone":
        return draw.choice(["+49171", "0171 ", "+31 20 ", "+1202"]) + str(draw.randrange(10**6, 10**7))
    if "values" in column or "reference" in column:
        return str(draw.choice(column.get("values") or LISTS[column["reference"]]))
    if kind == "code" or column.get("unique"):
        return f"{draw.choice(['K', 'f', '0'])}{number}"
    return draw.choice(["Anna", "Schmidt", "12345", "B3x", "Ab", "São P"])


def in_form(form: str, day: int, month: int, year: int) -> str:
    return form.replace("DD", f"{day:02}").replace("MM", f"{month:02}").replace("YYYY", f"{year:04}")


def odd(draw: random.Random, column: dict[str, Any]) -> str:
    kind = column.get("type", "text")
    if kind == "date" and draw.random() < 0.7:
        return in_form(column["format"], *draw.choice(ODD_DAYS))
    if kind == "email" and draw.random() < 0.7:
        return draw.choice(ODD_EMAILS)
    if kind == "phone" and draw.random() < 0.7:
        return draw.choice(ODD_PHONES)
    if kind == "number" and draw.random() < 0.7:
        return draw.choice(ODD_NUMBERS)
    if kind == "list" and draw.random() < 0.7:
        return column.get("separator", "|").join(
            draw.choice(ODD_TEXTS) for _ in range(draw.choice([1, 2, 2, 3, 9]))
        )
    return draw.choice(ODD_TEXTS)


WIDE = {ord("0") + n: ord("０") + n for n in range(10)}
ARABIC = {ord("0") + n: ord("٠") + n for n in range(10)}
NEAR_MISSES: list[Callable[[random.Random, str], str]] = [
    lambda draw, v: f"{draw.choice([' ', chr(0xA0), chr(0x2003), chr(0x3000)])}{v}",
    lambda draw, v: f"{v}{draw.choice(['  ', chr(0xA0), chr(0x0A), chr(0x0D), chr(9), chr(0x200B), chr(0xFEFF), '.'])}",
    lambda draw, v: unicodedata.normalize("NFD", v),
    lambda draw, v: unicodedata.normalize("NFKC", v),
    lambda draw, v: v.swapcase(),
    lambda draw, v: v.translate(draw.choice([WIDE, ARABIC])),
    lambda draw, v: v[1:],
    lambda draw, v: v[:-1],
    lambda draw, v: v + v[-1:],
    lambda draw, v: v.replace("0", "", 1),
    lambda draw, v: v.replace("-", "/").replace(".", "-"),
    lambda draw, v: v[: len(v) // 2] + draw.choice(["\u200b", "é", " ", "\n", "\u00a0", "\u0301", "'", '"']) + v[len(v) // 2 :],
    lambda draw, v: v * 20,
    lambda draw, v: "",
]  # fmt: skip


def generated(
    draw: random.Random, template: dict[str, Any], header: list[str] | None, width: int
) -> list[list[str]]:
    """Rows of which about half have nothing wrong, and the others usually one thing."""
    at = {(header.index(c["header"]) if header else c["position"] - 1): c for c in template["columns"]
          if not header or c["header"] in header}  # fmt: skip
    rows: list[list[str]] = []
    for number in range(RECORDS):
        row = [good(draw, at.get(place, {}), number) for place in range(width)]
        for _ in range(draw.choice([0, 0, 0, 1, 1, 2])):
            place = draw.randrange(width)
            near = draw.random() < 0.5
            row[place] = draw.choice(NEAR_MISSES)(draw, row[place]) if near else odd(draw, at.get(place, {}))
        if rows and draw.random() < 0.05:  # a value that was there before, perhaps in a record that was wrong
            place = draw.randrange(width)
            earlier = draw.choice(rows)
            row[place] = earlier[place] if place < len(earlier) else ""
        if draw.random() < 0.01:
            row = draw.choice([row[:-1], [*row, ""], [*row, "x"], row[:1], list(header or row)])
        rows.append(row)
    return rows


# The comparison ----------------------------------------------------------------------------------------------


def by_rowledger(
    template: dict[str, Any], header: list[str] | None, rows: list[list[str]], folder: Path
) -> list[Verdict]:
    kinds = {name: replace(kind, attributes=True) for name, kind in loading.kinds().items()}
    parsed = templates.parse_template(yaml.safe_dump(template, allow_unicode=True), "x", kinds, "x.yml")
    path = folder / "file.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(
            file, delimiter=parsed.file.delimiter, quotechar=parsed.file.quote, quoting=csv.QUOTE_ALL
        )
        writer.writerows([header, *rows] if header else rows)
    verdicts: dict[int, Verdict] = {}
    with Records(path, parsed, folder / "scratch") as records:
        validation = Validation(parsed, kinds[parsed.kind], records, LISTS)
        for chunk in records.chunks(0, 600):
            result = validation.verdicts(validation.judge(chunk))
            for reject in result.rejects:
                verdicts[reject.record_no] = Verdict(
                    [(reason.rule, reason.column) for reason in reject.reasons],
                    [(warning.rule, warning.column) for warning in reject.warnings],
                )
            for row in result.accepted.to_pylist() if result.accepted is not None else ():
                warnings = [(w["rule"], w["column"]) for w in json.loads(row.pop("warnings") or "[]")]
                row.pop("match_key")
                verdicts[row.pop("record_no")] = Verdict([], warnings, row)
    assert sorted(verdicts) == list(range(1, len(rows) + 1))
    return [verdicts[number] for number in sorted(verdicts)]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("seed", [2026])
def test_both_judges_say_the_same_of_every_record(name: str, seed: int, tmp_path: Path) -> None:
    template = TEMPLATES[name]
    draw = random.Random(f"{name} {seed}")
    header, width = None, template.get("file", {}).get("fields", 6)
    if template.get("file", {}).get("header", True):
        header = [c["header"] for c in template["columns"] if c["header"] != "Absent"] + ["Of no template"]
        draw.shuffle(header)
        width = len(header)
    rows = generated(draw, template, header, width)
    expected, found = judged(template, header, width, rows), by_rowledger(template, header, rows, tmp_path)
    differences = [
        f"record {number} {row}\n  by the rules: {plain}\n  by rowledger: {ours}"
        for number, (row, plain, ours) in enumerate(zip(rows, expected, found, strict=True), 1)
        if (sorted(plain.rejects, key=str), sorted(plain.warnings, key=str), plain.stored)
        != (sorted(ours.rejects, key=str), sorted(ours.warnings, key=str), ours.stored)
    ]
    assert differences == [], "\n".join([f"{len(differences)} differ", *differences[:5]])
    # The comparison is worth something only if every rule was broken and enough records were right.
    broken = {rule for verdict in expected for rule, _ in (*verdict.rejects, *verdict.warnings)}
    possible = {"too_few_fields", "too_many_fields", "control_char", "format"}
    for key, rule in {"required": "required", "unique": "unique", "pattern": "pattern", "values": "not_in_set", "max_length": "length"}.items():  # fmt: skip
        possible |= {rule} if any(key in column for column in template["columns"]) else set()
    assert possible <= broken
    assert sum(verdict.stored is not None for verdict in expected) > RECORDS / 5
