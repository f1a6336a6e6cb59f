"""A place that is no folder of this machine: object storage or SFTP, as a file system of fsspec.

Airflow makes the file system from a connection (``airflow.stores``). What such stores tell of a file differs; whatever of
it changes with the content is its identity. Object storage cannot rename: a file is copied, looked at once more, and only
then removed.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import zip_longest
from typing import Any

from rowledger.errors import PlaceAway, PlaceTrouble, RowledgerError
from rowledger.feeds.places import MAX_NAMES, Found, Listing, changed, numbered, wanted
from rowledger.uploads import display_name

log = logging.getLogger("rowledger.feeds")
BLOCK_BYTES = 1 << 20
# What stores call the content and the time of a file, in the order in which they are trusted. The list of a folder and
# a question about one file are answered differently by some (S3: milliseconds here, seconds there): seconds are taken.
CONTENTS = ("ETag", "etag", "md5Hash", "content_md5", "generation")
TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
# File systems with folders, where a file is renamed in one step; elsewhere a folder is what names begin with, and to
# rename is to copy and to remove.
RENAMING = {"file", "local", "sftp", "ssh", "ftp", "smb"}
SSH = {"sftp", "ssh"}
REFUSED = {"PermissionError", "SFTPPermissionDenied"}


class Store:
    """A folder of a file system of fsspec; ``shown`` is how people call it. The scheme is what it was asked for by: not
    every file system tells its own.
    """

    def __init__(self, fs: Any, folder: str, shown: str, scheme: str) -> None:
        self._fs, self._folder, self._shown, self._scheme = fs, folder.rstrip("/"), shown, scheme
        self._renames = scheme in RENAMING

    def files(self, pattern: str) -> Listing:
        """See ``Place``."""
        listing = Listing()
        with self._speaking():
            entries = self._entries()
        if len(entries) > MAX_NAMES:
            listing.cut()
        for entry in entries[:MAX_NAMES]:
            name = _name(entry)
            if not wanted(name, pattern) or entry["name"].rstrip("/") == self._folder:
                continue
            if entry["type"] == "file" and not entry.get("islink") and entry.get("nlink", 1) == 1:
                listing.files.append(_found(name, entry))
            else:
                kinds = {"directory": "is a folder", "link": "is a link"}
                listing.odd(name, kinds.get(entry["type"], "is no regular file"))
        return listing

    def _entries(self) -> list[dict[str, Any]]:
        """All that is there. A folder of object storage is there as long as something is in it: a bucket is enough."""
        self._fs.invalidate_cache()
        try:
            return list(self._fs.ls(self._folder, detail=True))
        except FileNotFoundError:
            bucket = self._folder.lstrip("/").partition("/")[0]
            if self._renames or not self._fs.exists(bucket):
                raise
            return []

    def reading(self, found: Found) -> Iterator[bytes]:
        """See ``Place``."""
        with self._speaking(found):
            self._check(found)
            try:
                yield from self._blocks(found.name)
            except Exception:
                self._check(found)  # some stores notice themselves that a file was replaced
                raise
            self._check(found)

    def _blocks(self, name: str) -> Iterator[bytes]:
        with self._fs.open(self._path(name), "rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def move(self, found: Found, folder: str, number: int) -> str:
        """See ``Place``."""
        with self._speaking(found):
            self._check(found)
            target = f"{folder}/{found.name}"
            if self._renames:
                if not self._fs.isdir(self._path(folder)):
                    self._fs.makedirs(self._path(folder), exist_ok=True)
                if self._is_there(target):
                    target = f"{folder}/{numbered(found.name, number)}"
                self._rename(found, target)
            else:
                if self._is_there(target) and not self._same(found.name, target):  # else it is our copy
                    target = f"{folder}/{numbered(found.name, number)}"
                self._fs.cp_file(self._path(found.name), self._path(target))
                self._remove(found)
        return _name({"name": target})

    def _rename(self, found: Found, target: str) -> None:
        """Rename a file, and back if it turns out to be another one: its name may have been given away just now."""
        source, there = self._path(found.name), self._path(target)
        rename = functools.partial(_rename_by_sftp, self._fs) if self._scheme in SSH else self._fs.mv
        rename(source, there)
        if _found(found.name, self._fs.info(there)).identity != found.identity:
            rename(there, source)
            raise changed(found)

    def _same(self, one: str, other: str) -> bool:
        """Whether two files have the same bytes."""
        return all(a == b for a, b in zip_longest(self._blocks(one), self._blocks(other)))

    def delete(self, found: Found, number: int) -> None:
        """See ``Place``."""
        with self._speaking(found):
            if self._is_there(found.name):
                self._remove(found)

    def _remove(self, found: Found) -> None:
        self._check(found)
        self._fs.rm_file(self._path(found.name))

    def _is_there(self, name: str) -> bool:
        """Whether there is such a file. ``exists`` of fsspec takes every trouble for a no."""
        try:
            self._fs.info(self._path(name))
        except FileNotFoundError:
            return False
        return True

    def _check(self, found: Found) -> None:
        self._fs.invalidate_cache()
        try:
            now = _found(found.name, self._fs.info(self._path(found.name)))
        except FileNotFoundError:
            raise changed(found) from None
        if now.identity != found.identity:
            raise changed(found)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    @contextmanager
    def _speaking(self, found: Found | None = None) -> Iterator[None]:
        """Errors of whatever library speaks to the store, in words; each has classes of its own.

        Their text has addresses and more, which are for the log.
        """
        try:
            yield
        except RowledgerError:
            raise
        except Exception as error:  # noqa: BLE001 - every store has errors of its own
            log.warning("%s: %s: %s", self._shown, type(error).__name__, display_name(str(error)))
            if found and self._answers():
                raise PlaceTrouble(f'"{found.shown}" in {self._shown} {_words(error)}') from None
            raise PlaceAway(f"{self._shown} {_words(error)}") from None

    def _answers(self) -> bool:
        """Whether the place itself can be looked at: then the trouble is that of one file."""
        try:
            self._fs.invalidate_cache()
            self._fs.info(self._folder)
        except FileNotFoundError:
            return not self._renames
        except Exception:  # noqa: BLE001 - every store has errors of its own
            return False
        return True


def _words(error: Exception) -> str:
    """What is wrong, after the name of what it is about."""
    why = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "is not there."
    if why in REFUSED:
        return f"refuses that to the login of its connection ({why})."
    return f"cannot be reached or used just now ({why})."


def _rename_by_sftp(fs: Any, source: str, there: str) -> None:
    """Rename a file, never over another one.

    sshfs renames over others, and where the server lacks that extension of the protocol it has a shell copy the file and
    removes it even if that failed. SFTP's own rename does neither.
    """
    from fsspec.asyn import sync

    async def rename() -> None:
        async with fs.client.start_sftp_client(path_errors="surrogateescape") as client:
            await client.rename(source, there)

    sync(fs.loop, rename)


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _found(name: str, entry: Mapping[str, Any]) -> Found:
    size, when = int(entry.get("size") or 0), _time(entry)
    told = [f"{key}={entry[key]}" for key in CONTENTS if entry.get(key)][:1]
    told += [f"inode={entry['ino']}"] if entry.get("ino") else []
    return Found(name, "; ".join([f"size={size}", f"time={int(when)}", *told]), size, when)


def _time(entry: Mapping[str, Any]) -> float:
    """When a file was written, as seconds since 1970; 0 if the store does not tell."""
    told = next((entry[key] for key in TIMES if entry.get(key) is not None), 0)
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    return told.timestamp() if isinstance(told, datetime) else float(told)
