"""docker-compose.yml: no container engine runs where the tests do, so it is parsed and held against what it names.

tests/airflow/test_many_machines.py runs its commands with its environment.
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from rowledger import feeds, loading
from rowledger.airflow import secret_files
from rowledger.airflow.local import COMPONENTS, RECOVERY

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = ("secrets", "init")
LASTING = [name for name in SERVICES if name not in ONCE]
AIRFLOW = [*COMPONENTS, "worker"]
SECRETS = "/run/rowledger"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = [name for name, service in SERVICES.items() if service["image"] == "rowledger"]
COPIED = [
    source
    for sources in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for source in sources.split()
]


def mounts(service: str) -> list[str]:
    """The volumes of a service, each as source:target."""
    given = SERVICES[service].get("volumes", [])
    return [f"{one['source']}:{one['target']}" if isinstance(one, dict) else one for one in given]


def commands(service: str) -> list[str]:
    command = SERVICES[service].get("command", [])
    assert isinstance(command, list)
    return command


def default(text: str) -> str:
    """What compose makes of ${NAME:-default} if nobody says anything."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_every_component_of_the_local_airflow_is_a_service_that_runs_the_same_command() -> None:
    for component in COMPONENTS:
        assert commands(component) == ["airflow", component]
    assert commands("worker") == ["airflow", "celery", "worker"]


@pytest.mark.parametrize("service", AIRFLOW)
def test_what_lets_the_local_airflow_recover_is_set_for_every_container_too(service: str) -> None:
    environment = SERVICES[service]["environment"]
    assert {name: environment.get(f"AIRFLOW__{name}") for name in RECOVERY} == RECOVERY
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"


def test_no_more_tasks_are_queued_up_than_the_workers_have_places() -> None:
    environment = {name: default(value) for name, value in SERVICES["scheduler"]["environment"].items()}
    places = SERVICES["worker"]["deploy"]["replicas"] * int(
        environment["AIRFLOW__CELERY__WORKER_CONCURRENCY"]
    )
    assert int(environment["AIRFLOW__CORE__PARALLELISM"]) == places
    assert int(environment["AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT"]) == places


