"""Bytes in: read a stream once, count and hash it, and keep it.

Files are kept under the SHA-256 of their content, so the same bytes are kept once. A file appears under its final
name only when it is complete and on disk; a crash leaves at most a ``.part`` file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rowledger.errors import DiskFull, NotKept, SetupError

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
            reap(folder)
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
        return Upload(_display_name(file_name), final, self.bytes, digest)

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


@dataclass(frozen=True)
class Kept:
    """A file that is kept under its SHA-256, its size in bytes, and when it was kept last, in seconds since 1970."""

    sha256: str
    bytes: int
    kept_at: float


def kept(folder: Path) -> Iterator[Kept]:
    """All files that are kept, in no order; what else somebody has put there is none of them."""
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        if _SHA256.fullmatch(path.name) and path.name.startswith(path.parent.name):
            with suppress(FileNotFoundError):  # somebody else removes it, too
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield Kept(path.name, found.st_size, found.st_mtime)


def opened(folder: Path, sha256: str) -> BinaryIO:
    """The bytes of a kept file. Raises FileNotFoundError."""
    return (folder / sha256[:2] / sha256).open("rb")


def remove(folder: Path, sha256: str) -> bool:
    """Let a kept file go; whether it was there. Raises NotKept if the folder is not writable."""
    try:
        (folder / sha256[:2] / sha256).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise NotKept(f"A file could not be removed from {folder} ({error.strerror}).") from None
    return True


def reap(folder: Path, names: str = "*.part") -> list[int]:
    """Remove what processes have left that were killed; the sizes in bytes. A folder goes whole."""
    sizes = []
    for path in folder.glob(names):
        with suppress(OSError):
            found = path.lstat()
            if time.time() - found.st_mtime > ORPHAN_SECONDS:
                shutil.rmtree(path) if stat.S_ISDIR(found.st_mode) else path.unlink()
                sizes.append(found.st_size)
    return sizes


_SHA256 = re.compile("[0-9a-f]{64}")


def _display_name(name: str) -> str:
    """A file name as text that can be stored and shown: no bytes that are not text, no control characters."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[-MAX_FILE_NAME:]
