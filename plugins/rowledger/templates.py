"""YAML -> ImportTemplate.

In: a ``.yml`` file that a data engineer wrote. Out: a checked, frozen ``ImportTemplate``, or a ``TemplateError``
that names file and line, what is wrong and what would be right. One wrong template never harms another.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rowledger.errors import TemplateError, UnknownCode
from rowledger.model import Kind

MAX_TEMPLATE_BYTES = 256 * 1024
MAX_DEPTH = 20  # PyYAML takes seconds for thousands of nested brackets
DATE_FORMAT = re.compile(r"(?=.*DD)(?=.*MM)(?=.*YYYY)(?:DD|MM|YYYY)([-./ ]?)(?:DD|MM|YYYY)\1(?:DD|MM|YYYY)")

OWN_PREFIX = "rowledger_"  # begins the names of columns that are ours in files and frames

ATTRIBUTE = re.compile(r"attributes\.[a-z][a-z0-9_]{0,39}")  # PostgreSQL cuts longer names off

ColumnType = Literal["text", "code", "date", "email", "phone", "number", "boolean", "list"]
Encoding = Literal["utf-8", "utf-16", "windows-1252", "iso-8859-1", "iso-8859-15"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileFormat(_Part):
    """How the bytes of a file become cells."""

    delimiter: Literal[",", ";", "\t", "|"] = ","
    quote: Literal['"', "'"] = '"'
    encoding: Encoding = "utf-8"
    header: bool = True
    fields: int | None = Field(default=None, ge=1, le=5000)
    max_records: int = Field(default=10_000_000, ge=1, le=100_000_000)


class Words(_Part):
    """What people write for true and for false; compared without case."""

    true: tuple[str, ...] = Field(min_length=1)
    false: tuple[str, ...] = Field(min_length=1)


class Column(_Part):
    """One column of the file: where it stands, what it may hold, and which field it fills."""

    field: str | None = None
    header: str | None = Field(default=None, min_length=1)
    aliases: tuple[str, ...] = ()
    position: int | None = Field(default=None, ge=1, le=5000)
    title: str | None = Field(default=None, min_length=1)
    required: bool = False
    type: ColumnType = "text"
    format: str | None = None
    region: str | None = Field(default=None, pattern="^[A-Z]{2}$")
    decimal: Literal[".", ","] = "."
    words: Words = Words(true=("true", "yes", "1"), false=("false", "no", "0"))
    separator: Literal["|", ";", ",", "/", " "] = "|"
    min_length: int | None = Field(default=None, ge=1)
    max_length: int = Field(default=255, ge=1, le=100_000)
    pattern: str | None = Field(default=None, min_length=1, max_length=1000)
    values: tuple[str, ...] | None = Field(default=None, min_length=1)
    reference: str | None = Field(default=None, min_length=1)
    unique: bool = False
    multiline: bool = False
    severity: Literal["reject", "warn"] = "reject"
    clear: str | None = None
    on_update: Literal["overwrite", "fill_if_empty", "never", "add"] = "overwrite"

    @property
    def name(self) -> str:
        """What people call the column: its header, its title, or its place."""
        return self.header or self.title or f"column {self.position}"


class Policies(_Part):
    """What to do with whole records and the whole batch."""

    match: tuple[str, ...] | None = Field(default=None, min_length=1)
    mode: Literal["create_or_update", "create_only", "update_only"] | None = None
    unknown_contract: Literal["reject", "ignore", "park"] | None = None
    unknown_status: Literal["reject", "ignore", "park"] | None = None
    unknown_contact: Literal["reject", "ignore"] | None = None
    future_dates: Literal["reject", "allow"] | None = None
    max_rejected_share: float | None = Field(default=None, gt=0, le=1)


class ImportTemplate(_Part):
    """What a file of one kind looks like and which rules its values obey. ``hash`` is that of its source."""

    name: str
    hash: str
    source: str
    kind: str
    title: str = Field(min_length=1)
    domains: tuple[str, ...] = ()
    origins: tuple[str, ...] | None = None
    subscriptions: tuple[str, ...] | None = None
    file: FileFormat = FileFormat()
    columns: tuple[Column, ...] = Field(min_length=1)
    policies: Policies = Policies()

    @property
    def field_count(self) -> int:
        """Number of fields every record of a positional file must have."""
        return self.file.fields or max(column.position or 0 for column in self.columns)

    def column_of(self, field: str) -> Column:
        return next(column for column in self.columns if column.field == field)


def read_templates(
    folder: Path, kinds: Mapping[str, Kind]
) -> tuple[dict[str, ImportTemplate], list[TemplateError]]:
    """All templates of a folder by name, and an error for each that is wrong."""
    templates, errors = {}, []
    for path in sorted(folder.glob("*.yml")):
        try:
            templates[path.stem] = read_template(path, kinds)
        except TemplateError as error:
            errors.append(error)
    return templates, errors


def find_template(folder: Path, name: str, kinds: Mapping[str, Kind]) -> ImportTemplate:
    """The template of that name. Raises UnknownCode if there is none, TemplateError if it is wrong."""
    names = sorted(path.stem for path in folder.glob("*.yml"))
    if name not in names:
        raise UnknownCode(f'There is no template "{name}". Templates are: {", ".join(names) or "none"}.')
    return read_template(folder / f"{name}.yml", kinds)


def read_template(path: Path, kinds: Mapping[str, Kind]) -> ImportTemplate:
    """Read and check one template file. Raises TemplateError."""
    try:
        source = path.read_bytes()
        text = source.decode("utf-8")
    except OSError as error:
        raise TemplateError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8.") from None
    if len(source) > MAX_TEMPLATE_BYTES:
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
        raise TemplateError(_sentence(where, node, (key,), _UNKNOWN_KEY))
    try:
        template = ImportTemplate.model_validate_json(_as_json(data | ours))
    except ValidationError as error:
        problem = error.errors()[0]
        raise TemplateError(_sentence(where, node, problem["loc"], _words(problem))) from None
    for loc, fault in _faults(template, kinds):
        raise TemplateError(_sentence(where, node, loc, fault))
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
    """The YAML tree with its line numbers, and its data; refuses what can explode, and what JSON cannot say."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise TemplateError(f"{where}: is not valid YAML for a template (too deeply nested).")
            if isinstance(event, yaml.AliasEvent):
                number = event.start_mark.line + 1 if event.start_mark else 1
                raise TemplateError(f"{where}, line {number}: aliases (*) are not allowed; write it out.")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _take_words_as_they_stand(node)
        data = yaml.SafeLoader("").construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise TemplateError(f"{where}{line}: is not valid YAML ({error.problem}).") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TemplateError(f"{where}: is not valid YAML ({type(error).__name__}).") from None
    if not isinstance(node, yaml.MappingNode):
        raise TemplateError(f"{where}: is empty or not a mapping; begin with: kind: contact")
    for place, fault in _node_faults(node):
        raise TemplateError(f"{where}, line {place.start_mark.line + 1}: {fault}")
    return node, data


