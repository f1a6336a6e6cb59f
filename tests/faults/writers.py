"""Two live writers: a worker is stopped, another takes over, and the first is woken. The loser writes nothing more."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Collection

from faults.harness import Life, Prepared, Trial, exactly, kill
from faults.nursery import FENCED, GONE
from rowledger import batches, db

LEASE_SECONDS = 1


def two_tries(prepared: Prepared, first: int, second: int) -> Trial:
    """One try is stopped after its commit number ``first``, then another after its commit number ``second``; the first
    is woken and goes on to its end, then the second."""
    began, trial = time.monotonic(), Trial(lives=2)
    with prepared.server.copy(prepared.database(0)) as name:
        life = Life(prepared, name)
        with contextlib.closing(db.connect(prepared.server.url(name))) as watching:
            pids = [_stopped(life, stop_after=first), _stopped(life, stop_after=second)]
            life.note("fault", "0 two tries at once")
            codes = [_wake(trial, life, pid, watching) for pid in pids]
        if 0 not in codes or not set(codes) <= {0, FENCED}:
            trial.violations.append(f"the two tries ended with {codes}")
        prepared.judge(trial, life, name)
    trial.seconds = time.monotonic() - began
    return trial


def outlived(prepared: Prepared, ends: Collection[int] = (0, FENCED, GONE), **stop: int) -> Trial:
    """A process is stopped for longer than its lease. Another run is given the batch and works it off; then the first
    is woken, writes nothing and ends with one of some codes."""
    began, trial = time.monotonic(), Trial(lives=2)
    inside = "stop_inside" in stop
    with prepared.server.copy(prepared.database(0)) as name:
        life = Life(prepared, name, {"lease_seconds": LEASE_SECONDS})
        with contextlib.closing(db.connect(prepared.server.url(name))) as watching:
            pid = _stopped(life, **stop)
            life.note("fault", f"0 stopped {'inside a transaction' if inside else 'between transactions'}")
            _given_to_another(watching)
            if (code := life.run(0)) != 0:
                trial.violations.append(f"the other run ended with {code}")
            before = exactly(watching)
            if (code := _wake(trial, life, pid, watching)) not in ends:
                trial.violations.append(f"the one that was woken ended with {code}")
            if exactly(watching) != before:
                trial.violations.append("the one that was woken has written")
        prepared.judge(trial, life, name)
    trial.seconds = time.monotonic() - began
    return trial


def _stopped(life: Life, **job: object) -> int:
    """Start a try and wait until it has stopped, or ended; its pid."""
    pid = life.start(0, **job)
    life.stopped(pid)
    return pid


def _given_to_another(connection: db.Connection) -> None:
    """Ask for work as another run until the lease is over."""
    with db.transaction(connection) as cursor:
        open_batch = db.row(
            cursor,
            "SELECT max(seqno) AS seqno, max(kind) AS kind FROM import_batch WHERE status <> 'executed'",
        )
    assert open_batch
    if open_batch["seqno"] is None:
        return  # all was done before the process was stopped
    give_up = time.monotonic() + 20 * LEASE_SECONDS
    while not batches.reserve(connection, open_batch["kind"], "another run", 1, LEASE_SECONDS):
        assert time.monotonic() < give_up, "the lease is never over"
        time.sleep(0.05)


def _wake(trial: Trial, life: Life, pid: int, watching: db.Connection) -> int:
    """Let a stopped try go on to its end; its exit code. If it has lost, it writes nothing more and says so."""
    before, claims = exactly(watching), _claims(life, pid)
    kill(pid, signal.SIGCONT)
    code = life.wait(pid)
    if code == FENCED:
        if claims == _claims(life, pid) and exactly(watching) != before:
            trial.violations.append("the loser has written")
        if not any("was taken over by another worker" in line.rest for line in life.lines("fenced", pid)):
            trial.violations.append("the loser did not say why it stopped")
    return code


def _claims(life: Life, pid: int) -> int:
    return sum(line.rest.endswith("batches.claim") for line in life.lines("point", pid))
