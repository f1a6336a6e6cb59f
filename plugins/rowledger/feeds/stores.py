"""A place that is no folder of this machine: object storage or SFTP, as a file system of fsspec.

Airflow makes the file system from a connection (``airflow.feeds``). What such stores tell of a file differs; whatever of
it changes with the content is its identity. Object storage cannot rename: a file is copied, looked at once more, and only
then removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rowledger.errors import PlaceTrouble, RowledgerError
from rowledger.feeds.places import MAX_NAMES, Found, Listing, changed, numbered, wanted

BLOCK_BYTES = 1 << 20
# What stores call the content and the time of a file, in the order in which they are trusted. The list of a folder and
# a question about one file are answered differently by some (S3: milliseconds here, seconds there), so one thing is taken.
CONTENTS = ("ETag", "etag", "md5Hash", "content_md5", "generation")
TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
# File systems whose ``mv`` is one step; elsewhere it is a copy and a removal.
RENAMING = {"file", "local", "sftp", "ssh", "ftp", "smb"}


class Store:
    """A folder of a file system of fsspec; ``shown`` is how people call it."""

    def __init__(self, fs: Any, folder: str, shown: str) -> None:
        self._fs, self._folder, self._shown = fs, folder.rstrip("/"), shown

    def files(self, pattern: str) -> Listing:
        """See ``Place``."""
        listing = Listing()
        with self._speaking():
            self._fs.invalidate_cache()
            entries = self._fs.ls(self._folder, detail=True)
        if len(entries) > MAX_NAMES:
            listing.oddities.append(
                f"The place has more than {MAX_NAMES:,} names; the rest is not looked at."
            )
        for entry in entries[:MAX_NAMES]:
            name = _name(entry)
            if not wanted(name, pattern) or entry["name"].rstrip("/") == self._folder:
                continue
            if entry["type"] == "file" and not entry.get("islink") and entry.get("nlink", 1) == 1:
                listing.files.append(_found(name, entry))
            else:
                listing.odd(name, "is a folder" if entry["type"] == "directory" else "is no regular file")
        return listing

    def reading(self, found: Found) -> Iterator[bytes]:
        """See ``Place``."""
        with self._speaking():
            self._check(found)
            with self._fs.open(self._path(found.name), "rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
            self._check(found)

    def move(self, found: Found, folder: str, number: int) -> str:
        """See ``Place``."""
        with self._speaking():
            self._check(found)
            target = found.name
            if self._fs.exists(self._path(f"{folder}/{target}")):
                target = numbered(found.name, number)
            source, there = self._path(found.name), self._path(f"{folder}/{target}")
            self._fs.makedirs(self._path(folder), exist_ok=True)
            if RENAMING & _protocols(self._fs):
                self._fs.mv(source, there)
            else:
                self._fs.copy(source, there)
                self._remove(found)
        return target

    def delete(self, found: Found, number: int) -> None:
        """See ``Place``."""
        with self._speaking():
            if self._fs.exists(self._path(found.name)):
                self._remove(found)

    def _remove(self, found: Found) -> None:
        self._check(found)
        self._fs.rm_file(self._path(found.name))

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
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except RowledgerError:
            raise
        except Exception as error:  # noqa: BLE001 - every store has errors of its own
            raise PlaceTrouble(f"{self._shown} cannot be used ({type(error).__name__}: {error}).") from None


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _found(name: str, entry: Mapping[str, Any]) -> Found:
    size, when = int(entry.get("size") or 0), _time(entry)
    content = next((f"{key}={entry[key]}" for key in CONTENTS if entry.get(key)), f"time={int(when)}")
    inode = f"; inode={entry['ino']}" if entry.get("ino") else ""
    return Found(name, f"size={size}; {content}{inode}", size, when)


def _time(entry: Mapping[str, Any]) -> float:
    """When a file was written, as seconds since 1970; 0 if the store does not tell."""
    told = next((entry[key] for key in TIMES if entry.get(key) is not None), 0)
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    return told.timestamp() if isinstance(told, datetime) else float(told)