def _take_words_as_they_stand(node: yaml.Node | None) -> None:
    """``words`` and ``clear`` are what people write in cells: yes, no, 1, 0 and NULL are words there, without quotes."""
    for columns in _under(node, "columns"):
        for column in columns.value if isinstance(columns, yaml.SequenceNode) else ():
            for words in (*_under(column, "words"), *_under(column, "clear")):
                for scalar in _scalars(words):
                    scalar.tag = f"{_TAG}str"


def _under(node: yaml.Node | None, name: str) -> list[yaml.Node]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return [value for key, value in pairs if key.value == name]


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.CollectionNode):
        for part in node.value:
            for one in part if isinstance(part, tuple) else (part,):
                yield from _scalars(one)


_TAG = "tag:yaml.org,2002:"
_UNKNOWN_KEY = "is not a known key; check the spelling against docs/templates.md."


def _node_faults(node: yaml.Node) -> Iterator[tuple[yaml.Node, str]]:
    """Keys given twice, keys that are no words, and values that JSON cannot say."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.tag != f"{_TAG}str":
                yield key, f"{key.value} {_UNKNOWN_KEY}"
            if key.value in seen:
                yield key, f'"{key.value}" is given twice; keep one.'
            seen.add(key.value)
            yield from _node_faults(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _node_faults(value)
    elif node.tag == f"{_TAG}int" and len(node.value) > 20:
        yield node, "the number is too long; no setting needs one of more than 20 digits."
    elif re.search("[\ud800-\udfff]", node.value):
        yield node, "holds half a character, which is no text; remove it."


def _as_json(data: dict[str, Any]) -> str:
    """Through JSON, so that lists become tuples while strings stay strings and numbers numbers."""
    return json.dumps(data, default=str)


def _sentence(where: str, node: yaml.Node, loc: Sequence[int | str], fault: str) -> str:
    path = ".".join(str(part + 1) if isinstance(part, int) else part for part in loc)
    return f"{where}, line {_line(node, loc)}{f', {path}' if path else ''}: {fault}"


def _line(node: yaml.Node, loc: Sequence[int | str]) -> int:
    line = node.start_mark.line
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            match = [(key, value) for key, value in node.value if key.value == part]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            match = [(node.value[part], node.value[part])]
        else:
            break
        if not match:
            break
        line, node = match[0][0].start_mark.line, match[0][1]
    return line + 1


def _words(problem: Mapping[str, Any]) -> str:
    """pydantic's finding in a template author's words."""
    if problem["type"] == "missing":
        return "is missing; every template must say it."
    if problem["type"] == "extra_forbidden":
        return _UNKNOWN_KEY
    message = problem["msg"].replace("Input should be", "must be").replace("valid array", "valid list")
    return f"{message}, not {problem['input']!r}."


def _faults(template: ImportTemplate, kinds: Mapping[str, Kind]) -> list[tuple[tuple[int | str, ...], str]]:
    """What the shape of the model cannot say."""
    if template.kind not in kinds:
        return [(("kind",), f"must be one of {', '.join(sorted(kinds))}, not {template.kind!r}.")]
    kind = kinds[template.kind]
    faults: list[tuple[tuple[int | str, ...], str]] = []
    for index, column in enumerate(template.columns):
        faults += [(("columns", index, *loc), fault) for loc, fault in _column_faults(column, template, kind)]
    return faults + _whole_faults(template, kind)


def _column_faults(column: Column, template: ImportTemplate, kind: Kind) -> list[tuple[tuple[str, ...], str]]:
    faults: list[tuple[tuple[str, ...], str]] = []

    def fault(condition: object, key: str, text: str) -> None:
        if condition:
            faults.append(((key,), text))

    if template.file.header:
        fault(not column.header, "header", "is missing; files with a header find columns by name.")
        fault(column.position, "position", "is for files without a header (file.header: false); remove it.")
    else:
        fault(not column.position, "position", "is missing; files without a header find columns by position.")
        fault(column.header, "header", "is for files with a header; call it title.")
        fault(
            (column.position or 0) > template.field_count,
            "position",
            f"is beyond the {template.field_count} fields of file.fields.",
        )
    for key, name in _given_names(column):
        fault(not fold_header(name), key, "is blank; say what the column is called.")
        fault("\0" in name, key, "contains the control character NUL; remove it.")
        fault(
            fold_header(name).startswith(OWN_PREFIX),
            key,
            f"begins with {OWN_PREFIX}, as the columns do that an export of rejects adds; take another name.",
        )
    faults += _field_faults(column, kind)
    faults += [
        ((key,), f"is for type: {only} only{help}.")
        for key, only, help in _FOR_ONE_TYPE
        if key in column.model_fields_set and column.type != only
    ]
    faults += [
        ((key,), f"is not for type: {column.type}; {instead}.")
        for type, keys, instead in _NOT_FOR_TYPES
        for key in keys
        if column.type == type and key in column.model_fields_set
    ]
    fault(
        column.type == "date" and not column.format,
        "format",
        "is missing; a date says its form, such as DD-MM-YYYY.",
    )
    fault(
        column.format and not DATE_FORMAT.fullmatch(column.format),
        "format",
        f"must be DD, MM and YYYY with one separator, such as DD-MM-YYYY or YYYYMMDD, not {column.format!r}.",
    )
    fault(
        column.region and not _is_region(column.region),
        "region",
        f"{column.region!r} is not a region with phone numbers of its own; name one such as DE.",
    )
    for key, value in _compared(column):
        fault(
            value != unicodedata.normalize("NFC", value.strip()) or not value,
            key,
            f"{value!r} can never be met: cells are compared without outer blanks, in Unicode form NFC.",
        )
    fault(
        (column.reference or "").startswith("@"),
        "reference",
        "begins with @, as the lists do that every domain has; the fields that need one have it by themselves.",
    )
    both = {word.casefold() for word in column.words.true} & {word.casefold() for word in column.words.false}
    fault(both, "words", f"{', '.join(sorted(both))} cannot mean true and false; keep one.")
    fault(column.clear is not None and column.required, "clear", "is not for a required column; remove one.")
    taken = [value for key, value in _compared(column) if key != "clear"]
    fold = str.casefold if column.type == "boolean" else str
    fault(
        column.clear is not None and fold(column.clear) in map(fold, taken),
        "clear",
        f"{column.clear!r} is a value of the column too; take another word.",
    )
    fault((column.min_length or 0) > column.max_length, "min_length", "is greater than max_length.")
    fault(column.pattern and not _linear(column.pattern), "pattern", _PATTERN_HELP)
    return faults


_FOR_ONE_TYPE = (
    ("format", "date", "; use pattern for text"),
    ("region", "phone", ""),
    ("decimal", "number", ""),
    ("words", "boolean", "; use values for text"),
    ("separator", "list", ""),
)
_SAYS = "its words say all there is to say"
_NOT_FOR_TYPES = (
    ("date", ("min_length",), "use format"),
    ("number", ("min_length", "max_length"), "use pattern"),
    ("boolean", ("min_length", "max_length", "pattern", "values", "reference", "unique"), _SAYS),
    ("list", ("unique",), "only a single value can be unique"),
)


def _compared(column: Column) -> list[tuple[str, str]]:
    """What cells are compared with, by the key that says it."""
    words = [("words", word) for word in (*column.words.true, *column.words.false)]
    return [
        *(("values", value) for value in column.values or ()),
        *(words if column.type == "boolean" else ()),
        *([("clear", column.clear)] if column.clear is not None else ()),
    ]


def _field_faults(column: Column, kind: Kind) -> list[tuple[tuple[str, ...], str]]:
    """What does not fit the field that the column fills."""
    if column.field is None:
        return []
    faults: list[tuple[tuple[str, ...], str]] = []

    def fault(condition: object, key: str, text: str) -> None:
        if condition:
            faults.append(((key,), text))

    names = {field.name for field in kind.fields}
    more = (
        " and attributes.NAME, with a NAME of up to 40 letters a-z, digits and _" if kind.attributes else ""
    )
    known = column.field in names or (kind.attributes and ATTRIBUTE.fullmatch(column.field))
    listed = ", ".join(field.name for field in kind.fields) + more
    fault(not known, "field", f"{column.field!r} is not a field of {kind.name}; fields are {listed}.")
    if column.field in names:
        target = kind.field(column.field)
        types = " or ".join(target.types)
        fault(column.type not in target.types, "type", f"must be {types} for field {column.field}.")
        if target.reference:
            given = {key for key in ("reference", "clear", "on_update") if key in column.model_fields_set}
            for key in sorted(given - ({"on_update"} if column.on_update == "add" else set())):
                fault(
                    True,
                    key,
                    f"is not for field {column.field}: its values are those of the domain, and are added.",
                )
    fault(
        column.clear is not None and column.field in kind.match_keys,
        "clear",
        f"is not for {column.field}; it says whom or what a record is about.",
    )
    fault(
        column.clear is not None and column.on_update == "never",
        "clear",
        "is not for on_update: never; remove one.",
    )
    fault(column.on_update == "add" and column.type != "list", "on_update", "can be add for type: list only.")
    return faults


def _given_names(column: Column) -> list[tuple[str, str]]:
    named = [
        ("header", column.header),
        *(("aliases", alias) for alias in column.aliases),
        ("title", column.title),
    ]
    return [(key, name) for key, name in named if name is not None]


def _is_region(region: str) -> bool:
    import phonenumbers

    return region in phonenumbers.SUPPORTED_REGIONS


_PATTERN_HELP = (
    "is not a regular expression that can be judged in linear time; write it without "
    "lookahead (?=, lookbehind (?<= and backreferences \\1 (RE2 syntax)."
)


def _linear(pattern: str) -> bool:
    """Whether RE2, which pandas uses for Arrow strings, takes the pattern; it knows no exponential ones."""
    import pyarrow
    import pyarrow.compute

    try:
        pyarrow.compute.match_substring_regex(pyarrow.array([""]), rf"\A(?:{pattern})\z")
        re.compile(pattern)
    except (pyarrow.ArrowInvalid, re.error):
        return False
    return True


def _whole_faults(template: ImportTemplate, kind: Kind) -> list[tuple[tuple[int | str, ...], str]]:
    faults: list[tuple[tuple[int | str, ...], str]] = []
    mapped = [column.field for column in template.columns if column.field]
    faults += [
        (("columns",), f"no column fills the field {field}; {kind.title} cannot be imported without it.")
        for field in kind.required_fields
        if field not in mapped
    ]
    used: tuple[tuple[str, list[str]], ...] = (
        ("the field", mapped),
        ("the position", [str(column.position) for column in template.columns if column.position]),
        (
            "the header",
            [fold_header(name) for c in template.columns for name in (c.header, *c.aliases) if name],
        ),
    )
    for what, values in used:
        twice = sorted({value for value in values if values.count(value) > 1})
        faults += [(("columns",), f"{what} {value} is used by two columns; keep one.") for value in twice]
    names = [column.name for column in template.columns]
    faults += [
        (("columns",), f'two columns are called "{name}"; give one another title.')
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    faults += _key_faults(template, kind)
    for key in template.policies.match or ():
        if key not in kind.match_keys:
            faults.append((("policies", "match"), f"{key!r} is not a match key of {kind.name}; match keys are "
                           f"{', '.join(kind.match_keys) or 'none'}."))  # fmt: skip
        elif key not in mapped:
            faults.append((("policies", "match"), f"no column fills the match key {key}."))
    has = {field.name for field in kind.fields}
    faults += [
        ((key,), f"is not for {kind.name}; only contacts have {key}.")
        for key in ("origins", "subscriptions")
        if getattr(template, key) is not None and key not in has
    ]
    given = template.policies.model_dump(exclude_none=True)
    faults += [
        (("policies", policy), f"is not a policy of {kind.name}; policies are {', '.join(kind.policies)}.")
        for policy in given
        if policy not in kind.policies
    ]
    if kind.match_keys and not any(key in mapped for key in kind.match_keys):
        faults.append(
            (("columns",), f"no column fills a match key; one of {', '.join(kind.match_keys)} is needed.")
        )
    return faults


def _key_faults(template: ImportTemplate, kind: Kind) -> list[tuple[tuple[int | str, ...], str]]:
    """What is wrong with columns that say whom or what a record is about."""
    faults: list[tuple[tuple[int | str, ...], str]] = []
    for index, column in enumerate(template.columns):
        if column.field in kind.match_keys and column.max_length > 255:
            faults.append((("columns", index, "max_length"), "must be 255 at most for a match key."))
        needed = column.field in kind.required_fields
        if needed and not column.required:
            fault = f"must be true for {column.field}; {kind.title} cannot be imported without it."
            faults.append((("columns", index, "required"), fault))
        # A wrong address is left out and can be warned about; another wrong key would be stored and be a key.
        if column.severity == "warn" and (
            needed or (column.field in kind.match_keys and column.type != "email")
        ):
            fault = f"must be reject for {column.field}; it says whom or what a record is about."
            faults.append((("columns", index, "severity"), fault))
    return faults


def fold_header(name: str) -> str:
    """How headers are compared: without case, outer spaces and invisible characters, in one Unicode form."""
    visible = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(visible.split()).casefold()
