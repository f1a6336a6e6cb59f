"""One kill of each part of a whole Airflow, in the middle of a batch; `make chaos` has many (faults/airflow_kills.py)."""

from __future__ import annotations

from typing import Any

import pytest
from engine import Engine
from faults import airflow_kills

# Where in the batch each kind strikes: early, in the middle and late, while validating and while loading.
MOMENTS = {
    "scheduler": ("validated_records", 0.4),
    "idle worker": ("validated_records", 0.1),
    "supervisor": ("loaded_records", 0.6),
    "task": ("loaded_records", 0.3),
    "API server": ("validated_records", 0.7),
    "DAG processor": ("loaded_records", 0.1),
    "PostgreSQL": ("loaded_records", 0.5),
}


@pytest.fixture(scope="module")
def expected(engine: Engine) -> list[Any]:
    return airflow_kills.undisturbed(engine)


@pytest.fixture(autouse=True)
def _whole(engine: Engine) -> None:
    airflow_kills.settle(engine)


@pytest.mark.parametrize("kind", airflow_kills.KINDS)
def test_a_batch_outlives_the_kill_of_a_part_of_airflow_without_a_click(
    kind: str, engine: Engine, expected: list[Any]
) -> None:
    mark, share = MOMENTS[kind]
    kill = airflow_kills.kill(engine, kind, f"{kind.replace(' ', '')}-", mark, share, expected)
    assert kill.violations == []
    assert kill.recovery < 60
