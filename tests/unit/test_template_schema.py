"""The JSON Schema and the page of docs say what the model says, and editors are told what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from rowledger import loading
from rowledger.templates import model
from rowledger.templates import schema as template_schema

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "include" / "templates"
SCHEMA = TEMPLATES / "template.schema.json"
PAGE = ROOT / "docs" / "templates.md"
PARTS = [
    part
    for part in vars(model).values()
    if isinstance(part, type) and issubclass(part, BaseModel) and part.__module__ == model.__name__
]


def faults(text: str) -> list[str]:
    schema = template_schema.json_schema(loading.kinds())
    jsonschema.Draft202012Validator.check_schema(schema)
    found = jsonschema.Draft202012Validator(schema).iter_errors(yaml.safe_load(text))
    return [error.message for error in found]


def test_the_schema_beside_the_templates_is_up_to_date() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == template_schema.json_schema(loading.kinds()), (
        "run: make described"
    )


def test_the_page_has_every_key_field_and_policy_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == template_schema.with_tables(page, loading.kinds()), "run: make described"
    assert re.findall(r"<!-- (\w+) -->", page) == ["template", "end", "file", "end", "columns", "end", "fields", "end",
                                                   "policies", "end"]  # fmt: skip
    described = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    keys = {name for part in PARTS for name in part.model_fields} - {
        "name",
        "hash",
        "source",
        "true",
        "false",
    }
    fields = {field.name for kind in loading.kinds().values() for field in kind.fields}
    assert described == keys | fields | {"attributes.NAME", "words.true", "words.false"}


def test_every_key_says_what_it_is() -> None:
    silent = [f"{part.__name__}.{name}" for part in PARTS for name, key in part.model_fields.items() if not key.description]  # fmt: skip
    assert silent == ["ImportTemplate.name", "ImportTemplate.hash", "ImportTemplate.source"]


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.yml")), ids=lambda path: path.stem)
def test_editors_find_the_schema_of_the_templates_that_come_along_and_agree(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA.name}\n")
    assert faults(text) == []


CONTACT = "kind: contact\ntitle: x\ncolumns:\n  - {header: E-mail, type: email, field: email}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONTACT.replace("kind: contact\n", ""), "'kind' is a required property"),
        (CONTACT.replace("contact", "contacts"), "'contacts' is not one of ['contact'"),
        (CONTACT + "titel: y\n", "'titel' was unexpected"),
        (CONTACT + "hash: y\n", "'hash' was unexpected"),
        (CONTACT + "  - {headr: x}\n", "'headr' was unexpected"),
        (CONTACT + "  - {header: x, type: mail}\n", "'mail' is not one of ['text'"),
        (CONTACT + "  - {header: x, field: form_id}\n", "'form_id' is not valid under any"),
        (CONTACT + "  - {header: x, field: attributes.X}\n", "'attributes.X' is not valid under any"),
        (CONTACT + "  - {header: x, max_length: 0}\n", "0 is less than the minimum of 1"),
        (CONTACT + "policies: {unknown_status: park}\n", "'unknown_status' is not one of"),
        (CONTACT + "policies: {match: [city]}\n", "'city' is not one of"),
        (CONTACT + "policies: {mode: create}\n", "'create' is not one of ['create_or_update'"),
    ],
)
def test_a_wrong_template_is_wrong_in_the_editor_too(text: str, said: str) -> None:
    assert [message for message in faults(text) if said in message], faults(text)


def test_words_without_quotes_and_attributes_are_right_in_the_editor_too() -> None:
    words: dict[str, Any] = {"header": "VIP", "type": "boolean", "field": "attributes.vip", "clear": 0}
    words["words"] = {"true": [True, "ja", 1], "false": [False, "nein", None]}
    assert faults(CONTACT + f"  - {json.dumps(words)}\n") == []