@pytest.mark.parametrize("service", LASTING)
def test_what_ends_is_started_again_what_is_ill_is_seen_and_nobody_takes_the_machine(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert SERVICES[service]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert set(SERVICES[service]["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_runs_as_root(service: str) -> None:
    user = str(SERVICES[service].get("user", "")).partition(":")[0]
    assert (SERVICES[service]["image"] == "rowledger" and not user) or user not in ("", "root", "0")
    assert not SERVICES[service].get("privileged")


def test_nothing_in_the_image_runs_as_root() -> None:
    assert DOCKERFILE.rindex("USER rowledger") > DOCKERFILE.rindex("RUN ")
    assert "--uid 50000" in DOCKERFILE
    assert {SERVICES[name]["user"] for name in ("redis", "objects")} == {"50000:50000"}, "reads what it made"


def test_services_depend_only_on_services_that_exist_and_wait_for_what_ends_or_is_healthy() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if name in ONCE else "service_healthy"
            assert how == {"condition": wanted}, name


def test_volumes_and_configs_that_are_named_are_declared() -> None:
    for name, service in SERVICES.items():
        assert {default(mount).partition(":")[0] for mount in mounts(name)} <= set(COMPOSE["volumes"])
        assert {config["source"] for config in service.get("configs", [])} <= set(COMPOSE["configs"])


def test_compose_up_is_the_only_command() -> None:
    """Nothing has to be said before: every variable of the file has a default."""
    assert re.findall(r"(?<!\$)\$\{\w+(?!\w|:-)[^}]*\}", TEXT) == []


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_is_in_an_environment(service: str) -> None:
    given = SERVICES[service].get("environment", {})
    for name, value in given.items():
        if re.search(r"PASSWORD|SECRET|KEY|BROKER_URL|CREDENTIALS|PGPASS", name):
            assert value.removeprefix("cat ").startswith(f"{SECRETS}/"), name
        assert not re.search(r"://[^/@]*:[^/@]*@", value), name


def test_no_secret_is_in_the_image() -> None:
    assert not re.search(r"(?i)(password|secret|key)\s*=", DOCKERFILE)


def is_sent(path: str) -> bool:
    """Whether a file of the folder is handed over to the build: the last line of .dockerignore that it matches decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if line and not line.startswith("#") and re.fullmatch(f"{pattern}(/.*)?", path):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize("source", COPIED)
def test_what_the_image_copies_is_handed_over_to_the_build(source: str) -> None:
    assert is_sent(source)
    if (ROOT / source).is_dir():
        assert is_sent(f"{source}/any/file.py")
        assert not is_sent(f"{source}/any/__pycache__/file.pyc")
        assert not is_sent(f"{source}/rowledger.egg-info/SOURCES.txt")


def test_nothing_else_is_handed_over_to_the_build() -> None:
    """A whole checkout has secrets, data and history in it, whatever they are called."""
    beside = {path.name for path in ROOT.iterdir()} - set(COPIED)
    beside |= {".env", "secrets", ".rowledger", "results.csv"}
    assert [name for name in beside if is_sent(name) or is_sent(f"{name}/file")] == []


def test_the_folder_of_secrets_of_ones_own_that_the_docs_name_is_not_committed() -> None:
    (folder,) = set(re.findall(r"ROWLEDGER_SECRETS=\./(\w+)", (ROOT / "docs" / "scaling.md").read_text()))
    assert f"/{folder}/" in (ROOT / ".gitignore").read_text().split()


def test_one_service_builds_the_image_for_all() -> None:
    """Builds side by side fail at the name of the image, and no registry has it."""
    assert [name for name in OURS if "build" in SERVICES[name]] == ["secrets"]
    others = {SERVICES[name].get("pull_policy") for name in OURS if name != "secrets"}
    assert others == {"never"}


def test_the_user_of_the_image_may_read_what_a_private_checkout_brings() -> None:
    """COPY keeps the modes, and the owner is root."""
    readable = DOCKERFILE.index("RUN chmod -R a+rX .\n")
    assert DOCKERFILE.rindex("\nCOPY ") < readable < DOCKERFILE.index("USER rowledger")
    assert "WORKDIR /opt/rowledger\n" in DOCKERFILE


@pytest.mark.parametrize("service", OURS)
def test_containers_of_the_image_call_only_programs_that_it_has(service: str) -> None:
    """The base image is slim: no curl, no ps, no client of PostgreSQL or Redis."""
    called = {commands(service)[0]}
    if check := SERVICES[service].get("healthcheck"):
        kind, *words = check["test"]
        called.add(words[0] if kind == "CMD" else words[0].split()[0])
    assert called <= {"airflow", "bash", "celery", "python", "test"}


def test_only_the_service_that_makes_the_secrets_may_write_them() -> None:
    for name in SERVICES:
        secret = [mount for mount in mounts(name) if SECRETS in mount]
        assert secret == [f"${{ROWLEDGER_SECRETS:-secrets}}:{SECRETS}{'' if name == 'secrets' else ':ro'}"], (
            name
        )


def test_the_object_storage_may_write_into_its_volume() -> None:
    """The image has another owner of the folder; the volume gets that of the first folder it is mounted at."""
    assert "objects:/opt/airflow/logs" in mounts("secrets")
    (data,) = (one for one in SERVICES["objects"]["volumes"] if isinstance(one, dict))
    assert data["volume"] == {"nocopy": True}
    assert re.search(r"for folder in .* /opt/airflow/logs .*\n.*chown rowledger", DOCKERFILE)


def test_the_folders_of_the_feeds_that_come_along_are_made_once_and_shared_by_all_workers() -> None:
    found, errors = feeds.read_feeds(ROOT / "include" / "feeds", loading.kinds())
    assert (errors, [feed.name for feed in found]) == ([], ["call_centre"])
    for feed in found:
        assert f'mkdir -p "$$ROWLEDGER_HOME/{feed.place}"' in commands("init")[-1]
    for service in ("init", "worker"):
        assert "feeds:/var/lib/rowledger/feeds" in mounts(service)
    assert re.search(r"for folder in .* /var/lib/rowledger/feeds .*\n.*chown rowledger", DOCKERFILE)
    assert "ROWLEDGER_HOME=/var/lib/rowledger " in DOCKERFILE


def test_every_secret_file_that_is_read_is_made(tmp_path: Path) -> None:
    secret_files.make(tmp_path)
    read = set(re.findall(rf"{SECRETS}/(\w[\w.]*)", TEXT))
    assert read <= {path.name for path in tmp_path.iterdir()}
    assert {"pgpass", "broker_url", "aws_credentials", "redis.conf"} <= read


def test_secret_files_are_for_their_owner_and_group_and_stay(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    own = tmp_path / "admin_password"
    own.write_text("of my own")
    own.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(own, -1, 12345)
    secret_files.make(tmp_path)
    first = {path.name: path.read_text() for path in tmp_path.iterdir()}
    secret_files.make(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == first
    assert first["admin_password"] == "of my own"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes.pop("pgpass") == 0o600, "libpq does not read it otherwise"
    assert set(modes.values()) == {0o440}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
    assert {path.stat().st_gid for path in tmp_path.iterdir()} == {os.getgid()}, "the database server's, too"
    assert len({text for name, text in first.items() if "." not in name}) == len(
        [n for n in first if "." not in n]
    )


@pytest.mark.parametrize("name", ["rowledger_database_password", "redis_password", "object_storage_key"])
def test_a_secret_of_ones_own_that_would_be_read_differently_elsewhere_is_refused_before_it_is_used(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("it's: #1\n")
    with pytest.raises(SystemExit, match=f"{name} has characters that do not fit here: letters, digits"):
        secret_files.make(tmp_path)
    used = [path.name for path in tmp_path.iterdir() if "it's" in path.read_text()]
    assert used == [name]
    (tmp_path / name).write_text("Fits.here~1-2_3\n")
    secret_files.make(tmp_path)


def test_modules_that_containers_run_exist() -> None:
    modules = {
        word
        for name in SERVICES
        for word in " ".join(map(str, commands(name))).split()
        if "rowledger." in word
    }
    assert modules == {"rowledger.airflow.secret_files", "rowledger.airflow.storage"}
    assert all(importlib.util.find_spec(module) for module in modules)


def test_the_database_is_new_enough_for_what_connect_demands() -> None:
    from rowledger.db import MINIMUM_SERVER_VERSION

    version = int(SERVICES["postgres"]["image"].removeprefix("postgres:"))
    assert version * 10000 >= MINIMUM_SERVER_VERSION


@pytest.mark.parametrize("folder", re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE))
def test_the_image_copies_what_exists(folder: str) -> None:
    assert (ROOT / folder).is_dir()


@pytest.mark.parametrize("file", re.findall(r"\S+\.(?:txt|lock|toml|md)\b", DOCKERFILE))
def test_the_image_copies_files_that_exist(file: str) -> None:
    assert (ROOT / file).is_file()
