"""deploy/helm-values.yml: the chart cannot be had where the tests run, so it is parsed and held against the code, against
docker-compose.yml and against what a rendering of the chart has shown (docs/scaling.md says how to repeat it).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from rowledger.airflow.local import RECOVERY

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "deploy" / "helm-values.yml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
COMPOSE = SERVICES["worker"]["environment"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PARTS = {
    "scheduler": VALUES["scheduler"],
    "dag-processor": VALUES["dagProcessor"],
    "triggerer": VALUES["triggerer"],
    "worker": VALUES["workers"]["celery"],
}
# What the chart makes by itself, from Secrets and from the names of its services.
BY_THE_CHART = {
    "API__SECRET_KEY_CMD",
    "API_AUTH__JWT_SECRET_CMD",
    "CELERY__BROKER_URL_CMD",
    "CELERY__RESULT_BACKEND",
    "CORE__EXECUTION_API_SERVER_URL",
    "CORE__EXECUTOR",
    "CORE__FERNET_KEY_CMD",
    "DATABASE__SQL_ALCHEMY_CONN",
}
# What the schema of the chart (1.21) knows at the top; it refuses other names.
KNOWN = {
    "airflowVersion",
    "allowPodLaunching",
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


def test_every_setting_of_compose_that_the_chart_does_not_make_is_made_here() -> None:
    compose = {
        name.removeprefix("AIRFLOW__"): re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
        for name, value in COMPOSE.items()
        if name.startswith("AIRFLOW__")
    }
    ours = {name: settings().get(name) for name in compose.keys() - BY_THE_CHART}
    assert {n: v and v.lower() for n, v in ours.items()} == {n: compose[n].lower() for n in ours}


def test_no_number_is_so_great_that_helm_writes_an_exponent() -> None:
    """It reads numbers as floats and writes a million as 1e+06, which Airflow takes for no number."""
    for section, given in VALUES["config"].items():
        for name, value in given.items():
            assert not isinstance(value, int | float) or value < 1_000_000, f"[{section}] {name}"


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


def test_redis_does_not_run_as_root_either() -> None:
    pod = VALUES["redis"]["securityContexts"]["pod"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 0


def test_every_part_has_limits_of_memory() -> None:
    groomers = [part["logGroomerSidecar"] for part in PARTS.values()]
    others = [VALUES[name] for name in ("apiServer", "redis", "migrateDatabaseJob")]
    for part in [*PARTS.values(), *groomers, *others, VALUES["workers"]["kubernetes"]]:
        assert set(part["resources"]) == {"requests", "limits"}
        assert "memory" in part["resources"]["limits"]


@pytest.mark.parametrize("name", PARTS)
def test_probes_ask_what_compose_asks(name: str) -> None:
    """The chart would ask by a script of the official image, which ours does not have, and restart every pod for ever."""
    asked = " ".join(PARTS[name]["livenessProbe"]["command"]).removeprefix("sh -c ")
    compose = SERVICES[name]["healthcheck"]["test"][1].replace("$${HOSTNAME}", "$(hostname)")
    compose = compose.replace("check --job-type", "check --local --job-type").partition(" --hostname")[0]
    assert asked == compose
    assert PARTS[name].get("startupProbe", PARTS[name]["livenessProbe"]) == PARTS[name]["livenessProbe"]


GROOMER = PARTS["worker"]["logGroomerSidecar"]["args"]


def test_old_logs_go_and_new_ones_stay(tmp_path: Path) -> None:
    assert all(part["logGroomerSidecar"]["args"] == GROOMER for part in PARTS.values())
    old, new = tmp_path / "logs" / "dag" / "old.log", tmp_path / "logs" / "dag" / "new.log"
    new.parent.mkdir(parents=True)
    new.touch()
    old.touch()
    os.utime(old, times=(0, time.time() - 20 * 86400))
    often = [word.replace("sleep 3600", "sleep 0.1") for word in GROOMER]
    with groomer(often, tmp_path) as process:
        until(lambda: not old.exists() or process.poll() is not None)
        assert process.poll() is None
        assert new.exists()


def test_the_end_of_a_pod_does_not_wait_for_the_next_look_at_logs(tmp_path: Path) -> None:
    """The first process of a container is ended by a signal only if it says so."""
    with groomer(GROOMER, tmp_path) as process:
        until(lambda: psutil.Process(process.pid).children())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


@contextmanager
def groomer(command: list[str], home: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"AIRFLOW_HOME": str(home)}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_our_tables_are_there_before_anything_starts() -> None:
    job = VALUES["migrateDatabaseJob"]
    (script,) = job["args"][2:]
    ours, airflows = script.split(" && ")
    assert airflows == "airflow db migrate"  # what every pod waits for
    assert {ours, airflows} <= set(SERVICES["init"]["command"][2].splitlines())
    assert job["useHelmHooks"] is False
    assert job["jobAnnotations"]["helm.sh/hook"] == "post-install,pre-upgrade"


def test_pods_start_without_credentials_where_the_machines_have_the_rights() -> None:
    (uploads,) = (volume["secret"] for volume in VALUES["volumes"] if volume["name"] == "uploads")
    assert uploads["optional"] is True


def test_only_an_executor_that_makes_pods_may_make_pods() -> None:
    assert VALUES["allowPodLaunching"] is ("KubernetesExecutor" in VALUES["executor"])


def test_no_secret_is_in_the_values() -> None:
    for text in texts(VALUES):
        assert not re.search(r"://[^/@]*:[^/@]*@", text)
    assert all(not re.search("PASSWORD|KEY$|SECRET$|DATABASE_URL", one["name"]) for one in VALUES["env"])
    assert [one["envName"] for one in VALUES["secret"]] == ["ROWLEDGER_DATABASE_URL"]
