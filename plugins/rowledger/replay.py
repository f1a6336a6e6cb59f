"""Parked records -> their targets, once the code or contract they wait for exists.

A chunk is one transaction: lock the kind and domain, merge by the rules of an import, note what became of each record.
A replay that was killed goes on where it stopped; of two at once, the second finds less to do. It does not matter
whether new batches are loaded before or after: history is ordered by date, batch and record, not by arrival.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial

from rowledger import batches, loading, parked, pipeline
from rowledger.db import transaction
from rowledger.errors import SetupError
from rowledger.model import Batch, Outcome
from rowledger.pipeline import Worker
from rowledger.templates import ImportTemplate

log = logging.getLogger("rowledger")


def replay(worker: Worker, kind: str | None = None) -> dict[int, Counter[str]]:
    """Replay what is due of a kind, or of all; returns, for each batch, how many records had which outcome.

    A batch that cannot be replayed keeps no other waiting; the first such error is raised when the others are done.
    """
    done: dict[int, Counter[str]] = {}
    problems: list[SetupError] = []
    for one in [kind] if kind else sorted(loading.kinds()):
        for seqno in parked.batches_due(worker.connection, one):
            try:
                done[seqno] = _replay_batch(worker, batches.get(worker.connection, seqno))
            except SetupError as error:
                log.error("Import batch %s: its parked records cannot be replayed: %s", seqno, error)
                problems.append(error)
    if problems:
        raise problems[0]
    return done


def in_words(outcomes: Counter[str]) -> str:
    """How many records were replayed and what became of them."""
    count = outcomes.total()
    told = ", ".join(f"{outcomes[outcome]:,} {outcome}" for outcome in Outcome if outcomes[outcome])
    return f"{count:,} parked record{'s' * (count != 1)} replayed: {told}."


def _replay_batch(worker: Worker, batch: Batch) -> Counter[str]:
    template = pipeline.template_of(worker.connection, batch)
    outcomes: Counter[str] = Counter()
    key: str | None = None
    while (chunk := pipeline.again(worker, partial(_replay_chunk, worker, batch, template, key))) is not None:
        key, counts = chunk
        outcomes += counts
    return outcomes


def _replay_chunk(
    worker: Worker, batch: Batch, template: ImportTemplate, after: str | None
) -> tuple[str, Counter[str]] | None:
    """Replay one chunk; returns its last key and its outcomes, or None if there was nothing left."""
    with transaction(worker.connection) as cursor:
        loading.lock(cursor, batch)
        upto = loading.next_due_key(cursor, batch, after, worker.settings.load_chunk)
        if upto is None:
            return None
        counts = loading.replay(cursor, batch, template, after, upto)
    log.info("Import batch %s: %s more parked records replayed", batch.seqno, f"{counts.total():,}")
    return upto, counts
