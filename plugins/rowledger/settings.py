"""Settings from the environment; every one has a default that works on a fresh machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rowledger.errors import SetupError
from rowledger.stores import Store

MAX_SHARES = 1024  # Airflow maps a task over no more ([core] max_map_length)


@dataclass(frozen=True)
class Settings:
    """Where things are and how they are cut.

    ``database_url`` None means the embedded server under ``home``. ``validate_chunk`` and ``load_chunk`` are
    records per transaction, ``load_lanes`` how many connections load a batch of more than one such chunk;
    a file is worked in as many parts of about ``part_bytes`` as it has, ``max_parts`` at most, each in a task of its own;
    ``lease_seconds`` is how long a batch belongs to a worker that says nothing; after ``max_attempts`` workers in a row
    that were lost at a batch it fails. Whoever asks for approval looks every ``approval_seconds`` whether it was given
    elsewhere. ``uploads_url`` is the place in object storage where uploads are kept, ``store``
    what speaks to it; None means a folder under ``home``.
    """

    home: Path
    templates: Path
    database_url: str | None = None
    validate_chunk: int = 50_000
    load_chunk: int = 50_000
    load_lanes: int = 2
    part_bytes: int = 250_000_000
    max_parts: int = 4
    lease_seconds: int = 300
    batches_per_run: int = 500
    max_attempts: int = 5
    max_upload_bytes: int = 2_000_000_000
    feeds: Path = Path("include/feeds")
    approval_seconds: int = 300
    uploads_url: str | None = None
    store: Store | None = None

    @property
    def uploads(self) -> Path | Store:
        """Where uploads are kept. Raises SetupError if that is object storage and nothing speaks to it."""
        if self.uploads_url and not self.store:
            raise SetupError(
                f"Uploads are kept in {self.uploads_url}, which can only be reached with Airflow."
            )
        return self.store or self.home / "uploads"

    @property
    def retention(self) -> Path:
        """Beside the folder of templates."""
        return self.templates.parent / "retention.yml"

    @property
    def scratch(self) -> Path:
        return self.home / "scratch"


def from_environment() -> Settings:
    """Read ``ROWLEDGER_*``; relative paths are from the working directory. Raises SetupError."""
    return Settings(
        home=Path(os.environ.get("ROWLEDGER_HOME", ".rowledger")).absolute(),
        templates=Path(os.environ.get("ROWLEDGER_TEMPLATES", "include/templates")).absolute(),
        approval_seconds=_positive("ROWLEDGER_APPROVAL_SECONDS", Settings.approval_seconds),
        feeds=Path(os.environ.get("ROWLEDGER_FEEDS", Settings.feeds)).absolute(),
        database_url=os.environ.get("ROWLEDGER_DATABASE_URL") or None,
        validate_chunk=_positive("ROWLEDGER_VALIDATE_CHUNK", Settings.validate_chunk),
        load_chunk=_positive("ROWLEDGER_LOAD_CHUNK", Settings.load_chunk),
        load_lanes=_positive("ROWLEDGER_LOAD_LANES", Settings.load_lanes),
        part_bytes=_positive("ROWLEDGER_PART_BYTES", Settings.part_bytes),
        max_parts=_positive("ROWLEDGER_MAX_PARTS", Settings.max_parts),
        lease_seconds=_positive("ROWLEDGER_LEASE_SECONDS", Settings.lease_seconds),
        batches_per_run=_positive("ROWLEDGER_BATCHES_PER_RUN", Settings.batches_per_run, MAX_SHARES),
        max_attempts=_positive("ROWLEDGER_MAX_ATTEMPTS", Settings.max_attempts),
        max_upload_bytes=_positive("ROWLEDGER_MAX_UPLOAD_BYTES", Settings.max_upload_bytes),
        uploads_url=_url("ROWLEDGER_UPLOADS"),
    )


def _url(name: str) -> str | None:
    value = os.environ.get(name) or None
    if value and not re.match(r"[a-z][a-z0-9]*://[^/]", value):
        raise SetupError(f"{name} must be a URL such as s3://bucket/folder, not {value!r}.")
    return value


def _positive(name: str, default: int, most: int | None = None) -> int:
    value = os.environ.get(name, str(default))
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        raise SetupError(f"{name} must be a whole number above 0, not {value!r}.")
    if most is not None and int(value) > most:
        raise SetupError(f"{name} must be {most:,} at most, not {value}.")
    return int(value)
