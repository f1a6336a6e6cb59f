"""A server of its own for faults: a backend that is killed takes every session of its server along."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.harness import Server


@pytest.fixture(scope="package")
def faulty() -> Iterator[Server]:
    with Server() as server:
        yield server
