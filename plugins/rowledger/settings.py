"""Settings from the environment; every one has a default that works on a fresh machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rowledger.errors import SetupError

MAX_BATCHES_PER_RUN = 1024  # Airflow maps a task over no more ([core] max_map_length)


@dataclass(frozen=True)
class Settings:
    """Where things are and how they are cut.

    ``database_url`` None means the embedded server under ``home``. ``validate_chunk`` and ``load_chunk`` are
    records per transaction, ``load_lanes`` how many connections load a batch of more than one such chunk;
    ``lease_seconds`` is how long a batch belongs to a worker that says nothing; after ``max_attempts`` workers in a row
    that were lost at a batch it fails.
    """

    home: Path
    templates: Path
    database_url: str | None = None
    validate_chunk: int = 50_000
    load_chunk: int = 50_000
    load_lanes: int = 2
    lease_seconds: int = 300
    batches_per_run: int = 500
    max_attempts: int = 5
    max_upload_bytes: int = 2_000_000_000

    @property
    def uploads(self) -> Path:
        return self.home / "uploads"

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
        database_url=os.environ.get("ROWLEDGER_DATABASE_URL") or None,
        validate_chunk=_positive("ROWLEDGER_VALIDATE_CHUNK", Settings.validate_chunk),
        load_chunk=_positive("ROWLEDGER_LOAD_CHUNK", Settings.load_chunk),
        load_lanes=_positive("ROWLEDGER_LOAD_LANES", Settings.load_lanes),
        lease_seconds=_positive("ROWLEDGER_LEASE_SECONDS", Settings.lease_seconds),
        batches_per_run=_positive("ROWLEDGER_BATCHES_PER_RUN", Settings.batches_per_run, MAX_BATCHES_PER_RUN),
        max_attempts=_positive("ROWLEDGER_MAX_ATTEMPTS", Settings.max_attempts),
        max_upload_bytes=_positive("ROWLEDGER_MAX_UPLOAD_BYTES", Settings.max_upload_bytes),
    )


def _positive(name: str, default: int, most: int | None = None) -> int:
    value = os.environ.get(name, str(default))
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        raise SetupError(f"{name} must be a whole number above 0, not {value!r}.")
    if most is not None and int(value) > most:
        raise SetupError(f"{name} must be {most:,} at most, not {value}.")
    return int(value)
