"""The benchmark of the desk asks every route: none is forgotten."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "desk.py"
    spec = importlib.util.spec_from_file_location("bench_desk", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_asks_every_route_of_the_desk(bench: ModuleType) -> None:
    assert bench.unasked(bench.desk("", Path())) == set()


@pytest.mark.parametrize(
    ("route", "asked", "found"),
    [("/", "?q=a", "/?q=a"), ("/batches/{seqno}/records", "7?after=3", "/batches/7/records?after=3"),
     ("/api/v1/templates/{name}/export.csv", "contacts/export.csv", "/api/v1/templates/contacts/export.csv"),
     ("/api/v1/contacts/{domain}/{key:path}", "DEMO/K1", "/api/v1/contacts/DEMO/K1")],
)  # fmt: skip
def test_a_question_goes_to_its_route(bench: ModuleType, route: str, asked: str, found: str) -> None:
    assert bench.address(route, asked) == found
