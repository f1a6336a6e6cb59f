"""Bytes in: read a stream once, count and hash it, and keep it.

Files are kept under the SHA-256 of their content, so the same bytes are kept once: in a folder, or in an object store.
A file appears under its final name only when it is complete and on disk; a crash leaves at most a ``.part`` file.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rowledger.errors import DiskFull, FileError, NotKept, NotReadable, SetupError
from rowledger.stores import Store

BLOCK_BYTES = 1 << 20
MAX_FILE_NAME = 255
ORPHAN_SECONDS = 24 * 3600  # no upload takes that long: its process is dead


@dataclass(frozen=True)
class Upload:
    """A kept file: its display name, its path or URL, its size in bytes and its SHA-256 in hex."""

    file_name: str
    address: str
    bytes: int
    sha256: str
    store: Store | None = field(default=None, repr=False, compare=False)

    @property
    def is_there(self) -> bool:
        """Whether it is kept still, as far as its place is at hand: of a URL alone nobody knows. Raises TryAgain."""
        if self.store:
            return self.store.kept_at(self.sha256) is not None
        return in_a_store(self.address) or Path(self.address).exists()


def keep_file(path: Path, place: Path | Store) -> Upload:
    """Keep a copy of a regular file; links and devices are refused. Raises NotReadable, or TryAgain as a Store does."""
    with opened(path) as source:
        return keep(source, path.name, place)


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


def keep(source: BinaryIO, file_name: str, place: Path | Store) -> Upload:
    """Keep a stream of bytes. Raises DiskFull, NotKept if the folder is not writable, TryAgain as a Store does."""
    with Part(place) as part:
        with part.writing():
            while block := source.read(BLOCK_BYTES):
                part.write(block)
        return part.keep(file_name)


class Part:
    """A file that is still arriving: counted and hashed as it is written, gone at the end unless it was kept.

    Every method raises DiskFull, or NotKept if the folder is not writable.
    """

    def __init__(self, place: Path | Store) -> None:
        self._place, self._digest, self.bytes = place, hashlib.sha256(), 0
        folder = self._folder = place if isinstance(place, Path) else place.spool
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
        """Keep the file for good, under its hash. Raises TryAgain, too, as a Store does."""
        with self.writing():
            self._file.flush()
        if isinstance(self._place, Path):
            store, address = None, str(self._to_disk(self._place))
        else:
            store, address = self._place, self._place.keep(Path(self._file.name), self.sha256)
        return Upload(display_name(file_name), address, self.bytes, self.sha256, store)

    def _to_disk(self, folder: Path) -> Path:
        final = folder / self.sha256[:2] / self.sha256
        with self.writing():
            os.fsync(self._file.fileno())
            final.parent.mkdir(exist_ok=True)
            Path(self._file.name).replace(final)
            for changed in (final.parent, folder):
                _flush(changed)
        return final

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


@contextmanager
def fetched(address: str, sha256: str, place: Path | Store, scratch: Path) -> Iterator[Path]:
    """A kept file as a file of this machine: itself, or a nameless copy in ``scratch`` that goes at the end.

    Raises FileError if an object is gone or changed, TryAgain as a Store does, OSError if the copy cannot be written.
    """
    if not in_a_store(address):
        yield Path(address)
        return
    if isinstance(place, Path):
        raise SetupError(
            f"{address} is kept in object storage; ROWLEDGER_UPLOADS does not say where that is."
        )
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as copy:  # has no name, so no crash leaves it behind
        digest = hashlib.sha256()
        with place.opened(address) as source:
            while block := source.read(BLOCK_BYTES):
                digest.update(block)
                copy.write(block)
        copy.flush()
        if digest.hexdigest() != sha256:
            raise FileError(
                "file_changed", "The kept file is not what was uploaded any more; upload it again."
            )
        yield Path(f"/proc/self/fd/{copy.fileno()}")


def in_a_store(address: str) -> bool:
    """Whether the address is a URL, not a path."""
    return "://" in address


@dataclass(frozen=True)
class Kept:
    """A file that is kept under its SHA-256, its size in bytes, and when it was kept last, in seconds since 1970."""

    sha256: str
    bytes: int
    kept_at: float


def kept(place: Path | Store) -> Iterator[Kept]:
    """All files that are kept, in no order; what else somebody has put there is none of them. Raises TryAgain."""
    if isinstance(place, Path):
        yield from _kept_in(place)
    else:
        yield from (Kept(*one) for one in place.kept())


def _kept_in(folder: Path) -> Iterator[Kept]:
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        if _SHA256.fullmatch(path.name) and path.name.startswith(path.parent.name):
            with suppress(FileNotFoundError):  # somebody else removes it, too
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield Kept(path.name, found.st_size, found.st_mtime)


def _flush(folder: Path) -> None:
    """Let the names in a folder outlast a power cut."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def kept_at(place: Path | Store, sha256: str) -> float | None:
    """When a file was kept last, in seconds since 1970; None if it is not there. Raises TryAgain as a Store does."""
    if not isinstance(place, Path):
        return place.kept_at(sha256)
    try:
        return (place / sha256[:2] / sha256).lstat().st_mtime
    except FileNotFoundError:
        return None


@contextmanager
def bytes_of(place: Path | Store, sha256: str) -> Iterator[BinaryIO]:
    """The bytes of a kept file; none if it is gone. Raises TryAgain as a Store does."""
    with ExitStack() as stack:
        try:
            if isinstance(place, Path):
                source: BinaryIO = stack.enter_context((place / sha256[:2] / sha256).open("rb"))
            else:
                source = stack.enter_context(place.opened(place.address(sha256)))
        except (FileNotFoundError, FileError):
            source = io.BytesIO()
        yield source


def remove(place: Path | Store, sha256: str) -> bool:
    """Let a kept file go; whether it was there. Raises NotKept if the folder is not writable, TryAgain as a Store does."""
    if not isinstance(place, Path):
        return place.remove(sha256)
    try:
        (place / sha256[:2] / sha256).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise NotKept(f"A file could not be removed from {place} ({error.strerror}).") from None
    return True


def reap(place: Path | Store, names: str = "*.part") -> list[int]:
    """Remove what processes have left that were killed; the sizes in bytes. A folder goes whole."""
    sizes = []
    folder = place if isinstance(place, Path) else place.spool
    for path in folder.glob(names):
        with suppress(OSError):
            found = path.lstat()
            if time.time() - found.st_mtime > ORPHAN_SECONDS:
                shutil.rmtree(path) if stat.S_ISDIR(found.st_mode) else path.unlink()
                sizes.append(found.st_size)
    return sizes


_SHA256 = re.compile("[0-9a-f]{64}")


def display_name(name: str) -> str:
    """A file name as text that can be stored and shown: no bytes that are not text, no control characters."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[-MAX_FILE_NAME:]
