"""A proposal takes the file it came from, says what it is a guess, and tells nobody's data.

Here among the slower tests, because every proposal is judged by Great Expectations; no database is needed.
"""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from rowledger import infer, loading, templates
from rowledger.errors import FileError
from rowledger.infer.sniff import sniff
from rowledger.records_in import Records
from rowledger.templates import ImportTemplate
from rowledger.validation import Validation

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
KINDS = loading.kinds()
SHIPPED = templates.read_templates(ROOT / "include" / "templates", KINDS)[0]
# What is wrong with a record under any template.
STRUCTURAL = {
    "too_few_fields",
    "too_many_fields",
    "bad_quoting",
    "control_char",
    "repeated_header",
    "missing_key",
}


def proposed(path: Path, kind: str, folder: Path, region: str | None = None) -> tuple[str, ImportTemplate]:
    """The text of a proposal, and the template that it is once saved."""
    text = infer.propose(path, KINDS[kind], KINDS, list(SHIPPED.values()), folder / "scratch", region).text
    saved = folder / "proposal.yml"
    saved.write_text(text, encoding="utf-8")
    return text, templates.read_template(saved, KINDS)


def rejects(path: Path, template: ImportTemplate, folder: Path) -> list[tuple[int, str, str | None]]:
    """Record, rule and column of everything that an import would reject."""
    lists: dict[str, list[str]] = {column.reference: [] for column in template.columns if column.reference}
    with Records(path, template, folder / "scratch") as records:
        validation = Validation(template, KINDS[template.kind], records, lists)
        return [
            (reject.record_no, reason.rule, reason.column)
            for chunk in records.chunks(0, 500)
            for reject in validation.verdicts(validation.judge(chunk)).rejects
            for reason in reject.reasons
        ]


