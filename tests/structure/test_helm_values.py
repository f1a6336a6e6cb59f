"""deploy/helm-values.yml: helm does not run where the tests do, so it is parsed and held against the code and the chart's keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rowledger.airflow.local import RECOVERY

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "deploy" / "helm-values.yml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-airflow"]["environment"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# What the schema of the chart (1.22) knows at the top; it refuses other names.
KNOWN = {
    "airflowVersion",
    "apiSecretKeySecretName",
    "apiServer",
    "config",
    "createUserJob",
    "dagProcessor",
    "dags",
    "data",
    "defaultAirflowRepository",
    "defaultAirflowTag",
    "env",
    "executor",
    "fernetKeySecretName",
    "gid",
    "jwtSecretName",
    "migrateDatabaseJob",
    "postgresql",
    "redis",
    "scheduler",
    "secret",
    "securityContexts",
    "statsd",
    "triggerer",
    "uid",
    "volumeMounts",
    "volumes",
    "workers",
    "airflowLocalSettings",
}


def settings() -> dict[str, str]:
    return {
        f"{section}__{name}".upper(): str(value)
        for section, given in VALUES["config"].items()
        for name, value in given.items()
    }


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    else:
        yield str(value)


def test_every_name_at_the_top_is_one_of_the_chart() -> None:
    assert set(VALUES) <= KNOWN


def test_what_lets_airflow_recover_is_set_as_in_compose() -> None:
    assert {name: settings().get(name) for name in RECOVERY} == RECOVERY
    for name in ("TASK_QUEUED_TIMEOUT", "TASK_QUEUED_TIMEOUT_CHECK_INTERVAL", "NUM_STUCK_IN_QUEUED_RETRIES"):
        assert settings()[f"SCHEDULER__{name}"] == COMPOSE[f"AIRFLOW__SCHEDULER__{name}"]
    assert settings()["CORE__AUTH_MANAGER"] == COMPOSE["AIRFLOW__CORE__AUTH_MANAGER"]
    assert VALUES["executor"] == COMPOSE["AIRFLOW__CORE__EXECUTOR"]


def test_no_more_tasks_are_queued_up_than_the_workers_have_places() -> None:
    places = VALUES["workers"]["celery"]["replicas"] * VALUES["config"]["celery"]["worker_concurrency"]
    assert VALUES["config"]["core"]["parallelism"] == places
    assert VALUES["config"]["core"]["default_pool_task_slot_count"] == places


def test_the_version_is_that_of_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert f"\napache-airflow=={VALUES['airflowVersion']}\n" in lock


@pytest.mark.parametrize("name", ["DAGS_FOLDER", "PLUGINS_FOLDER"])
def test_folders_are_those_of_the_image(name: str) -> None:
    assert f"AIRFLOW__CORE__{name}={settings()[f'CORE__{name}']}" in DOCKERFILE


def test_scratch_is_where_the_image_has_its_home() -> None:
    (scratch,) = (mount["mountPath"] for mount in VALUES["volumeMounts"] if mount["name"] == "scratch")
    assert f"ROWLEDGER_HOME={scratch}" in DOCKERFILE


def test_volumes_that_are_mounted_are_declared() -> None:
    assert {mount["name"] for mount in VALUES["volumeMounts"]} == {
        volume["name"] for volume in VALUES["volumes"]
    }


def test_nothing_runs_as_root_with_the_user_of_the_image() -> None:
    assert VALUES["securityContexts"]["pod"]["runAsNonRoot"] is True
    assert f"--uid {VALUES['securityContexts']['pod']['runAsUser']} " in DOCKERFILE
    assert VALUES["securityContexts"]["containers"]["allowPrivilegeEscalation"] is False


def test_every_part_has_limits_of_memory() -> None:
    parts = [VALUES[name] for name in ("apiServer", "scheduler", "dagProcessor", "triggerer")]
    for part in [*parts, VALUES["workers"]["celery"]]:
        assert set(part["resources"]) == {"requests", "limits"}
        assert "memory" in part["resources"]["limits"]


def test_no_secret_is_in_the_values() -> None:
    for text in texts(VALUES):
        assert not re.search(r"://[^/@]*:[^/@]*@", text)
    assert all(not re.search("PASSWORD|KEY$|SECRET$|DATABASE_URL", one["name"]) for one in VALUES["env"])
    assert [one["envName"] for one in VALUES["secret"]] == ["ROWLEDGER_DATABASE_URL"]
