"""The list of guards cannot rot: what it would take out is there, and so are the tests that must notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import guards
from faults.guards import GUARDS, ROOT, Guard

QUICK = [guard for guard in GUARDS if guard.test.startswith("tests/unit/")]


def names(guard: Guard) -> str:
    return guard.name


@pytest.mark.parametrize("guard", GUARDS, ids=names)
def test_what_would_be_taken_out_stands_there_exactly_once(guard: Guard) -> None:
    for change in guard.changes:
        assert (ROOT / change.file).read_text(encoding="utf-8").count(change.text) == 1, change
        assert change.text != change.instead


@pytest.mark.parametrize("guard", GUARDS, ids=names)
def test_the_test_that_must_notice_is_there(guard: Guard) -> None:
    file, _, name = guard.test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name.partition("[")[0] in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


def test_no_guard_is_named_twice() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS) >= 20


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    with guards.copied() as tree:
        yield tree


@pytest.mark.parametrize("guard", QUICK, ids=names)
def test_a_guard_that_is_removed_is_missed(guard: Guard, tree: Path) -> None:
    """The quick ones; `make guards` does all."""
    assert guards.without(tree, guard).colour == "red"


def test_a_test_that_does_not_notice_is_told_from_one_that_does_and_one_that_cannot_run(tree: Path) -> None:
    test = "unit/test_db.py::test_named_queries_are_read_by_name"
    code = ("db.py", '"40", "53", "57",', '"40", "57",')
    assert guards.without(tree, Guard("not noticed", test, code)).colour == "green"
    assert guards.without(tree, Guard("not there", test, ("db.py", "no such text", ""))).colour == "error"
    broken = Guard("not Python any more", test, ("db.py", "def connect(", "def def("))
    assert guards.without(tree, broken).colour == "error"
    assert (tree / "plugins/rowledger/db.py").read_bytes() == (ROOT / "plugins/rowledger/db.py").read_bytes()
