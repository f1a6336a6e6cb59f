"""The way of a batch from file to balanced ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rowledger.model import Batch

Submit, Work = Callable[..., int], Callable[[int], Batch]
Became = Callable[[int], list[tuple[Any, ...]]]


def test_every_record_of_a_file_gets_its_outcome(submit: Submit, work: Work, became: Became) -> None:
    seqno = submit("F1;02-02-2026;20;;\nF9;02-02-2026;20;;\nF2;31-02-2026;20;;\nF2;1\n", "result_codes")
    batch = work(seqno)
    assert became(seqno) == [
        (1, "updated"),
        (2, "rejected", "unknown_contract"),
        (3, "rejected", "format"),
        (4, "rejected", "too_few_fields"),
    ]
    assert batch.succeeded
