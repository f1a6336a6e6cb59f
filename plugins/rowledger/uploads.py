"""Bytes in: read a stream once, count and hash it, and keep it.

Files are kept under the SHA-256 of their content, so the same bytes are kept once. A file appears under its final
name only when it is complete and on disk; a crash leaves at most a ``.part`` file.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rowledger.errors import DiskFull, NotKept, NotReadable

BLOCK_BYTES = 1 << 20
MAX_FILE_NAME = 255
ORPHAN_SECONDS = 24 * 3600  # no upload takes that long: its process is dead


@dataclass(frozen=True)
class Upload:
    """A kept file: its display name, where it is, its size in bytes and its SHA-256 in hex."""

    file_name: str
    path: Path
    bytes: int
    sha256: str


def keep_file(path: Path, folder: Path) -> Upload:
    """Keep a copy of a regular file; links and devices are refused. Raises NotReadable."""
    with opened(path) as source:
        return keep(source, path.name, folder)


def opened(path: Path) -> io.BufferedReader:
    """A regular file, to be read; links and devices are refused. Raises NotReadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise NotReadable(f"{path} cannot be read ({why}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotReadable(f"{path} is not a regular file.")
    return open(descriptor, "rb")  # noqa: PTH123 - an open descriptor has no path; the caller closes it


def keep(source: BinaryIO, file_name: str, folder: Path) -> Upload:
    """Keep a stream of bytes under ``folder``. Raises DiskFull, or NotKept if the folder is not writable."""
    with Part(folder) as part:
        with part.writing():
            while block := source.read(BLOCK_BYTES):
                part.write(block)
        return part.keep(file_name)


class Part:
    """A file that is still arriving: counted and hashed as it is written, gone at the end unless it was kept.

    Every method raises DiskFull, or NotKept if the folder is not writable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._digest, self.bytes = folder, hashlib.sha256(), 0
        with self.writing():
            folder.mkdir(parents=True, exist_ok=True)
            _reap(folder)
            self._file = tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False)  # noqa: SIM115 - __exit__ closes it

    def write(self, block: bytes) -> None:
        """Add a block of bytes."""
        with self.writing():
            self._digest.update(block)
            self._file.write(block)
            self.bytes += len(block)

    @property
    def sha256(self) -> str:
        """The SHA-256 of what has arrived, in hex."""
        return self._digest.hexdigest()

    def keep(self, file_name: str) -> Upload:
        """Bring the file to disk for good, under its hash."""
        digest = self.sha256
        final = self._folder / digest[:2] / digest
        with self.writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            final.parent.mkdir(exist_ok=True)
            Path(self._file.name).replace(final)
        return Upload(display_name(file_name), final, self.bytes, digest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Errors of the operating system in words."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            kind = DiskFull if full else NotKept
            raise kind(f"The upload could not be kept in {self._folder} ({error.strerror}).") from None

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk, once more
            self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


def _reap(folder: Path) -> None:
    """Remove what uploads have left whose process was killed."""
    for path in folder.glob("*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ORPHAN_SECONDS:
                path.unlink()


def display_name(name: str) -> str:
    """A file name as text that can be stored and shown: no bytes that are not text, no control characters."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[-MAX_FILE_NAME:]
