"""Answers whose size nobody knows: streamed, and cleared up after however they end."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Generator, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import anyio
from anyio.to_thread import run_sync
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PART_CHARACTERS = 1 << 16


class Streamed(StreamingResponse):
    """The lines of a generator, about 64 kB at a time. The generator is closed when the answer ends, or the client does."""

    def __init__(
        self, lines: Generator[str], media_type: str, file_name: str | None = None, encoding: str = "utf-8"
    ) -> None:
        headers = {"Content-Disposition": attachment(file_name)} if file_name else None
        self._lines = lines
        super().__init__(_joined(lines, encoding), headers=headers, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(self._lines.close)


def _joined(lines: Iterable[str], encoding: str) -> Iterator[bytes]:
    """A character that the encoding does not have becomes its number, as &#8364; for a euro sign."""
    encode = codecs.getincrementalencoder(encoding)("xmlcharrefreplace").encode
    waiting: list[str] = []
    length = 0
    for line in lines:
        waiting.append(line)
        length += len(line)
        if length >= PART_CHARACTERS:
            yield encode("".join(waiting))
            waiting, length = [], 0
    yield encode("".join(waiting))


def as_json_lines(found: Generator[dict[str, Any]]) -> Generator[str]:
    """One JSON object a line; closes ``found``."""
    with contextlib.closing(found):
        for one in found:
            yield json.dumps(one, ensure_ascii=False, default=str) + "\n"


def attachment(file_name: str) -> str:
    """A Content-Disposition for a file name of any characters (RFC 6266)."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-") else "_" for c in file_name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"
