"""Kills at random: of processes, sessions and the server's own processes, while a batch is loaded in two lanes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import psycopg2

from faults.harness import Life, Prepared, Trial, kill
from faults.nursery import GONE

KILLS_PER_BATCH = 12
WHAT = {"random: process killed": 6, "random: session terminated": 2, "random: backend killed": 2}


def killed_at_random(prepared: Prepared, draw: random.Random) -> Trial:
    """Work a batch off from one of its steps on while it is killed again and again at random moments."""
    began, trial = time.monotonic(), Trial()
    step = draw.choices(
        range(len(prepared.steps)), [1 + prepared.commits(n) for n in range(len(prepared.steps))]
    )[0]
    with prepared.server.copy(prepared.database(step)) as name:
        life = Life(prepared, name)
        code = -signal.SIGKILL
        while code in (-signal.SIGKILL, GONE):
            prepared.server.wait_until_up()
            pid = life.start(step)
            trial.lives += 1
            if trial.lives <= KILLS_PER_BATCH:
                _kill_some_time(prepared, life, name, pid, step, draw)
            code = life.wait(pid)
            step = life.step(step)
        if code != 0:
            trial.violations.append(f"a worker ended with {code}")
        prepared.judge(trial, life, name)
    trial.seconds = time.monotonic() - began
    return trial


def _kill_some_time(
    prepared: Prepared, life: Life, name: str, pid: int, step: int, draw: random.Random
) -> None:
    what = draw.choices(list(WHAT), list(WHAT.values()))[0]
    if prepared.server.nursery.ended(pid, draw.uniform(0, 0.6 * prepared.seconds[step])):
        return
    life.note("fault", f"0 {what}")
    if what == "random: process killed":
        kill(pid)
        return
    with contextlib.suppress(psycopg2.OperationalError):  # nothing to kill: the process is not connected
        pids = _sessions(prepared, name)
        if what == "random: session terminated" and pids:
            prepared.server.execute(f"SELECT pg_terminate_backend({draw.choice(pids)})")
        elif pids:
            kill(draw.choice(pids), signal.SIGKILL)


def _sessions(prepared: Prepared, name: str) -> list[int]:
    with contextlib.closing(psycopg2.connect(prepared.server.url("postgres"))) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", (name,))
        return [pid for (pid,) in cursor.fetchall() if pid != os.getpid()]
