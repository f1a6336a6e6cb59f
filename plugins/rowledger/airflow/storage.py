"""Kept files in object storage, through Airflow's ObjectStoragePath: whatever it has a provider for.

``ROWLEDGER_UPLOADS`` is a URL: ``s3://bucket/folder``, with an Airflow connection ``s3://connection@bucket/folder``. An
object appears when all of it has arrived, under the SHA-256 of its bytes, so the same bytes are kept once.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from rowledger.errors import FileError, SetupError, TryAgain
from rowledger.settings import Settings, from_environment

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger("rowledger.airflow")
PART_BYTES = 8 << 20  # of an upload, a few of which are in memory at a time


_KEPT = re.compile(r"/([0-9a-f]{2})/\1[0-9a-f]{62}\Z")


class ObjectStore:
    """A place in object storage; ``spool`` is where files arrive first."""

    def __init__(self, url: str, spool: Path) -> None:
        self.url, self.spool = url.rstrip("/"), spool

    def keep(self, file: Path, sha256: str) -> str:
        """See Store. Raises TryAgain."""
        address = self.address(sha256)
        with self._reached():
            target = _at(address)
            target.fs.put_file(str(file), target.path, chunksize=PART_BYTES)
        return address

    def kept(self) -> Iterator[tuple[str, int, float]]:
        """See Store. Raises TryAgain. What else somebody has put there is none of them."""
        with self._reached():
            place = _at(self.url)
            place.fs.invalidate_cache()
            listed = place.fs.find(place.path, detail=True)
        for path, told in listed.items():
            if _KEPT.search(path):
                with self._reached():
                    when = _when(place.fs, path, told)
                yield path[-64:], told["size"], when

    def kept_at(self, sha256: str) -> float | None:
        """See Store. Raises TryAgain."""
        address = self.address(sha256)
        with self._reached():
            place = _at(address)
            place.fs.invalidate_cache()
        if not self._has(address):
            return None
        with self._reached():
            return _when(place.fs, place.path, place.fs.info(place.path))

    def remove(self, sha256: str) -> bool:
        """See Store. Raises TryAgain."""
        address = self.address(sha256)
        if not self._has(address):
            return False
        with self._reached():
            _at(address).fs.rm_file(_at(address).path)
        return True

    @contextmanager
    def opened(self, address: str) -> Iterator[BinaryIO]:
        """See Store. Raises TryAgain, or FileError if the object is gone and its bucket is not."""
        if not self._has(address):
            raise FileError("file_missing", "The uploaded file is not there any more; upload it again.")
        with self._reached():
            source = _at(address).fs.open(_at(address).path, "rb", cache_type="readahead")
        with source:
            yield cast(BinaryIO, _Translated(source, self))

    def address(self, sha256: str) -> str:
        """See Store."""
        return f"{self.url}/{sha256[:2]}/{sha256}"

    def _has(self, address: str) -> bool:
        """Whether an object is there. Raises TryAgain, also if the bucket itself is not."""
        with self._reached():
            place = _at(address)
            if place.fs.exists(place.path):
                return True
            place.fs.info(place.bucket)
            return False

    def prepare(self) -> None:
        """Make the bucket, if there is none."""
        with self._reached():
            place = _at(self.url)
            if not place.fs.exists(place.bucket):
                place.fs.mkdir(place.bucket)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Errors of whatever library speaks to the store, in words; each has classes of its own.

        Their text has addresses, which are nobody's business on a page: it goes into the log.
        """
        try:
            yield
        except ImportError as error:
            raise SetupError(
                f"What speaks to the object storage of the uploads is not installed: {error}."
            ) from error
        except Exception as error:
            why = type(error).__name__
            log.warning("The object storage of the uploads: %s: %s", why, error)
            raise TryAgain(
                f"The object storage of the uploads cannot be reached or refuses ({why})."
            ) from error


class _Translated:
    """A file of object storage whose errors are ours."""

    def __init__(self, source: BinaryIO, store: ObjectStore) -> None:
        self._source, self._store = source, store

    def read(self, size: int) -> bytes:
        with self._store._reached():
            return self._source.read(size)


def _when(fs: Any, path: str, told: dict[str, Any]) -> float:
    """When an object was kept, in seconds since 1970."""
    return float((told.get("LastModified") or fs.modified(path)).timestamp())


def _at(address: str) -> ObjectStoragePath:
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(address)


def settings() -> Settings:
    """The settings from the environment, with the object store if ``ROWLEDGER_UPLOADS`` names one. Raises SetupError."""
    return with_store(from_environment())


def with_store(given: Settings) -> Settings:
    """The same settings, with the object store if they name one."""
    if given.uploads_url is None:
        return given
    return dataclasses.replace(given, store=ObjectStore(given.uploads_url, given.home / "uploads"))


def warm() -> None:
    """Import what speaks to the store, if there is one, so that forks of this process need not."""
    url = from_environment().uploads_url
    if url is not None:
        import fsspec

        fsspec.get_filesystem_class(url.partition("://")[0])


def main() -> None:
    """Make what the object store needs."""
    store = settings().store
    if not isinstance(store, ObjectStore):
        raise SetupError("ROWLEDGER_UPLOADS names no object storage.")
    store.prepare()


if __name__ == "__main__":
    main()
