"""docker-compose.yml: no container engine runs where the tests do, so it is parsed and held against what it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_every_component_of_the_local_airflow_is_a_service_that_runs_the_same_command() -> None:
    from rowledger.airflow.local import COMPONENTS

    for component in COMPONENTS:
        assert COMPOSE["services"][component]["command"] == ["airflow", component]


def test_what_lets_the_local_airflow_recover_is_set_for_every_container_too() -> None:
    from rowledger.airflow.local import COMPONENTS, RECOVERY

    for component in COMPONENTS:
        service = COMPOSE["services"][component]
        assert {name: service["environment"].get(f"AIRFLOW__{name}") for name in RECOVERY} == RECOVERY
        assert service["restart"] == "unless-stopped"
    assert COMPOSE["services"]["postgres"]["restart"] == "unless-stopped"


def test_services_depend_only_on_services_that_exist() -> None:
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])


def test_no_secret_has_a_value_or_a_default_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name in ("POSTGRES_PASSWORD", "FERNET_KEY", "JWT_SECRET"):
        assert f"${{{name}:?" in text
        assert f"${{{name}:-" not in text
    assert not re.search(r"(?i)(password|secret|key)\s*=", DOCKERFILE)


def test_the_database_is_new_enough_for_what_connect_demands() -> None:
    from rowledger.db import MINIMUM_SERVER_VERSION

    version = int(COMPOSE["services"]["postgres"]["image"].removeprefix("postgres:"))
    assert version * 10000 >= MINIMUM_SERVER_VERSION


@pytest.mark.parametrize("folder", re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE))
def test_the_image_copies_what_exists(folder: str) -> None:
    assert (ROOT / folder).is_dir()


def test_nothing_in_the_image_runs_as_root() -> None:
    assert DOCKERFILE.rindex("USER rowledger") > DOCKERFILE.rindex("RUN ")
