"""The environment of an Airflow on this machine; tests/airflow runs one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rowledger.airflow import local


@pytest.fixture
def place(tmp_path: Path) -> local.Place:
    return local.Place(tmp_path, tmp_path / "logs", "postgresql:///airflow", 8080)


def test_connections_that_were_kept_can_be_read_after_another_start(place: local.Place) -> None:
    first, second = (local.environment(place, {})["AIRFLOW__CORE__FERNET_KEY"] for _ in range(2))
    assert first == second
    assert [stat.S_IMODE(path.stat().st_mode) for path in place.home.iterdir()] == [0o600]


def test_connections_and_metrics_of_the_caller_count_and_nothing_else_of_his_airflow(
    place: local.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {"AIRFLOW_CONN_AGENCY": "{}", "AIRFLOW__METRICS__STATSD_ON": "True"}
    for name, value in (theirs | {"AIRFLOW__CORE__EXECUTOR": "none", "AIRFLOW_HOME": "/elsewhere"}).items():
        monkeypatch.setenv(name, value)
    given = local.environment(place, {"AIRFLOW_CONN_ROWLEDGER": "ours"})
    assert {name: given[name] for name in theirs} == theirs
    assert given["AIRFLOW__CORE__EXECUTOR"] == "rowledger.airflow.executor.LocalExecutor"
    assert (given["AIRFLOW_HOME"], given["AIRFLOW_CONN_ROWLEDGER"]) == (str(place.home), "ours")
