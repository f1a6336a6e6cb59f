"""Bytes -> text in one form: UTF-8, LF, no byte-order mark, every blank line and the end marked.

In: the bytes of an upload and the encoding its template declares. Out: a text file that a CSV reader can count in.
Raises FileError, with the first place, for what is not such text.
"""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass
from pathlib import Path

from rowledger.errors import FileError
from rowledger.model import Reason
from rowledger.structure import delimiter_sentence
from rowledger.templates import ImportTemplate

MARK = "\ufdd0rowledger"  # a Unicode noncharacter: not for interchange, so no file has it by right
END_MARK = f"{MARK} end"
BLOCK_BYTES = 2 << 20

_CODECS = {"windows-1252": "cp1252", "utf-16": "utf-16"}
_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


@dataclass(frozen=True)
class TextFacts:
    """What was seen while the bytes were brought into one form. ``lines`` counts physical lines and the end mark."""

    lines: int
    blank_lines: int
    controls: bool
    warnings: tuple[Reason, ...]


def codec_of(template: ImportTemplate) -> str:
    """What Python calls the encoding that a template declares."""
    return _CODECS.get(template.file.encoding, template.file.encoding)


def prepare(path: Path, text_path: Path, template: ImportTemplate) -> TextFacts:
    """Write the file as UTF-8 with LF, blank lines and the end marked. Raises FileError for what is not such text."""
    decoder = codecs.getincrementaldecoder(codec_of(template))("strict")
    lines = blank_lines = offset = 0
    controls = mojibake = held_cr = False
    before = "\n"  # the character before the block: a line break at the very start opens with a blank line
    with _opened(path) as source, text_path.open("wb") as target:
        offset = _skip_bom(source, template)
        first = True
        while True:
            block = source.read(BLOCK_BYTES)
            if first:
                _refuse_no_text(block)
            text = _decode(decoder, block, offset, lines, template)
            offset += len(block)
            if first:
                text, first = _without_separator_line(text, template), False
            # CR LF may be cut in two by the block; hold a CR back until the next character is known.
            text = ("\r" if held_cr else "") + text
            held_cr = bool(block) and text.endswith("\r")
            text = text[:-1] if held_cr else text
            if "\r" in text:
                text = text.replace("\r\n", "\n").replace("\r", "\n")
            if MARK in text:
                raise FileError(
                    "encoding", "The file has the noncharacter U+FDD0, which is not for interchange."
                )
            if text and (before == "\n" == text[0] or "\n\n" in text):
                text = ("" if before != "\n" else MARK if text[0] == "\n" else "") + text
                text = text.replace("\n\n", f"\n{MARK}\n").replace("\n\n", f"\n{MARK}\n")
                blank_lines += text.count(MARK)
            data = text.encode("utf-8")
            controls = controls or _has_controls(data)
            mojibake = mojibake or (not text.isascii() and bool(_MOJIBAKE.search(text)))
            lines += data.count(b"\n")
            before = text[-1] if text else before
            target.write(data)
            if not block:
                break
        if before == "\0":
            raise FileError(
                "trailing_nul", "The file ends with NUL bytes: the copy was cut short. Send it again."
            )
        target.write(f"{'' if before == chr(10) else chr(10)}{END_MARK}\n".encode())
    warnings = (_MOJIBAKE_WARNING,) if mojibake else ()
    return TextFacts(lines + (2 if before != "\n" else 1), blank_lines, controls, warnings)


def _opened(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        if not path.parent.parent.exists():  # not the file is gone, but the disk that all of them are on
            raise
        raise FileError("file_missing", "The uploaded file is not there any more; upload it again.") from None


_MOJIBAKE = re.compile("Ã[\u0080-\u00bf]|â(?:€|\u0080)|Ã(?:Ÿ|œ|„|–)")


_MOJIBAKE_WARNING = Reason(
    "suspect_mojibake",
    None,
    None,
    "The file looks like UTF-8 that was read and saved as Windows-1252 (Ã¼ in place of ü). Check names with accents.",
)


def _skip_bom(source: io.BufferedReader, template: ImportTemplate) -> int:
    head = source.read(4)
    encoding = template.file.encoding
    for bom, name in _BOMS:
        if head.startswith(bom):
            if name.lower() != encoding:
                raise FileError(
                    "encoding",
                    f"The file is {name}, the template expects {encoding}. Save it as {encoding.upper()}.",
                    "byte 0",
                )
            # The UTF-16 decoder reads its own mark, to know the order of bytes.
            source.seek(0 if name == "UTF-16" else len(bom))
            return source.tell()
    if encoding == "utf-16" and head:
        raise FileError(
            "encoding", "The file has no UTF-16 byte-order mark. Save it as UTF-16 with one.", "byte 0"
        )
    source.seek(0)
    return 0


def _decode(
    decoder: codecs.IncrementalDecoder, block: bytes, offset: int, lines: int, template: ImportTemplate
) -> str:
    held = len(decoder.getstate()[0])
    try:
        return decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        line = lines + 1 + bytes(error.object[: error.start]).count(b"\n")
        raise FileError(
            "encoding",
            f"The file is not {template.file.encoding}: byte 0x{error.object[error.start]:02X} has no meaning there. "
            f"Save it as {template.file.encoding.upper()}, or use a template for its encoding.",
            f"byte {offset - held + error.start}, line {line}",
        ) from None


_BINARY = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
)


def refuse_binary(head: bytes) -> None:
    """Refuse a file that begins like something that is known not to be text. Raises FileError."""
    for magic, name in _BINARY:
        if head.startswith(magic):
            raise FileError("not_text", f"The file is {name}, not text. Export it as CSV.", "byte 0")


def _refuse_no_text(head: bytes) -> None:
    if not head:
        raise FileError("empty_file", "The file is empty.")
    refuse_binary(head)
    sample = head[:2000].rstrip(b"\0")  # NULs at the end are a fault of their own
    if sample.count(0) * 4 > len(sample) and not sample.startswith(
        (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    ):
        message = "The file is full of NUL bytes: it is UTF-16 without a mark, or not text."
        raise FileError("encoding", message, "byte 0")


def _without_separator_line(text: str, template: ImportTemplate) -> str:
    """Excel's first line ``sep=;`` says the delimiter; it must agree with the template."""
    match = re.match(r"sep=(.)(?:\r\n|\r|\n)", text, re.IGNORECASE)
    if not match:
        return text
    if match[1] != template.file.delimiter:
        raise FileError("delimiter_mismatch", delimiter_sentence(match[1], template.file.delimiter), "line 1")
    return text[match.end() :]


_CONTROL_BYTES = bytes(b for b in range(0x20) if b not in b"\n") + b"\x7f"


def _has_controls(data: bytes) -> bool:
    return len(data.translate(None, _CONTROL_BYTES)) != len(data) or (
        not data.isascii() and re.search(rb"\xc2[\x80-\x9f]", data) is not None
    )
