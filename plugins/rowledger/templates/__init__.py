"""YAML -> ImportTemplate.

In: a ``.yml`` file that a data engineer wrote. Out: a checked, frozen ``ImportTemplate``, or a ``TemplateError``
that names file and line, what is wrong and what would be right. One wrong template never harms another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rowledger import yaml_in
from rowledger.errors import TemplateError, UnknownCode
from rowledger.model import Kind
from rowledger.templates import faults
from rowledger.templates.faults import (
    OWN_PREFIX as OWN_PREFIX,
)  # one module to import for all that uses templates
from rowledger.templates.faults import fold_header as fold_header
from rowledger.templates.model import Column as Column
from rowledger.templates.model import ImportTemplate as ImportTemplate

MAX_TEMPLATE_BYTES = 256 * 1024
BUILT_IN = Path(__file__).parent / "built_in"


def files(folder: Path) -> list[Path]:
    """The files of all templates, by name: those of a folder, then the built-in ones whose name is not taken there."""
    own = sorted(folder.glob("*.yml"))
    names = {path.stem for path in own}
    return own + [path for path in sorted(BUILT_IN.glob("*.yml")) if path.stem not in names]


def read_templates(
    folder: Path, kinds: Mapping[str, Kind]
) -> tuple[dict[str, ImportTemplate], list[TemplateError]]:
    """All templates by name, those of a folder and the built-in ones, and an error for each that is wrong."""
    templates, errors = {}, []
    for path in files(folder):
        try:
            templates[path.stem] = read_template(path, kinds)
        except TemplateError as error:
            errors.append(error)
    return templates, errors


def find_template(folder: Path, name: str, kinds: Mapping[str, Kind]) -> ImportTemplate:
    """The template of that name. Raises UnknownCode if there is none, TemplateError if it is wrong."""
    found = {path.stem: path for path in files(folder)}
    if name not in found:
        raise UnknownCode(f'There is no template "{name}". Templates are: {", ".join(found)}.')
    return read_template(found[name], kinds)


def read_template(path: Path, kinds: Mapping[str, Kind]) -> ImportTemplate:
    """Read and check one template file. Raises TemplateError."""
    try:
        text = yaml_in.text_of(path)
    except yaml_in.WrongYaml as error:
        raise TemplateError(f"{path}{error}") from None
    if len(text.encode()) > MAX_TEMPLATE_BYTES:
        raise TemplateError(
            f"{path}: is larger than {MAX_TEMPLATE_BYTES // 1024} kB; a template is a page of text."
        )
    return parse_template(text, path.stem, kinds, str(path))


def parse_template(text: str, name: str, kinds: Mapping[str, Kind], where: str) -> ImportTemplate:
    """Check the text of a template; ``where`` is named in errors. Raises TemplateError."""
    node, data = _compose(text, where)
    digest = hashlib.sha256(text.encode()).hexdigest()
    ours = {"name": name, "hash": digest, "source": text}
    for key in data.keys() & ours.keys():
        raise TemplateError(yaml_in.sentence(where, node, (key,), _UNKNOWN_KEY))
    try:
        template = ImportTemplate.model_validate_json(_as_json(data | ours))
    except ValidationError as error:
        problem = error.errors()[0]
        raise TemplateError(yaml_in.sentence(where, node, problem["loc"], _words(problem))) from None
    for loc, fault in faults.faults(template, kinds):
        raise TemplateError(yaml_in.sentence(where, node, loc, fault))
    return _with_lists_of_fields(template, kinds[template.kind])


def _with_lists_of_fields(template: ImportTemplate, kind: Kind) -> ImportTemplate:
    """The template with the lists that its fields, not its author, have named."""
    columns = [
        column.model_copy(update={"reference": kind.field(column.field).reference})
        if column.field in {field.name for field in kind.fields if field.reference}
        else column
        for column in template.columns
    ]
    return template.model_copy(update={"columns": tuple(columns)})


def _compose(text: str, where: str) -> tuple[yaml.Node, Any]:
    """The YAML tree with its line numbers, and its data; refuses also what JSON cannot say."""
    try:
        node = yaml_in.tree(text)
        _take_words_as_they_stand(node)
        data = yaml_in.data(node)
    except yaml_in.WrongYaml as error:
        raise TemplateError(f"{where}{error}") from None
    if not isinstance(node, yaml.MappingNode):
        raise TemplateError(f"{where}: is empty or not a mapping; begin with: kind: contact")
    for place, fault in _node_faults(node):
        raise TemplateError(f"{where}, line {yaml_in.line_of(place)}: {fault}")
    return node, data


def _take_words_as_they_stand(node: yaml.Node | None) -> None:
    """``words`` and ``clear`` are what people write in cells: yes, no, 1, 0 and NULL are words there, without quotes."""
    for columns in _under(node, "columns"):
        for column in columns.value if isinstance(columns, yaml.SequenceNode) else ():
            for words in (*_under(column, "words"), *_under(column, "clear")):
                for one in yaml_in.walk(words):
                    if isinstance(one, yaml.ScalarNode):
                        one.tag = f"{_TAG}str"


def _under(node: yaml.Node | None, name: str) -> list[yaml.Node]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return [value for key, value in pairs if key.value == name]


_TAG = "tag:yaml.org,2002:"
_UNKNOWN_KEY = "is not a known key; check the spelling against docs/templates.md."


def _node_faults(root: yaml.Node) -> Iterator[tuple[yaml.Node, str]]:
    """Keys that are no words, and values that JSON cannot say."""
    for node in yaml_in.walk(root):
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag != f"{_TAG}str":
                yield key, f"{key.value} {_UNKNOWN_KEY}"
        if node.tag == f"{_TAG}int" and len(node.value) > 20:
            yield node, "the number is too long; no setting needs one of more than 20 digits."


def _as_json(data: dict[str, Any]) -> str:
    """Through JSON, so that lists become tuples while strings stay strings and numbers numbers."""
    return json.dumps(data, default=str)


def _words(problem: Mapping[str, Any]) -> str:
    """pydantic's finding in a template author's words."""
    if problem["type"] == "missing":
        return "is missing; every template must say it."
    if problem["type"] == "extra_forbidden":
        return _UNKNOWN_KEY
    message = problem["msg"].replace("Input should be", "must be").replace("valid array", "valid list")
    return f"{message}, not {problem['input']!r}."
