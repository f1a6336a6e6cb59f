"""A place where files of a feed arrive: what is there, what it holds, and taking it away.

A file is taken for what it was when it was listed: ``Found.identity`` changes whenever it is written or replaced, and
everything that is done to it afterwards looks whether it is still that one. Names are never more than names: no path,
and as text for display only.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from rowledger.errors import FileChanged, PlaceTrouble
from rowledger.uploads import display_name

MAX_NAMES = 200_000  # more are not listed: what is done with should be somewhere else
MAX_ODDITIES = 20
UNFINISHED = (".part", ".partial", ".filepart", ".tmp", ".crdownload", ".swp", "~")


@dataclass(frozen=True)
class Found:
    """A file of a place: how the place calls it, and what stands for this very content of it."""

    name: str
    identity: str
    bytes: int
    modified: float

    @property
    def shown(self) -> str:
        """The name as text that can be stored and shown."""
        return display_name(self.name)


@dataclass
class Listing:
    """What is in a place: files whose names are wanted, and sentences about what is left alone."""

    files: list[Found] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    whole: bool = True  # nothing is there that was not looked at

    def cut(self) -> None:
        """Note that there are more names than are looked at."""
        self.whole = False
        self.oddities.append(f"The place has more than {MAX_NAMES:,} names; the rest is not looked at.")

    def odd(self, name: str, what: str) -> None:
        """Note something that is named like a file of the feed."""
        if len(self.oddities) < MAX_ODDITIES:
            self.oddities.append(f'"{display_name(name)}" {what} and is left alone.')


class Place(Protocol):
    """What a feed needs of a place. Every method raises PlaceTrouble."""

    def files(self, pattern: str) -> Listing:
        """The files with such names that look finished."""
        ...

    def reading(self, found: Found) -> Iterator[bytes]:
        """The bytes of a file. Raises FileChanged at the end if they are not those of one content."""
        ...

    def move(self, found: Found, folder: str, number: int) -> str:
        """Move a file into a folder of the place, under another name if its own is taken. Raises FileChanged."""
        ...

    def delete(self, found: Found, number: int) -> None:
        """Delete a file. Raises FileChanged."""
        ...


def wanted(name: str, pattern: str) -> bool:
    """Whether a name is one of a feed, and not that of a file that somebody still writes."""
    return (
        fnmatch.fnmatchcase(name, pattern)
        and not name.startswith(".")
        and not name.lower().endswith(UNFINISHED)
    )


def numbered(name: str, number: int) -> str:
    """Another name for a file: ``a.csv`` becomes ``a.17.csv``."""
    path = PurePosixPath(name)
    return f"{path.stem}.{number}{path.suffix}"


class Folder:
    """A folder that this process sees. Links are never followed, once it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self, pattern: str) -> Listing:
        """See ``Place``."""
        listing, names = Listing(), 0
        with self._opened() as folder, os.scandir(folder) as entries:
            for entry in entries:
                names += 1
                if names > MAX_NAMES:
                    listing.cut()
                    break
                if wanted(entry.name, pattern):
                    with suppress(FileNotFoundError):  # gone since
                        self._sort(listing, entry.name, entry.stat(follow_symlinks=False))
        return listing

    @staticmethod
    def _sort(listing: Listing, name: str, status: os.stat_result) -> None:
        kinds = {stat.S_ISLNK: "is a link", stat.S_ISDIR: "is a folder", stat.S_ISFIFO: "is a pipe"}
        if not stat.S_ISREG(status.st_mode):
            what = next((word for test, word in kinds.items() if test(status.st_mode)), "is no regular file")
            listing.odd(name, what)
        elif status.st_nlink > 1:
            listing.odd(name, "has another name elsewhere (a hard link)")
        else:
            listing.files.append(Found(name, _identity(status), status.st_size, status.st_mtime))

    def reading(self, found: Found) -> Iterator[bytes]:
        """See ``Place``."""
        with self._opened() as folder:
            descriptor = os.open(
                found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
            )
            with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - an open descriptor has no path
                before = os.fstat(descriptor)
                self._check(found, before)
                while block := file.read(1 << 20):
                    yield block
                after = os.fstat(descriptor)
            self._check(found, after)
            if (before.st_ctime_ns, before.st_size) != (after.st_ctime_ns, after.st_size):
                raise changed(found)
            self._check(found, os.stat(found.name, dir_fd=folder, follow_symlinks=False))

    def move(self, found: Found, folder: str, number: int) -> str:
        """See ``Place``."""
        with self._opened() as here:
            there = self._made(here, PurePosixPath(folder))
            try:
                return self._carry(found, here, there, found.name, number)
            finally:
                os.close(there)

    def delete(self, found: Found, number: int) -> None:
        """See ``Place``."""
        hidden = f".rowledger.{number}"
        with self._opened() as here:
            with suppress(FileNotFoundError):
                os.unlink(self._carry(found, here, here, hidden, number), dir_fd=here)
            with suppress(FileNotFoundError):  # of a try that was killed
                os.unlink(hidden, dir_fd=here)

    def _carry(self, found: Found, here: int, there: int, name: str, number: int) -> str:
        """Rename a file, and back if it turns out to be another one: its name may have been given away just now."""
        self._check(found, os.stat(found.name, dir_fd=here, follow_symlinks=False))
        target = name if not _exists(name, there) else numbered(name, number)
        os.rename(found.name, target, src_dir_fd=here, dst_dir_fd=there)
        moved = os.stat(target, dir_fd=there, follow_symlinks=False)
        if _identity(moved) != found.identity:
            back = found.name if not _exists(found.name, here) else numbered(found.name, number)
            os.rename(target, back, src_dir_fd=there, dst_dir_fd=here)
            raise changed(found)
        return target

    @staticmethod
    def _made(here: int, folder: PurePosixPath) -> int:
        """A folder below, made if need be, opened; never one that a link leads to."""
        opened = os.dup(here)
        for part in folder.parts:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=opened)
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened)
            finally:
                os.close(opened)
            opened = inner
        return opened

    @staticmethod
    def _check(found: Found, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or _identity(status) != found.identity:
            raise changed(found)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder itself; errors of the system in words."""
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PlaceTrouble(f"The folder {self.path} cannot be read ({error.strerror}).") from None
        try:
            yield folder
        except FileNotFoundError as error:
            raise FileChanged(f'"{display_name(_named(error))}" is gone.') from None
        except OSError as error:
            name = display_name(_named(error))
            raise PlaceTrouble(f'"{name}" in {self.path} cannot be used ({error.strerror}).') from None
        finally:
            os.close(folder)


def _identity(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _named(error: OSError) -> str:
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "A file"


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def changed(found: Found) -> FileChanged:
    """What is raised about a file that is not the one any more that was seen."""
    return FileChanged(f'"{found.shown}" was changed while it was being taken; it waits for the next look.')
