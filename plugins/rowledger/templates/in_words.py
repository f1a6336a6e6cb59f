"""A template in words: what a column may hold, what a file looks like, what its policies do.

For people who fill files in: pages, and the spreadsheet of a template. Each rule is a phrase; nothing is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from rowledger.templates.model import Column, FileFormat, ImportTemplate

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SEPARATORS = {" ": "blanks", "/": "slashes"} | DELIMITERS
OF_DOMAIN = {
    "@origins": "active origins of the domain",
    "@subscriptions": "subscriptions of the domain that are not disabled",
    "@lists": "subscriptions of the domain",
}
_UNBOUNDED = ("date", "number", "boolean")  # their form bounds them


def rules(column: Column) -> list[str]:
    """What a value of a column has to be."""
    return [
        *(["must be filled in"] if column.required else []),
        _type(column),
        *_length(column),
        *([f"each item matches the pattern {column.pattern}" if _is_list(column) else f"matches the pattern {column.pattern}"] if column.pattern else []),
        *_set(column),
        *(["each value at most once in a file"] if column.unique else []),
        *(["line breaks are allowed"] if column.multiline else []),
        *(["what is wrong is only warned about, and the record is taken"] if column.severity == "warn" else []),
    ]  # fmt: skip


def writing(column: Column, kind: str, match_keys: tuple[str, ...]) -> list[str]:
    """What a value does to what is stored already."""
    if column.field is None:
        return ["is checked and not loaded"]
    if column.field in match_keys:
        return [f"finds the {'contact' if kind == 'contact' else 'contract'}"]
    if kind == "contract_status":
        return ["enters the history of the contract"]
    if column.reference in _LINKS:
        return [_LINKS[column.reference]]
    cleared = [f'the word "{column.clear}" empties the field'] if column.clear else []
    return [_ON_UPDATE[column.on_update], *cleared]


_LINKS = {
    "@origins": "are added to the contact",
    "@subscriptions": "opt the contact in; an opt-out always wins",
    "@lists": "opt the contact out",
}
_ON_UPDATE = {
    "overwrite": "replaces what is stored",
    "fill_if_empty": "fills the field only if it is empty",
    "never": "only new rows get it",
    "add": "joins what is stored",
}


def _is_list(column: Column) -> bool:
    return column.type == "list"


def _type(column: Column) -> str:
    words = column.words
    return {
        "text": "text",
        "code": "a code: ASCII characters without blanks",
        "date": f"a date as {column.format}",
        "email": "an email address",
        "phone": "a phone number" + (f", without a country code one of {column.region}" if column.region else ""),
        "number": f"a number with {'a comma' if column.decimal == ',' else 'a point'} before decimals",
        "boolean": f"{' or '.join(words.true)} for true, {' or '.join(words.false)} for false",
        "list": f"one or more texts, separated by {SEPARATORS[column.separator]}",
    }[column.type]  # fmt: skip


def _length(column: Column) -> Iterator[str]:
    given = column.model_fields_set & {"min_length", "max_length"}
    if column.type in _UNBOUNDED or (
        not given and (column.type in ("email", "phone") or column.values or column.reference)
    ):
        return
    least = f"{column.min_length:,} to" if column.min_length else "at most"
    yield f"{'each ' if _is_list(column) else ''}{least} {column.max_length:,} characters"


def _set(column: Column) -> Iterator[str]:
    if column.values:
        yield f"one of: {', '.join(column.values)}"
    if column.reference:
        yield f"one of the {OF_DOMAIN.get(column.reference) or f'list {column.reference}'}"


def file_format(template: ImportTemplate) -> list[str]:
    """What a file of a template looks like."""
    file = template.file
    return [
        f"cells separated by {DELIMITERS[file.delimiter]}",
        f"{'double' if file.quote == chr(34) else 'single'} quotes around a cell with {DELIMITERS[file.delimiter]} or line breaks in it",
        f"saved as {file.encoding.upper() if file.encoding.startswith(('utf', 'iso')) else file.encoding.capitalize()}",
        _columns(file, template.field_count),
        f"at most {file.max_records:,} records",
    ]


def _columns(file: FileFormat, fields: int) -> str:
    if file.header:
        return "the first line names the columns, which may stand in any order"
    return f"no line of names: every record has exactly {fields} fields, in this order"


def policies(template: ImportTemplate, match_keys: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    """What becomes of whole records and of the whole file; ``match_keys`` and ``known`` policies are of its kind."""
    said = template.policies
    mapped = {column.field: column.name for column in template.columns}
    keys = [mapped[key] for key in said.match or match_keys if key in mapped]
    told = [f"A row is found by {', then by '.join(keys)}."]
    for name in known:
        if name in _POLICIES:
            told.append(_POLICIES[name][getattr(said, name)])
    if said.max_rejected_share is not None:
        told.append(
            f"If more than {100 * said.max_rejected_share:g} % of the records are rejected, nothing is loaded."
        )
    return told


_POLICIES: dict[str, dict[str | None, str]] = {
    "mode": {
        None: "New rows are created, known ones updated.",
        "create_or_update": "New rows are created, known ones updated.",
        "create_only": "Only new rows are created; records about known ones are ignored.",
        "update_only": "Only known rows are updated; records about unknown ones are ignored.",
    },
    "unknown_contract": {
        None: "A record about a contract that is not registered is rejected.",
        "reject": "A record about a contract that is not registered is rejected.",
        "ignore": "A record about a contract that is not registered is ignored.",
        "park": "A record about a contract that is not registered waits for the contract.",
    },
    "unknown_status": {
        None: "A record with a code that the domain does not have is ignored.",
        "reject": "A record with a code that the domain does not have is rejected.",
        "ignore": "A record with a code that the domain does not have is ignored.",
        "park": "A record with a code that the domain does not have waits for the code.",
    },
    "unknown_contact": {
        None: "A contract of a contact who does not exist is rejected.",
        "reject": "A contract of a contact who does not exist is rejected.",
        "ignore": "A contract of a contact who does not exist is taken without the contact.",
    },
    "future_dates": {
        None: "Dates after today are rejected.",
        "reject": "Dates after today are rejected.",
        "allow": "Dates after today are allowed.",
    },
}
