"""Where kept files live, if not in a folder of this machine: what an object store has to do for the stations.

``rowledger.airflow.storage`` has the one that there is. It is handed in through the settings, so that nothing below
knows Airflow, and a folder needs nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol


class Store(Protocol):
    """An object store. Its methods raise TryAgain if it cannot be reached."""

    spool: Path  # the folder of this machine in which files arrive before they are kept

    def keep(self, file: Path, sha256: str) -> str:
        """Keep a whole file under its hash: it appears when all of it is there. Returns its address, a URL."""
        ...

    def address(self, sha256: str) -> str:
        """The URL of a kept file."""
        ...

    def kept(self) -> Iterator[tuple[str, int, float]]:
        """The SHA-256 of every kept file, its size in bytes, and when it was kept last, in seconds since 1970."""
        ...

    def kept_at(self, sha256: str) -> float | None:
        """When one file was kept last, as somebody else may have done a moment ago; None if it is not there."""
        ...

    def remove(self, sha256: str) -> bool:
        """Let a kept file go; whether it was there."""
        ...

    def opened(self, address: str) -> AbstractContextManager[BinaryIO]:
        """The bytes of a kept file. Raises FileError if it is gone."""
        ...
