"""What leaves the ledger for a spreadsheet is shown there and never computed."""

from __future__ import annotations

import pytest

from rowledger.ledger import neutral


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+49", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠x", "'=1", "'", "'text"],
)
def test_a_cell_that_would_be_computed_gets_one_apostrophe(cell: str) -> None:
    assert neutral(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "text", " =1", "a=1", "1-1", "é", '"=1"', "007", "#N/A", "\u200b=1"])
def test_any_other_cell_stays_as_it_is(cell: str) -> None:
    assert neutral(cell) == cell
