"""Settings come from the environment and have defaults that work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rowledger.errors import SetupError
from rowledger.settings import Settings, from_environment


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("ROWLEDGER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_any_setting_everything_is_under_the_working_directory(tmp_path: Path) -> None:
    settings = from_environment()
    assert settings == Settings(
        home=tmp_path / ".rowledger",
        templates=tmp_path / "include" / "templates",
        feeds=tmp_path / "include" / "feeds",
    )
    assert settings.uploads == tmp_path / ".rowledger" / "uploads"
    assert settings.scratch == tmp_path / ".rowledger" / "scratch"
    assert list(tmp_path.iterdir()) == []


def test_every_setting_can_be_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {
        "HOME": "data", "TEMPLATES": "/templates", "DATABASE_URL": "postgresql://server/x", "VALIDATE_CHUNK": "7",
        "LOAD_CHUNK": "8", "LOAD_LANES": "3", "LEASE_SECONDS": "9", "BATCHES_PER_RUN": "10", "PART_BYTES": "12", "MAX_PARTS": "13",
        "FEEDS": "/feeds", "APPROVAL_SECONDS": "11",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"ROWLEDGER_{name}", value)
    assert from_environment() == Settings(
        tmp_path / "data",
        Path("/templates"),
        "postgresql://server/x",
        7,
        8,
        3,
        lease_seconds=9,
        batches_per_run=10,
        part_bytes=12,
        max_parts=13,
        feeds=Path("/feeds"),
        approval_seconds=11,
    )


def test_an_empty_address_means_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWLEDGER_DATABASE_URL", "")
    assert from_environment().database_url is None


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "many", "1e3", " 7", "７", "1_000"])
def test_a_number_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ROWLEDGER_LOAD_CHUNK", value)
    with pytest.raises(
        SetupError, match=f"ROWLEDGER_LOAD_CHUNK must be a whole number above 0, not '{value}'"
    ):
        from_environment()


def test_no_run_takes_on_more_batches_than_airflow_maps_a_task_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWLEDGER_BATCHES_PER_RUN", "1024")
    assert from_environment().batches_per_run == 1024
    monkeypatch.setenv("ROWLEDGER_BATCHES_PER_RUN", "1025")
    with pytest.raises(SetupError, match="ROWLEDGER_BATCHES_PER_RUN must be 1,024 at most, not 1025"):
        from_environment()


def test_uploads_in_object_storage_need_a_url_and_somebody_who_speaks_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROWLEDGER_UPLOADS", "s3://bucket/folder")
    settings = from_environment()
    assert settings.uploads_url == "s3://bucket/folder"
    with pytest.raises(SetupError, match="Uploads are kept in s3://bucket/folder, which can only be reached"):
        _ = settings.uploads


@pytest.mark.parametrize("value", ["uploads", "/srv/uploads", "s3://", "s3:/bucket", "://bucket"])
def test_a_place_for_uploads_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ROWLEDGER_UPLOADS", value)
    with pytest.raises(SetupError, match="ROWLEDGER_UPLOADS must be a URL such as s3://bucket/folder, not"):
        from_environment()
