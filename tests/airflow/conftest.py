"""One real Airflow for the whole run, on the throw-away PostgreSQL; what kills its parts comes last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engine import Engine, started


@pytest.fixture(scope="session")
def engine(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with started(server, tmp_path_factory.mktemp("airflow")) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    airflow = [item for item in items if item.path.parent.name == "airflow"]
    places = [place for place, item in enumerate(items) if item in airflow]
    airflow.sort(key=lambda item: item.path.stem == "test_kills")
    for place, item in zip(places, airflow, strict=True):
        items[place] = item
