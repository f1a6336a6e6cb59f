"""What an import template can say: every key with its type, its default and, in its description, what it means.

The one place where keys are described: docs/templates.md and the JSON Schema for editors are made from it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ColumnType = Literal["text", "code", "date", "email", "phone", "number", "boolean", "list"]
Encoding = Literal["utf-8", "utf-16", "windows-1252", "iso-8859-1", "iso-8859-15"]


def _says(description: str, default: Any = None, **rules: Any) -> Any:
    return Field(default=default, description=description, **rules)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileFormat(_Part):
    """How the bytes of a file become cells."""

    delimiter: Literal[",", ";", "\t", "|"] = _says("what stands between two cells", ",")
    quote: Literal['"', "'"] = _says(
        "what encloses a cell with delimiters or line breaks in it; inside such a cell it is doubled", '"'
    )
    encoding: Encoding = _says("never guessed; a UTF-8 byte-order mark is taken off", "utf-8")
    header: bool = _says(
        "`true`: the first record names the columns, and they may stand in any order; `false`: they have positions",
        True,
    )
    fields: int | None = _says(
        "how many fields every record of a file without header has, exactly; left out: the greatest `position`",
        ge=1,
        le=5000,
    )
    max_records: int = _says(
        "a larger file is refused before anything is written", 10_000_000, ge=1, le=100_000_000
    )


class Words(_Part):
    """What people write for true and for false; compared without case."""

    true: tuple[str, ...] = Field(min_length=1, description="words for true; they need no quotes")
    false: tuple[str, ...] = Field(min_length=1, description="words for false; they need no quotes")


class Column(_Part):
    """One column of the file: where it stands, what it may hold, and which field it fills."""

    field: str | None = _says(
        "the field it fills, one of its kind's; left out: the column is checked and not loaded"
    )
    header: str | None = _says(
        "its name in the header; compared without case, outer blanks and invisible characters", min_length=1
    )
    aliases: tuple[str, ...] = _says("other names for the same column", ())
    position: int | None = _says("its place in a file without header, from 1", ge=1, le=5000)
    title: str | None = _says("what to call it in messages, where there is no header", min_length=1)
    required: bool = _says(
        "an empty cell is rejected; with a header, a missing column fails the batch", False
    )
    type: ColumnType = _says(
        "what its values are: `code` is printable ASCII without blanks, `list` several texts in one cell",
        "text",
    )
    format: str | None = _says(
        "for `date`, and needed there: `DD`, `MM` and `YYYY` with one separator, such as `DD-MM-YYYY` or `YYYYMMDD`"
    )
    region: str | None = _says(
        "for `phone`: the country of numbers without a country code, such as `DE`", pattern="^[A-Z]{2}$"
    )
    decimal: Literal[".", ","] = _says(
        "for `number`: the decimal mark. A number is digits with an optional sign and at most one decimal mark, at "
        "most 20 digits before and 10 after it; there are no thousands marks",
        ".",
    )
    words: Words = _says(
        "for `boolean`: the words for true and for false; left out: `{true: [true, yes, 1], false: [false, no, 0]}`",
        Words(true=("true", "yes", "1"), false=("false", "no", "0")),
    )
    separator: Literal["|", ";", ",", "/", " "] = _says(
        "for `list`: what stands between two items; one that is the delimiter too needs quoted cells. Blank items and "
        "repeats are dropped; `min_length`, `max_length`, `pattern`, `values` and `reference` are about each item",
        "|",
    )
    min_length: int | None = _says("in characters (code points)", ge=1)
    max_length: int = _says("in characters (code points)", 255, ge=1, le=100_000)
    pattern: str | None = _says(
        "a regular expression for the whole value, without lookaround and backreferences",
        min_length=1,
        max_length=1000,
    )
    values: tuple[str, ...] | None = _says("the only values allowed", min_length=1)
    reference: str | None = _says(
        "the name of a list of values in the database, loaded with `rowledger load-reference`", min_length=1
    )
    unique: bool = _says(
        "a value may occur once in a file, an email in whatever case; the first record keeps it", False
    )
    multiline: bool = _says("line breaks and tabs are allowed inside the cell", False)
    severity: Literal["reject", "warn"] = _says(
        "`warn`: a breach is noted as a warning and the record is taken, see below", "reject"
    )
    clear: str | None = _says(
        "a word, such as `-`, with which a cell empties the field of an existing row; otherwise it counts as an empty "
        "cell. It needs no quotes; not for required columns and match keys"
    )
    on_update: Literal["overwrite", "fill_if_empty", "never", "add"] = _says(
        "what a value does to an existing row; `add` joins the items of a `list` to those that are there. A blank cell "
        "always leaves alone",
        "overwrite",
    )

    @property
    def name(self) -> str:
        """What people call the column: its header, its title, or its place."""
        return self.header or self.title or f"column {self.position}"


class Policies(_Part):
    """What to do with whole records and the whole batch."""

    match: tuple[str, ...] | None = _says(
        "by which fields a row is found, in this order; left out: by all match keys that have a column",
        min_length=1,
    )
    mode: Literal["create_or_update", "create_only", "update_only"] | None = _says(
        "which rows may be written; left out: `create_or_update`"
    )
    unknown_contract: Literal["reject", "ignore", "park"] | None = _says(
        "a status for a contract that is not registered; left out: `reject`. `park`: it waits for the contract"
    )
    unknown_status: Literal["reject", "ignore", "park"] | None = _says(
        "a code that does not exist in the domain; left out: `ignore`. `park`: it waits for the code"
    )
    unknown_contact: Literal["reject", "ignore"] | None = _says(
        "a contract of a contact who does not exist; left out: `reject`. `ignore`: the contract is taken without"
    )
    future_dates: Literal["reject", "allow"] | None = _says("dates after today; left out: `reject`")
    max_rejected_share: float | None = _says(
        "above this share of rejected records (0 to 1) the batch fails before anything is loaded; left out: never",
        gt=0,
        le=1,
    )


class ImportTemplate(_Part):
    """What a file of one kind looks like and which rules its values obey. ``hash`` is that of its source."""

    name: str
    hash: str
    source: str
    kind: str = Field(description="the import kind")
    title: str = Field(min_length=1, description="what people read in lists")
    domains: tuple[str, ...] = _says("the domains it may be used for; left out: all", ())
    origins: tuple[str, ...] | None = _says(
        "the origins that may be chosen at upload; left out: all active ones of the domain"
    )
    subscriptions: tuple[str, ...] | None = _says(
        "the subscription lists that may be chosen at upload; left out: all of the domain that are not disabled"
    )
    file: FileFormat = _says("how the bytes become cells", FileFormat())
    columns: tuple[Column, ...] = Field(min_length=1, description="the columns")
    policies: Policies = _says("what to do with whole records and the whole batch", Policies())

    @property
    def field_count(self) -> int:
        """Number of fields every record of a positional file must have."""
        return self.file.fields or max(column.position or 0 for column in self.columns)

    def column_of(self, field: str) -> Column:
        return next(column for column in self.columns if column.field == field)
