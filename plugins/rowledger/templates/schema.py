"""The template model -> a JSON Schema for editors, and the tables of docs/templates.md.

Both say which fields and policies a kind has; a new key, field or kind enters both with ``make described``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rowledger.model import Kind
from rowledger.templates.faults import ATTRIBUTE
from rowledger.templates.model import ImportTemplate

_OURS = ("name", "hash", "source")  # what reading a template adds to what it says
_AS_IT_STANDS = {"type": ["string", "boolean", "number", "null"]}  # yes, 1 and NULL are words there


def json_schema(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a template: every key, and per kind its fields and policies."""
    schema = _of_model()
    schema["properties"]["kind"]["enum"] = sorted(kinds)
    schema["$defs"]["Column"]["properties"]["clear"] |= _AS_IT_STANDS
    for words in schema["$defs"]["Words"]["properties"].values():
        words["items"] = _AS_IT_STANDS
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rowledger import template",
        **schema,
        "allOf": [_of_kind(kinds[name]) for name in sorted(kinds)],
    }


def _of_model() -> dict[str, Any]:
    """The schema that pydantic makes, as an author sees it."""
    schema: dict[str, Any] = _plain(ImportTemplate.model_json_schema())
    for key in _OURS:
        del schema["properties"][key]
        schema["required"].remove(key)
    return schema


def _of_kind(kind: Kind) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [{"enum": [field.name for field in kind.fields]}]
    fields += [{"pattern": f"^{ATTRIBUTE.pattern}$"}] if kind.attributes else []
    columns = {"items": {"properties": {"field": {"anyOf": fields}}}}
    policies: dict[str, Any] = {"propertyNames": {"enum": sorted(kind.policies)}}
    if "match" in kind.policies:
        policies["properties"] = {"match": {"items": {"enum": list(kind.match_keys)}}}
    return {
        "if": {"properties": {"kind": {"const": kind.name}}},
        "then": {"properties": {"columns": columns, "policies": policies}},
    }


def _plain(schema: Any) -> Any:
    """Without the titles that pydantic makes of names, and without null: a key that says nothing is left out."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: {name: _plain(one) for name, one in value.items()}
        if key in ("properties", "$defs")
        else _plain(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and value is None)
    }
    variants = [one for one in kept.get("anyOf", ()) if one != {"type": "null"}]
    if len(variants) == 1:
        del kept["anyOf"]
        kept |= variants[0]
    return kept


def with_tables(page: str, kinds: Mapping[str, Kind]) -> str:
    """The page with the tables between its marks ``<!-- NAME -->`` and ``<!-- end -->`` made anew."""
    schema = _of_model()
    parts = {name: part["properties"] for name, part in schema["$defs"].items()}
    columns = {}
    for name, key in parts["Column"].items():
        columns[name] = key
        if name == "words":
            columns |= {f"words.{inner}": one for inner, one in parts["Words"].items()}
    tables = {
        "template": _table(schema["properties"]),
        "file": _table(parts["FileFormat"]),
        "columns": _table(columns),
        "policies": _table(parts["Policies"], kinds),
        "fields": "\n\n".join(_fields(kinds[name]) for name in sorted(kinds)),
    }

    def made(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n\n{tables[match[1]]}\n\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


def _table(keys: Mapping[str, dict[str, Any]], kinds: Mapping[str, Kind] | None = None) -> str:
    """A row for every key; with ``kinds``, which of them know it."""
    rows = [["key", *(["kind"] if kinds else []), "values", "default", ""]]
    rows.append(["---"] * len(rows[0]))
    for name, key in keys.items():
        known = [f"`{kind}`" for kind in sorted(kinds or ()) if name in (kinds or {})[kind].policies]
        of = "all" if kinds and len(known) == len(kinds) else " ".join(known)
        description = str(key["description"])
        rows.append([f"`{name}`", *([of] if kinds else []), _values(key), _default(key), description])
    return "\n".join(_row(*row) for row in rows)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _values(key: dict[str, Any]) -> str:
    """What may stand there: the words of a closed set, or a sort of value."""
    if "enum" in key:
        return " ".join({"\t": "tab", " ": "blank"}.get(value, f"`{value}`") for value in key["enum"])
    if key.get("type") == "array":
        return "list of texts" if key["items"].get("type") else "list"
    names = {"string": "text", "boolean": "`true` `false`", "integer": "whole number", "number": "number"}
    return names.get(key.get("type", ""), "mapping")


def _default(key: dict[str, Any]) -> str:
    default = key.get("default")
    if default in (None, []) or isinstance(default, dict):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _fields(kind: Kind) -> str:
    rows = [f"Fields of `{kind.name}`:", "", _row("field", "types", ""), _row("---", "---", "---")]
    for field in kind.fields:
        notes = [
            "needed" if field.name in kind.required_fields else "",
            "match key" if field.name in kind.match_keys else "",
            "from the codes of the domain; added to what is there" if field.reference else "",
        ]
        types = " ".join(f"`{type}`" for type in field.types)
        rows.append(_row(f"`{field.name}`", types, ", ".join(note for note in notes if note)))
    if kind.attributes:
        rows.append(_row("`attributes.NAME`", "all", "NAME is your own: up to 40 of a-z, 0-9 and _"))
    return "\n".join(rows)
