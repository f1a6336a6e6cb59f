"""A file that nobody has described -> how its bytes become cells, with the reasons.

Only for proposals to a person: an import never guesses. Looks at all bytes for the encoding, at the head for the rest.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from rowledger.errors import FileError
from rowledger.infer.field_words import word
from rowledger.templates.model import Encoding, FileFormat

HEAD_CHARACTERS = 500_000
HEAD_RECORDS = 500
BLOCK_BYTES = 2 << 20
_DELIMITERS = ("\t", ";", "|", ",")
# What a cell reads like when it was cut at the right places.
_SIMPLE = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?|[^;,|\t]*")
_TYPED = re.compile(r"[+-]?[0-9][0-9 ().,/:-]*|[^@\s]+@[^@\s]+")


@dataclass(frozen=True)
class Form:
    """How to read a file, the reason for each key, the cells of its first record, and how many its records have."""

    file: FileFormat
    why: dict[str, str]
    first: tuple[str, ...]
    width: int


def sniff(path: Path, known: Collection[str]) -> Form:
    """How to read the file; ``known`` are words that name columns. Raises FileError if it cannot be opened."""
    encoding, why_encoding = _encoding(path)
    codec = {"utf-8": "utf-8-sig", "windows-1252": "cp1252"}.get(encoding, encoding)
    with path.open(encoding=codec, errors="replace") as file:
        head = file.read(HEAD_CHARACTERS)
    whole = len(head) < HEAD_CHARACTERS
    declared = re.match(r"sep=(.)\n", head, re.IGNORECASE)
    if declared and declared[1] in _DELIMITERS:
        head = head[declared.end() :]
    quote = _quote(head)
    cut = {mark: _records(head, mark, quote, whole) for mark in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda mark: _score(cut[mark], known))
    delimiter = (
        declared[1] if declared and declared[1] in _DELIMITERS else best if len(cut[best][0]) > 1 else ","
    )
    records = cut[delimiter]
    widths = Counter(map(len, records))
    width = widths.most_common(1)[0][0]
    header, why_header = _header(records, known)
    if header:
        width = len(records[0])
    return Form(
        FileFormat(
            delimiter=cast("Literal[',', ';', '\t', '|']", delimiter),
            quote=cast("Literal['\"', \"'\"]", quote),
            encoding=encoding,
            header=header,
            fields=None if header else width,
        ),
        {
            "delimiter": "the file says so in its first line" if declared
            else f"cuts {widths[width]} of the first {len(records)} records into {width} fields",
            "encoding": why_encoding,
            "header": why_header,
            "fields": "",
            "quote": "",
        },
        tuple(records[0]),
        width,
    )  # fmt: skip


def _encoding(path: Path) -> tuple[Encoding, str]:
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise FileError("file_missing", f"The file cannot be read ({error.strerror}).") from None
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-8", ""  # reading it will say what is wrong
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "by its byte-order mark"
    if (wrong := _undecodable(path, "utf-8")) is None:
        return "utf-8", "every byte reads as UTF-8"
    if not _mostly_utf8(path) and _undecodable(path, "cp1252") is None:
        return "windows-1252", f"it is not UTF-8 (byte {wrong}); iso-8859-1 and iso-8859-15 are alike, look at signs such as €"  # fmt: skip
    return "utf-8", ""


def _mostly_utf8(path: Path) -> bool:
    """Whether a file that is not UTF-8 has more letters of UTF-8 than bytes that are none: then it is broken."""
    letters = faults = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        while text := file.read(BLOCK_BYTES):
            faults += text.count("\ufffd")
            letters += len(text) - len(text.encode("ascii", "ignore"))
    return letters > 2 * faults


def _undecodable(path: Path, codec: str) -> int | None:
    """The first byte that has no meaning, or None."""
    decoder, offset = codecs.getincrementaldecoder(codec)("strict"), 0
    with path.open("rb") as file:
        while True:
            block = file.read(BLOCK_BYTES)
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return offset - held + error.start
            offset += len(block)
            if not block:
                return None


def _quote(head: str) -> str:
    """The quote that encloses more cells, as far as cells can be told without knowing the delimiter."""
    enclosed = {
        quote: len(re.findall(rf"(?:^|[;,|\t]){quote}[^{quote}\n]*{quote}(?=[;,|\t]|$)", head, re.MULTILINE))
        for quote in ('"', "'")
    }
    return "'" if enclosed["'"] > 3 * enclosed['"'] else '"'


def _records(head: str, delimiter: str, quote: str, whole: bool) -> list[list[str]]:
    """The first records that are not blank; at least one."""
    csv.field_size_limit(HEAD_CHARACTERS)
    found: list[list[str]] = []
    for record in csv.reader(
        io.StringIO(head.replace("\0", ""), newline=""), delimiter=delimiter, quotechar=quote
    ):
        if record and len(found) < HEAD_RECORDS:
            found.append(record)
    if not whole and len(found) > 1 and len(found) < HEAD_RECORDS:
        found.pop()  # the head may end inside it
    return found or [[""]]


def _score(records: list[list[str]], known: Collection[str]) -> tuple[float, float, int]:
    """Names that are known, then how alike the records are and how much their cells look like one whole value each."""
    width, often = Counter(map(len, records)).most_common(1)[0]
    if width == 1:
        return 0, 0, 0
    cells = [cell.strip() for record in records[:100] for cell in record if cell.strip()]
    simple = sum(bool(_SIMPLE.fullmatch(cell)) for cell in cells) / (len(cells) or 1)
    torn = sum(any(mark in cell for mark in '\t"') for cell in cells) / (len(cells) or 1)
    known_names = sum(word(name) in known for name in records[0])
    return known_names, often / len(records) * simple * (1 - torn), width


def _header(records: list[list[str]], known: Collection[str]) -> tuple[bool, str]:
    first, rest = [cell.strip() for cell in records[0]], records[1:]
    named = sum(word(name) in known for name in first)
    if named:
        return True, f"the first record has {named} name{'s' * (named > 1)} that Rowledger knows"
    if any(_TYPED.fullmatch(cell) for cell in first):
        return False, "the first record has values such as numbers, dates or addresses"
    below = [[record[place].strip() for record in rest if place < len(record)] for place in range(len(first))]
    if all(first) and any(
        cells and all(_TYPED.fullmatch(c) for c in cells if c) and any(cells) for cells in below
    ):
        return True, "the first record has only words where those below have numbers, dates or addresses"
    if not all(first) or len(set(first)) < len(first):
        return False, "the first record has an empty field or the same twice, which no header has"
    if any(name in cells for name, cells in zip(first, below, strict=True)):
        return False, "a value of the first record comes again below it"
    return True, "a guess: the first record's values are all different and do not come again"
