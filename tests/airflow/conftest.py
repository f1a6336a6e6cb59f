"""One real Airflow for the whole run, on the throw-away PostgreSQL; what has one of its own comes first, what kills its parts last."""

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
    order = {"test_many_machines": -1, "test_kills": 1}
    airflow.sort(key=lambda item: order.get(item.path.stem, 0))
    for place, item in zip(places, airflow, strict=True):
        items[place] = item
