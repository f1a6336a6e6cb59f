"""Every kind of fault of a template gives a sentence: file, line or path, what is wrong, what would be right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rowledger import loading, templates
from rowledger.errors import TemplateError, UnknownCode
from rowledger.model import Kind, TargetField
from rowledger.templates import ImportTemplate

ROOT = Path(__file__).parents[2]
BUILT_IN = [path.stem for path in templates.BUILT_IN.glob("*.yml")]
CONTACT = """\
kind: contact
title: Contacts
columns:
  - {field: email, header: E-mail, type: email}
"""
STATUS = """\
kind: contract_status
title: Statuses
file: {header: false, fields: 3}
columns:
  - {field: form_id, position: 1, required: true, type: code}
  - {field: date_result, position: 2, required: true, type: date, format: DD-MM-YYYY}
  - {field: result_code, position: 3, required: true, type: code}
"""


KINDS = loading.kinds()


def parse(text: str, kinds: Mapping[str, Kind] = KINDS) -> ImportTemplate:
    return templates.parse_template(text, "sample", kinds, "sample.yml")


def fault(text: str, kinds: Mapping[str, Kind] = KINDS) -> str:
    with pytest.raises(TemplateError) as caught:
        parse(text, kinds)
    return str(caught.value)


def with_column(column: str) -> str:
    return f"{CONTACT}  - {{{column}}}\n"


@pytest.mark.parametrize("name", ["contacts", "result_codes", "result_codes_with_header"])
def test_the_templates_that_come_along_are_right(name: str) -> None:
    assert templates.find_template(ROOT / "include" / "templates", name, loading.kinds()).name == name


def test_a_template_gives_its_columns_and_policies() -> None:
    template = parse(STATUS + "policies: {unknown_status: reject}\n")
    assert [column.field for column in template.columns] == ["form_id", "date_result", "result_code"]
    assert (template.field_count, template.policies.unknown_status) == (3, "reject")
    assert template.column_of("date_result").format == "DD-MM-YYYY"


def test_a_column_is_called_by_its_header_its_title_or_its_place() -> None:
    text = STATUS.replace("position: 2,", "position: 2, title: Day,")
    assert [column.name for column in parse(text).columns] == ["column 1", "Day", "column 3"]
    assert parse(CONTACT).columns[0].name == "E-mail"


def test_a_positional_file_has_as_many_fields_as_its_last_position_says() -> None:
    assert parse(STATUS.replace(", fields: 3", "")).field_count == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(CONTACT + "titel: x\n", ["line 5", "titel", "not a known key"], id="unknown key"),
        pytest.param(with_column("headr: x"), ["line 5", "columns.2.headr", "not a known key"], id="unknown key of a column"),
        pytest.param(CONTACT + "1: x\n", ["line 5", "1", "not a known key"], id="key that is a number"),
        pytest.param(CONTACT + "2026-01-01: x\n", ["not a known key"], id="key that is a date"),
        pytest.param(CONTACT + "? !!binary aGk=\n: b\n", ["not a known key"], id="key that is binary"),
        pytest.param(CONTACT + "hash: x\n", ["line 5", "hash", "not a known key"], id="key that we set ourselves"),
        pytest.param(CONTACT.replace("title: Contacts\n", ""), ["title", "is missing"], id="missing key"),
        pytest.param(CONTACT.replace("kind: contact\n", ""), ["kind", "is missing"], id="missing kind"),
        pytest.param(CONTACT.replace("Contacts", "5"), ["line 2", "title", "must be a valid string, not 5"], id="number for a text"),
        pytest.param(CONTACT.replace("Contacts", "null"), ["line 2", "title", "must be a valid string"], id="null for a text"),
        pytest.param(with_column("header: P, required: 'yes'"), ["line 5", "columns.2.required", "boolean, not 'yes'"], id="text for a boolean"),
        pytest.param(with_column("header: P, max_length: '10'"), ["line 5", "max_length", "integer, not '10'"], id="text for a number"),
        pytest.param(with_column("header: P, max_length: 10.5"), ["line 5", "max_length", "integer, not 10.5"], id="fraction for a whole number"),
        pytest.param(with_column("header: P, max_length: 0"), ["line 5", "max_length", "greater than or equal to 1"], id="length of nothing"),
        pytest.param(with_column("header: P, values: [yes, no]"), ["line 5", "values.1", "string, not True"], id="booleans for values"),
        pytest.param(with_column("header: P, values: []"), ["line 5", "values", "at least 1"], id="no values"),
        pytest.param(CONTACT + "domains: DEMO\n", ["line 5", "domains", "must be a valid list, not 'DEMO'"], id="text for a list"),
        pytest.param(CONTACT + "file: 5\n", ["line 5", "file", "must be an object"], id="number for a mapping"),
        pytest.param(CONTACT + "  - 5\n", ["line 5", "columns.2", "must be an object"], id="number for a column"),
        pytest.param("kind: contact\ntitle: x\ncolumns: []\n", ["line 3", "columns", "at least 1"], id="no columns"),
        pytest.param(CONTACT + "file: {delimiter: ':'}\n", ["line 5", "file.delimiter", "',', ';'"], id="unknown delimiter"),
        pytest.param(CONTACT + "file: {encoding: latin}\n", ["line 5", "file.encoding", "'iso-8859-1'"], id="unknown encoding"),
        pytest.param(CONTACT.replace("type: email", "type: mail"), ["line 4", "columns.1.type", "'email'", "not 'mail'"], id="unknown type"),
        pytest.param(CONTACT.replace("kind: contact", "kind: contacts"), ["line 1", "kind", "must be one of contact, ", "not 'contacts'"], id="unknown kind"),
        pytest.param(with_column("header: P, field: pager"), ["line 5", "columns.2.field", "'pager' is not a field of contact", "external_id"], id="unknown field"),
        pytest.param(with_column("header: P, field: phone"), ["line 5", "columns.2.type", "must be phone for field phone"], id="type that the field does not take"),
        pytest.param(CONTACT + "policies: {max_rejected_share: 0}\n", ["line 5", "max_rejected_share", "greater than 0"], id="share of nothing"),
        pytest.param(CONTACT + "policies: {max_rejected_share: .nan}\n", ["line 5", "max_rejected_share"], id="share that is no number"),
        pytest.param(CONTACT + f"file: {{max_records: 0x{'F' * 5000}}}\n", ["sample.yml"], id="number of 6,000 digits"),
        pytest.param(with_column('header: "P\\ud800"'), ["sample.yml", "line 5", "is not valid YAML"], id="half a character"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_named(text: str, said: list[str]) -> None:
    message = fault(text)
    assert message.startswith("sample.yml")
    assert [part for part in said if part not in message] == [], message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "is empty or not a mapping", id="nothing"),
        pytest.param("- kind: contact\n", "is empty or not a mapping", id="a list"),
        pytest.param("contact\n", "is empty or not a mapping", id="a word"),
        pytest.param(CONTACT + "\ttitle: x\n", "line 5, column 1: is not valid YAML", id="a tab"),
        pytest.param(CONTACT + "file: {header: true\n", "is not valid YAML", id="an open brace"),
        pytest.param(CONTACT + "---\n" + CONTACT, "line 5, column 1: is not valid YAML", id="two documents"),
        pytest.param(CONTACT + "\0", "is not valid YAML", id="NUL"),
        pytest.param(CONTACT + "x: !!python/object:os.system {}\n", "line 5", id="a Python object"),
        pytest.param(CONTACT + "title: y\n", 'line 5: "title" is given twice', id="double key"),
        pytest.param(
            with_column("header: P, header: Q"), 'line 5: "header" is given twice', id="double inner key"
        ),
        pytest.param(CONTACT + "? [a]\n: b\n", "is not valid YAML", id="a list as key"),
        pytest.param(
            CONTACT + "x: " + "[" * 5000 + "]" * 5000, "line 5: is nested too deep", id="deep nesting"
        ),
        pytest.param("a: &a [x]\nb: *a\n", "line 2: aliases (*) are not allowed", id="an alias"),
    ],
)
def test_text_that_is_not_the_yaml_of_a_template_is_refused(text: str, said: str) -> None:
    assert said in fault(text)


def test_an_alias_bomb_is_refused_before_it_explodes() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "line 2: aliases (*) are not allowed; write it out." in fault("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(CONTACT.replace("header: E-mail, ", ""), ["line 4", "columns.1.header", "find columns by name"], id="header missing"),
        pytest.param(with_column("header: P, position: 2"), ["line 5", "position", "without a header", "remove it"], id="position in a file with header"),
        pytest.param(with_column("header: ' '"), ["line 5", "columns.2.header", "blank"], id="blank header"),
        pytest.param(with_column("header: P, aliases: ['']"), ["line 5", "columns.2.aliases", "blank"], id="blank alias"),
        pytest.param(with_column('header: "P\\0"'), ["line 5", "columns.2.header", "control"], id="NUL in a header"),
        pytest.param(with_column("header: rowledger_reasons"), ["line 5", "columns.2.header", "rejects"], id="header of our own export"),
        pytest.param(STATUS.replace("position: 1, ", ""), ["line 5", "columns.1.position", "find columns by position"], id="position missing"),
        pytest.param(STATUS.replace("position: 1,", "position: 1, header: x,"), ["line 5", "header", "call it title"], id="header in a file without"),
        pytest.param(STATUS.replace("position: 3", "position: 4"), ["line 7", "position", "beyond the 3 fields"], id="position beyond the fields"),
        pytest.param(STATUS.replace("position: 3", "position: 2"), ["columns", "the position 2 is used by two columns"], id="double position"),
        pytest.param(with_column("header: e-MAIL"), ["columns", "the header e-mail is used by two columns"], id="double header, folded"),
        pytest.param(with_column("header: P, aliases: [' E-mail ']"), ["columns", "the header e-mail is used by two"], id="alias of another column"),
        pytest.param(with_column("header: P, field: email, type: email"), ["columns", "the field email is used by two"], id="double field"),
        pytest.param(STATUS.replace("position: 1,", "position: 1, title: column 2,"), ['two columns are called "column 2"', "another title"], id="double name"),
    ],
)  # fmt: skip
def test_columns_must_be_found_in_the_file_one_way(text: str, said: list[str]) -> None:
    message = fault(text)
    assert [part for part in said if part not in message] == [], message


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("header: P, type: date", ["format", "is missing", "DD-MM-YYYY"]),
        ("header: P, type: date, format: YYYY-MM", ["format", "with one separator", "not 'YYYY-MM'"]),
        ("header: P, type: date, format: DD-MM/YYYY", ["format", "with one separator"]),
        ("header: P, type: date, format: DD-MM-YY", ["format", "with one separator"]),
        ("header: P, type: date, format: DD-DD-YYYY", ["format", "with one separator"]),
        ("header: P, type: date, format: dd-mm-yyyy", ["format", "with one separator"]),
        ("header: P, type: date, format: '%d-%m-%Y'", ["format", "with one separator"]),
        ("header: P, format: DD-MM-YYYY", ["format", "is for type: date only"]),
        ("header: P, type: date, format: DD-MM-YYYY, min_length: 3", ["min_length", "is not for type: date"]),
        ("header: P, region: DE", ["region", "is for type: phone only"]),
        ("header: P, type: phone, region: de", ["region", "not 'de'"]),
        ("header: P, type: phone, region: XX", ["region", "'XX'", "such as DE"]),
        ("header: P, min_length: 9, max_length: 3", ["min_length", "is greater than max_length"]),
        ("header: P, pattern: '(?=a)b'", ["pattern", "linear time", "lookahead"]),
        ("header: P, pattern: '(?<=a)b'", ["pattern", "linear time"]),
        ("header: P, pattern: '(?!a)b'", ["pattern", "linear time"]),
        ("header: P, pattern: '(a)\\1'", ["pattern", "linear time", "backreferences"]),
        ("header: P, pattern: '(?P<x>a)(?P=x)'", ["pattern", "linear time"]),
        ("header: P, pattern: '(?>a*)b'", ["pattern", "linear time"]),
        ("header: P, pattern: '[a-'", ["pattern", "not a regular expression"]),
        ("header: P, pattern: 'a)|(b'", ["pattern", "not a regular expression"]),
        ("header: P, pattern: '(((a{100}){100}){100})'", ["pattern", "linear time"]),
        ("header: P, values: [' a']", ["values", "' a'", "outer blanks"]),
        ("header: P, values: ['']", ["values", "''", "outer blanks"]),
        ("header: P, field: external_id, max_length: 256", ["max_length", "255 at most for a match key"]),
        ("header: P, field: external_id, severity: warn", ["severity", "external_id", "reject"]),
    ],
)
def test_rules_of_a_column_that_cannot_be_judged_are_refused(column: str, said: list[str]) -> None:
    message = fault(with_column(column))
    assert message.startswith("sample.yml, line 5, columns.2.")
    assert [part for part in said if part not in message] == [], message


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("header: P, decimal: ','", ["decimal", "is for type: number only"]),
        ("header: P, type: number, decimal: ';'", ["decimal", "'.' or ','", "not ';'"]),
        ("header: P, type: number, max_length: 3", ["max_length", "is not for type: number; use pattern"]),
        (
            "header: P, words: {true: [x], false: [y]}",
            ["words", "is for type: boolean only; use values for text"],
        ),
        ("header: P, type: boolean, words: {true: [x]}", ["words.false", "is missing"]),
        ("header: P, type: boolean, words: {true: [x], false: []}", ["words.false", "at least 1"]),
        (
            "header: P, type: boolean, words: {true: x, false: [y]}",
            ["words.true", "must be a valid list, not 'x'"],
        ),
        (
            "header: P, type: boolean, words: {true: [x], false: [y], no: [z]}",
            ["words.no", "not a known key"],
        ),
        (
            "header: P, type: boolean, words: {true: [x, n], false: [N]}",
            ["words", "n cannot mean true and false; keep one"],
        ),
        ("header: P, type: boolean, words: {true: ['x '], false: [y]}", ["words", "'x ' can never be met"]),
        ("header: P, type: boolean, words: {true: [''], false: [y]}", ["words", "'' can never be met"]),
        (
            "header: P, type: boolean, values: ['1']",
            ["values", "is not for type: boolean; its words say all"],
        ),
        ("header: P, type: boolean, unique: true", ["unique", "is not for type: boolean"]),
        ("header: P, separator: ;", ["separator", "is for type: list only"]),
        ("header: P, type: list, separator: '::'", ["separator", "'|', ';'", "not '::'"]),
        (
            "header: P, type: list, unique: true",
            ["unique", "is not for type: list; only a single value can be unique"],
        ),
        ("header: P, clear: '-', required: true", ["clear", "is not for a required column; remove one"]),
        ("header: P, clear: '-', field: external_id", ["clear", "is not for external_id; it says whom"]),
        ("header: P, clear: '-', field: city, on_update: never", ["clear", "is not for on_update: never"]),
        ("header: P, clear: ", ["clear", "'' can never be met"]),
        ("header: P, clear: ' -'", ["clear", "' -' can never be met"]),
        ("header: P, clear: a, values: [a, b]", ["clear", "'a' is a value of the column too"]),
        ("header: P, clear: YES, type: boolean", ["clear", "'YES' is a value of the column too"]),
        ("header: P, field: city, on_update: add", ["on_update", "can be add for type: list only"]),
        ("header: P, reference: '@origins'", ["reference", "begins with @"]),
        ("header: P, field: attributes.x", ["field", "'attributes.x' is not a field of contact"]),
    ],
)
def test_rules_that_a_type_or_a_field_does_not_know_are_refused(column: str, said: list[str]) -> None:
    message = fault(with_column(column), KINDS | {"contact": replace(KINDS["contact"], attributes=False)})
    assert message.startswith("sample.yml, line 5, columns.2.")
    assert [part for part in said if part not in message] == [], message


def test_a_key_that_says_nothing_is_as_good_as_none() -> None:
    assert parse(with_column("header: P, format: null, region: ~")).columns[1].format is None


def test_words_and_clear_words_are_taken_as_they_stand() -> None:
    """YAML reads yes, no, 1, 0 and NULL as something else; people who fill in cells write words."""
    rules = (
        "type: boolean, words: {true: [yes, on, 1, True], false: [no, 0, 0.0, ~, 2020-01-01]}, clear: NULL"
    )
    column = parse(with_column(f"header: P, {rules}")).columns[1]
    assert column.words.true == ("yes", "on", "1", "True")
    assert column.words.false == ("no", "0", "0.0", "~", "2020-01-01")
    assert column.clear == "NULL"
    assert parse(with_column("header: P")).columns[1].clear is None


def test_a_kind_may_have_attributes_of_any_name_and_type() -> None:
    kinds = {"contact": replace(KINDS["contact"], attributes=True)}
    for type in ("text", "list", "boolean", "number", "phone"):
        column = f"header: P, field: attributes.loyalty_card_2, type: {type}"
        assert parse(with_column(column), kinds).columns[1].field == "attributes.loyalty_card_2"
    for name in ("", "X", "2", "a-b", "ä", "a" * 41, "a.b"):
        message = fault(with_column(f"header: P, field: 'attributes.{name}'"), kinds)
        assert f"'attributes.{name}' is not a field of contact; fields are external_id" in message
        assert "and attributes.NAME" in message
    twice = "header: P, field: attributes.x}\n  - {header: Q, field: attributes.x"
    assert "the field attributes.x is used by two columns" in fault(with_column(twice), kinds)


def test_a_field_names_the_list_of_the_domain_that_its_values_must_be_in() -> None:
    field = TargetField("origins", "text[]", ("list",), "Origins", "@origins")
    kinds = {"contact": replace(KINDS["contact"], fields=(KINDS["contact"].field("email"), field))}
    column = "header: P, type: list, field: origins"
    assert parse(with_column(column + ", on_update: add"), kinds).columns[1].reference == "@origins"
    for rule in ("clear: '-'", "reference: lands", "on_update: overwrite"):
        message = fault(with_column(f"{column}, {rule}"), kinds)
        assert (
            f"columns.2.{rule.split(':')[0]}: is not for field origins: its values are those of the"
            in message
        )
    assert "must be list for field origins" in fault(with_column("header: P, field: origins"), kinds)
    assert parse(CONTACT + "origins: [A]\n", kinds).origins == ("A",)
    assert "line 5, subscriptions: is not for contact" in fault(CONTACT + "subscriptions: []\n", kinds)
    assert "line 8, origins: is not for contract_status" in fault(STATUS + "origins: [A]\n")


@pytest.mark.parametrize("form", ["DD-MM-YYYY", "YYYYMMDD", "MM/DD/YYYY", "DD.MM.YYYY", "YYYY MM DD"])
def test_dates_may_have_any_order_and_one_separator(form: str) -> None:
    assert parse(with_column(f"header: P, type: date, format: '{form}'")).columns[1].format == form


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STATUS.replace("field: result_code, ", ""), ["no column fills the field result_code"]),
        (STATUS.replace("position: 2, required: true", "position: 2"), ["columns.2.required", "date_result"]),
        (STATUS.replace("position: 2,", "position: 2, severity: warn,"), ["columns.2.severity", "date_result"]),
        (CONTACT.replace("field: email", "field: city").replace("type: email", "type: text"),
         ["no column fills a match key", "external_id, email"]),
        (CONTACT + "policies: {match: [external_id]}\n", ["policies.match", "no column fills the match key external_id"]),
        (CONTACT + "policies: {match: [city]}\n", ["policies.match", "'city' is not a match key of contact"]),
        (CONTACT + "policies: {match: []}\n", ["policies.match", "at least 1"]),
        (STATUS + "policies: {match: [form_id]}\n", ["policies.match", "is not a policy of contract_status"]),
        (CONTACT + "policies: {future_dates: allow}\n", ["policies.future_dates", "is not a policy of contact", "match"]),
        (STATUS + "policies: {unknown_contract: wait}\n", ["policies.unknown_contract", "'reject', 'ignore' or 'park'"]),
    ],
)  # fmt: skip
def test_a_kind_says_what_its_templates_must_map_and_may_decide(text: str, said: list[str]) -> None:
    message = fault(text)
    assert [part for part in said if part not in message] == [], message


def test_a_file_that_is_too_large_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    large, latin, folder = tmp_path / "large.yml", tmp_path / "latin.yml", tmp_path / "folder.yml"
    large.write_text(CONTACT + "#" * (256 * 1024))
    latin.write_bytes(CONTACT.encode() + b"# caf\xe9\n")
    folder.mkdir()
    for path, said in ((large, "larger than 256 kB"), (latin, f"not UTF-8 at byte {len(CONTACT) + 5}"),
                       (folder, "cannot be read"), (tmp_path / "no.yml", "cannot be read")):  # fmt: skip
        with pytest.raises(TemplateError, match=f"{path.name}: .*{said}"):
            templates.read_template(path, loading.kinds())


def test_one_wrong_template_harms_no_other(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text(CONTACT)
    (tmp_path / "also_good.yml").write_text(STATUS)
    (tmp_path / "bad.yml").write_text(CONTACT + "2026-01-01: x\n")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\0")
    (tmp_path / "notes.txt").write_text("no template")
    good, errors = templates.read_templates(tmp_path, loading.kinds())
    assert list(good) == ["also_good", "good", *BUILT_IN]
    assert [str(error).split(":")[0].split(",")[0] for error in errors] == [
        str(tmp_path / "bad.yml"),
        str(tmp_path / "binary.yml"),
    ]


def test_a_template_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text(CONTACT)
    with pytest.raises(
        UnknownCode, match=r'no template "bad"\. Templates are: good, contract_status_records\.'
    ):
        templates.find_template(tmp_path, "bad", loading.kinds())
    with pytest.raises(UnknownCode, match=r'no template "\.\./good"'):
        templates.find_template(tmp_path, "../good", loading.kinds())


def test_the_hash_changes_with_the_content_and_with_nothing_else(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yml", tmp_path / "b.yml"
    first.write_text(CONTACT)
    second.write_text(CONTACT)
    read = templates.read_template
    assert read(first, loading.kinds()).hash == read(second, loading.kinds()).hash
    second.write_text(CONTACT + "# a comment\n")
    assert read(first, loading.kinds()).hash != read(second, loading.kinds()).hash


@pytest.mark.parametrize(
    ("header", "folded"),
    [
        ("  Customer   Number ", "customer number"),
        ("Straße", "strasse"),
        ("Cafe\u0301", "café"),
        ("\ufeffE\u200bmail\u200d", "email"),
        ("First\u00a0name", "first name"),
        ("Еmail", "еmail"),  # a Cyrillic letter stays one
    ],
)
def test_headers_are_compared_without_case_blanks_and_invisible_characters(header: str, folded: str) -> None:
    assert templates.fold_header(header) == folded
