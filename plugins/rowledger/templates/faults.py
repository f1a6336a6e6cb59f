"""What the shape of the model cannot say of a template: what does not fit together, and what its kind does not have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from rowledger.model import Kind
from rowledger.templates.model import Column, ImportTemplate

Fault = tuple[tuple[int | str, ...], str]

DATE_FORMAT = re.compile(r"(?=.*DD)(?=.*MM)(?=.*YYYY)(?:DD|MM|YYYY)([-./ ]?)(?:DD|MM|YYYY)\1(?:DD|MM|YYYY)")
ATTRIBUTE = re.compile(r"attributes\.[a-z][a-z0-9_]{0,39}")  # PostgreSQL cuts longer names off
OWN_PREFIX = "rowledger_"  # begins the names of columns that are ours in files and frames


def faults(template: ImportTemplate, kinds: Mapping[str, Kind]) -> list[Fault]:
    """What is wrong, each with its place in the template; the first is worth telling."""
    if template.kind not in kinds:
        return [(("kind",), f"must be one of {', '.join(sorted(kinds))}, not {template.kind!r}.")]
    kind = kinds[template.kind]
    found = [
        (("columns", index, *loc), fault)
        for index, column in enumerate(template.columns)
        for loc, fault in _column_faults(column, template, kind)
    ]
    return found + _whole_faults(template, kind)


def _column_faults(column: Column, template: ImportTemplate, kind: Kind) -> list[Fault]:
    faults: list[Fault] = []

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
        if key in column.model_fields_set and column.type != only and getattr(column, key) is not None
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
        column.region and not is_region(column.region),
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


def _field_faults(column: Column, kind: Kind) -> list[Fault]:
    """What does not fit the field that the column fills."""
    if column.field is None:
        return []
    faults: list[Fault] = []

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


def is_region(region: str) -> bool:
    """Whether phone numbers can be read as those of a region such as DE."""
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
        nothing = pyarrow.nulls(
            1, pyarrow.string()
        )  # to make an array of values, pyarrow would import pandas
        pyarrow.compute.match_substring_regex(nothing, rf"\A(?:{pattern})\z")
        re.compile(pattern)
    except (pyarrow.ArrowInvalid, re.error):
        return False
    return True


def _whole_faults(template: ImportTemplate, kind: Kind) -> list[Fault]:
    faults: list[Fault] = []
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


def _key_faults(template: ImportTemplate, kind: Kind) -> list[Fault]:
    """What is wrong with columns that say whom or what a record is about."""
    faults: list[Fault] = []
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
