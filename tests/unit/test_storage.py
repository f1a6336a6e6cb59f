"""Uploads in object storage whose library is not there; tests/airflow/test_files.py speaks to a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowledger.airflow import storage
from rowledger.errors import SetupError, TryAgain


@pytest.mark.parametrize(
    ("trouble", "expected", "sentence"),
    [
        (ModuleNotFoundError("No module named 's3fs'"), SetupError, "is not installed: No module named 's3fs'"),
        (ConnectionError("refused by 10.0.0.1"), TryAgain, r"cannot be reached or refuses \(ConnectionError\)"),
    ],
)  # fmt: skip
def test_a_library_that_is_missing_is_told_from_a_store_that_is_away(
    trouble: Exception,
    expected: type[Exception],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def at(_: str) -> None:
        raise trouble

    monkeypatch.setattr(storage, "_at", at)
    with pytest.raises(expected, match=sentence):
        storage.ObjectStore("s3://bucket", tmp_path).prepare()
