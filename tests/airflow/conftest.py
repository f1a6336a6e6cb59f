"""One real Airflow for the whole run, on the throw-away PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engine import Engine, started


@pytest.fixture(scope="session")
def engine(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with started(server, tmp_path_factory.mktemp("airflow")) as running:
        yield running
