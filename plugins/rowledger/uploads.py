"""Bytes in: read a stream once, count and hash it, and keep it.

Files are kept under the SHA-256 of their content, so the same bytes are kept once. A file appears under its final
name only when it is complete and on disk; a crash leaves at most a ``.part`` file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rowledger.errors import SetupError

BLOCK_BYTES = 1 << 20
MAX_FILE_NAME = 255


@dataclass(frozen=True)
class Upload:
    """A kept file: its display name, where it is, its size in bytes and its SHA-256 in hex."""

    file_name: str
    path: Path
    bytes: int
    sha256: str


def keep_file(path: Path, folder: Path) -> Upload:
    """Keep a copy of a regular file; links and devices are refused. Raises SetupError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise SetupError(f"{path} cannot be read ({why}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SetupError(f"{path} is not a regular file.")
    with open(descriptor, "rb") as source:  # noqa: PTH123 - an open descriptor has no path
        return keep(source, path.name, folder)


def keep(source: BinaryIO, file_name: str, folder: Path) -> Upload:
    """Keep a stream of bytes under ``folder``. Raises SetupError if the disk is full or not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as target:
            try:
                digest, size = _copy(source, target)  # type: ignore[arg-type]
                final = folder / digest[:2] / digest
                final.parent.mkdir(exist_ok=True)
                Path(target.name).replace(final)
            except BaseException:
                Path(target.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise SetupError(f"The upload could not be kept in {folder} ({error.strerror}).") from None
    return Upload(_display_name(file_name), final, size, digest)


def _copy(source: BinaryIO, target: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while block := source.read(BLOCK_BYTES):
        digest.update(block)
        target.write(block)
        size += len(block)
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest(), size


def _display_name(name: str) -> str:
    """A file name as text that can be stored and shown: no bytes that are not text, no control characters."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[-MAX_FILE_NAME:]