def given(folder: Path, text: str, name: str = "sample.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


READABLE = [
    *(("contact", f"include/samples/{name}.csv") for name in ("contacts_spring_fair", "kontakte_webshop", "contacts_agency", "travel_leads")),
    *(("contract_status", f"include/samples/{name}.csv") for name in ("result_codes_2025_05", "result_codes_2025_06", "partner_results_2025_06", "call_centre_2025_07")),
    *(("contact", f"tests/data/contacts/{name}.csv") for name in (
        "apostrophes_as_quotes", "tabs", "sep_line_of_another_delimiter", "utf16_little_endian", "control_characters",
        "very_long_values", "phone_numbers", "unnamed_empty_column", "no_header", "header_only", "words_for_nothing")),
    ("contract_status", "tests/data/result_codes/quoted_line_breaks.csv"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), READABLE, ids=[Path(name).stem for _, name in READABLE])
def test_a_proposal_takes_the_file_it_came_from(kind: str, name: str, tmp_path: Path) -> None:
    """All but what no template can take: misshapen records, and those that lack what the kind needs."""
    text, template = proposed(ROOT / name, kind, tmp_path)
    needed = {template.column_of(field).name for field in KINDS[kind].required_fields}
    left = [
        one
        for one in rejects(ROOT / name, template, tmp_path)
        if one[1] not in STRUCTURAL and one[2] not in needed
    ]
    assert left == []
    rejected = len({number for number, _, _ in rejects(ROOT / name, template, tmp_path)})
    assert (f"# Checked: with this template {rejected:,} of " if rejected else "records are taken.") in text


@pytest.mark.parametrize("seed", range(8))
def test_a_proposal_takes_any_file_however_odd(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    cells = ["", " ", "a", "Zoë", "1", "0", "007", "1.5", "1,5", "-3", "1.234", "2025-01-31", "31.01.2025", "01/02/2025", "x@y.de",
             "x@", "+49301234567", "030 1234567", "yes", "NO", "a|b", "a;b;c", "=1+1", "'", '"', "two\nlines", "NULL", "\u200b", "é" * 300,
             "- x", "# x", "{a: b}", "null", "true", "\ufeff", "1e5", "２０"]  # fmt: skip
    columns = [draw.sample(cells, draw.choice([1, 2, 3, 8])) for _ in range(draw.randrange(2, 9))]
    header = draw.random() < 0.7
    rows = [[draw.choice(values) for values in columns] for _ in range(draw.choice([1, 5, 60]))]
    for number, row in enumerate(rows):
        row[0] = f"K{number}@example.com"
    odd = ["Kunde: Nr", "a #b", '"x"', "true", "No", "null", "~", "12", "1e3", "2025-01-31", "Ünï", "=1+1", "- a", "x\ty", "{a", "a: b",
           "*a", "&a", "!a", "%a", "@a", "`a", "👍", "a\\b", "\u202ex", "'a'", "two\nlines", "y" * 300]  # fmt: skip
    names = ["E-mail", *draw.sample(odd, len(columns) - 1)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=draw.choice(",;\t|"), quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows([names, *rows] if header else rows)
    path = given(tmp_path, buffer.getvalue())
    text, template = proposed(path, "contact", tmp_path)
    assert rejects(path, template, tmp_path) == []
    assert text.replace("\n", "").isprintable()  # nothing that a terminal would obey
    if header:
        assert [column.header for column in template.columns] == names


@pytest.mark.parametrize("name", [
    "empty", "gzip", "pdf", "nuls_at_the_end", "open_quote_in_the_middle", "open_quote_in_the_header", "utf16_without_mark",
    "utf32", "cut_inside_a_character", "duplicate_column", "unnamed_column", "noncharacter_of_our_own", "web_page",
])  # fmt: skip
def test_what_cannot_be_read_is_said_as_an_import_says_it(name: str, tmp_path: Path) -> None:
    path = DATA / "contacts" / f"{name}.csv"
    with pytest.raises(FileError) as imported:
        Records(path, SHIPPED["contacts"], tmp_path)
    with pytest.raises(FileError) as caught:
        infer.propose(path, KINDS["contact"], KINDS, list(SHIPPED.values()), tmp_path)
    assert (caught.value.rule, str(caught.value)) == (imported.value.rule, str(imported.value))


def test_a_file_that_is_not_there_or_says_nothing_is_answered_too(tmp_path: Path) -> None:
    for path, rule in (
        (tmp_path / "no.csv", "file_missing"),
        (given(tmp_path, "\n\n \n\n"[:2]), "empty_file"),
    ):
        with pytest.raises(FileError) as caught:
            infer.propose(path, KINDS["contact"], KINDS, [], tmp_path)
        assert caught.value.rule == rule


def column(template: ImportTemplate, name: str) -> dict[str, object]:
    found = next(one for one in template.columns if one.name == name)
    return found.model_dump(include=found.model_fields_set - {"header", "position", "max_length", "required"})


def test_types_and_fields_are_proposed_by_names_and_values(tmp_path: Path) -> None:
    lines = [
        "Klantnummer;E-mailadres;Geboortedatum;Punkte;Umsatz;VIP;Tags;Telefoon;Rôle;Kampagne;PLZ;Budget;Leer"
    ]
    lines += [
        f"K{n};k{n}@example.nl;{n % 28 + 1:02}.01.1980;{n};{n},50;{'ja' if n % 3 else 'nein'};{'rot|blau' if n % 2 else 'rot'};"
        f"020 123 45{n % 90 + 10};buyer, partner;WEB;0{1000 + n};1.{100 + n};"
        for n in range(60)
    ]
    text, template = proposed(given(tmp_path, "\n".join(lines)), "contact", tmp_path)
    assert template.file.model_dump(exclude={"max_records", "fields"}) == {
        "delimiter": ";", "quote": '"', "encoding": "utf-8", "header": True}  # fmt: skip
    assert {name: column(template, name) for name in lines[0].split(";")} == {
        "Klantnummer": {"field": "external_id", "type": "code"},
        "E-mailadres": {"field": "email", "type": "email"},
        "Geboortedatum": {"field": "birth_date", "type": "date", "format": "DD.MM.YYYY"},
        "Punkte": {"type": "number", "decimal": "."},
        "Umsatz": {"type": "number", "decimal": ","},
        "VIP": {"type": "boolean", "words": {"true": ("ja",), "false": ("nein",)}},
        "Tags": {"type": "list", "separator": "|"},
        "Telefoon": {"field": "phone", "type": "phone", "region": "NL"},
        "Rôle": {"field": "roles", "type": "list", "separator": ","},
        "Kampagne": {
            "field": "origins",
            "type": "list",
            "separator": "|",
            "reference": "@origins",
            "severity": "warn",
        },
        "PLZ": {"field": "postal_code"},
        "Budget": {},
        "Leer": {},
    }
    assert 'To decide: is 1.234 in "Budget" above a thousand, or three decimals? It stays text.' in text
    assert 'numbers of "Telefoon" without a country code? NL is a guess.' in text
    assert "header: Tags  # fills no field; field: attributes.tags would keep it" in text
    told = proposed(given(tmp_path, "\n".join(lines)), "contact", tmp_path, region="NL")[0]
    assert "NL is a guess" not in told


def test_a_few_wrong_values_make_a_warning_and_many_make_a_text(tmp_path: Path) -> None:
    rows = [
        f"{n}@example.com,{'x' if n in (3, 8) else '2025-01-31'},{'x' if n % 2 else '2025-01-31'}"
        for n in range(20)
    ]
    text, template = proposed(
        given(tmp_path, "\n".join(["Email,Birth date,Signed", *rows])), "contact", tmp_path
    )
    assert column(template, "Birth date") == {
        "field": "birth_date", "type": "date", "format": "YYYY-MM-DD", "severity": "warn"}  # fmt: skip
    assert "type: date  # 18 of 20 values; not in records 4, 9" in text
    assert column(template, "Signed") == {}
    text, template = proposed(
        given(tmp_path, "\n".join(["Email,Born,Birth date", *rows])), "contact", tmp_path
    )
    assert '"Birth date" is called like birth_date, but only 10 of its 20 values are date' in text
    assert column(template, "Born")["field"] == "birth_date"


@pytest.mark.parametrize(
    ("dates", "form", "ambiguous"),
    [
        (["01-02-2025", "03-04-2025"], "DD-MM-YYYY", "DD-MM-YYYY or MM-DD-YYYY"),
        (["01-02-2025", "13-04-2025"], "DD-MM-YYYY", None),
        (["01/02/2025", "03/31/2025"], "MM/DD/YYYY", None),
        (["20250201", "20251231"], "YYYYMMDD", None),
        (["2025/02/01"], "YYYY/MM/DD", None),
    ],
)
def test_dates_that_can_be_read_two_ways_are_left_to_a_person(
    dates: list[str], form: str, ambiguous: str | None, tmp_path: Path
) -> None:
    rows = [f"F{n},{date},10" for n, date in enumerate(dates)]
    text, template = proposed(given(tmp_path, "\n".join(rows)), "contract_status", tmp_path)
    assert template.column_of("date_result").format == form
    assert template.column_of("form_id").position == 1
    assert ("No value tells day from month" in text) is (ambiguous is not None)
    assert ambiguous is None or f'are the dates of "column 2" {ambiguous}?' in text


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    path = given(tmp_path, "Form ID,Remark\nF1,x\nF2,y\n")
    proposal = infer.propose(path, KINDS["contract_status"], KINDS, [], tmp_path)
    assert not proposal.usable
    assert (
        "# To decide: which column fills date_result? None looks like it, and it is needed.\n"
        in proposal.text
    )
    assert "# NOT A TEMPLATE YET: the proposal, line " in proposal.text
    assert "no column fills the field date_result" in proposal.text


def test_a_proposal_quotes_nobody(tmp_path: Path) -> None:
    rows = ["Anna,anna@example.com,030 1234567,Secret Street 5", "Bob,not an address,,Hidden Lane"] * 30
    text, _ = proposed(
        given(tmp_path, "\n".join(["First name,Email,Phone,Street", *rows])), "contact", tmp_path
    )
    assert [word for word in ("anna", "bob", "example.com", "address", "1234567", "secret", "hidden") if word in text.lower()] == []  # fmt: skip


def test_the_encoding_is_proposed_by_every_byte_of_the_file(tmp_path: Path) -> None:
    head = "Email,Nom\n" + "a@example.com,x\n" * 200_000
    path = tmp_path / "sample.csv"
    path.write_bytes(head.encode() + "b@example.com,José €\n".encode("cp1252"))
    text, template = proposed(path, "contact", tmp_path)
    assert template.file.encoding == "windows-1252"
    assert f"it is not UTF-8 (byte {len(head) + 17})" in text
    assert "200,001 records" in text


def test_the_proposal_is_the_same_for_any_chunk_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "include" / "samples" / "kontakte_webshop.csv"
    whole = proposed(path, "contact", tmp_path)[0]
    monkeypatch.setattr(infer, "CHUNK", 13)
    assert proposed(path, "contact", tmp_path)[0] == whole


@pytest.mark.parametrize(
    ("line", "delimiter", "width"),
    [
        ("ann@example.com;1,5;2,5", ";", 3),
        ("ann@example.com,b,x|y", ",", 3),
        ("ann@example.com\tSmith, Ann\tx;y", "\t", 3),
        ('ann@example.com,"a;b;c;d"', ",", 2),
    ],
)
def test_the_delimiter_is_the_one_that_leaves_cells_of_one_value(
    line: str, delimiter: str, width: int, tmp_path: Path
) -> None:
    form = sniff(given(tmp_path, f"{line}\n" * 5), set())
    assert (form.file.delimiter, form.width, form.file.header) == (delimiter, width, False)


def test_columns_with_line_breaks_or_tabs_may_have_them(tmp_path: Path) -> None:
    path = given(tmp_path, 'Email,Street,Note,City\na@example.com,"one\ntwo",a\tb,Bonn\n')
    _, template = proposed(path, "contact", tmp_path)
    assert [column.name for column in template.columns if column.multiline] == ["Street", "Note"]
    assert rejects(path, template, tmp_path) == []
