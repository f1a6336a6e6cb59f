"""The beginning of a file: its header and first records, cut where a record ends.

In: the first bytes of a file. Out: bytes again, for the reader of whole files. Records are counted as Python's csv cuts
them, which is only about where to stop: what they are is told by that reader alone.
"""

from __future__ import annotations

import csv
import io
from codecs import getincrementaldecoder
from collections.abc import Iterator

from rowledger.structure import cut
from rowledger.templates import ImportTemplate
from rowledger.text_in import codec_of

HEAD_BYTES = 1 << 20


def first_records(head: bytes, template: ImportTemplate, count: int, *, whole: bool) -> bytes | None:
    """The header, if there is one, and about ``count`` records; None if not one record ends within ``head``.

    Unless ``head`` is the ``whole`` file, its last record may be cut off and is left out.
    """
    codec = codec_of(template)
    try:
        text = getincrementaldecoder(codec)("surrogateescape").decode(head, final=whole)
        ends = _ends(text, template, count + template.file.header, whole=whole)
        if len(ends) <= template.file.header:
            return None
        return text[: ends[-1]].encode(codec, "surrogateescape")
    except (UnicodeError, csv.Error):
        return None


def _ends(text: str, template: ImportTemplate, most: int, *, whole: bool) -> list[int]:
    """Where the first records end, in characters."""
    read, ends = 0, list[int]()

    def lines() -> Iterator[str]:
        nonlocal read
        for line in io.StringIO(text, newline=""):
            read += len(line)
            yield line

    for record in cut(lines(), template):
        if record:
            ends.append(read)
        if len(ends) == most and (whole or read < len(text)):
            return ends
    return ends if whole else ends[:-1]
