"""Airflow's LocalExecutor, for schedulers that somebody starts again when they end: a container engine, systemd, ``local``.

Its workers share pipes and their locks. One that is killed may take a lock with it that all others wait for, or a task
that it had taken from the pipe and not begun: then nothing is ever run again, or that task is not, and nobody is told.
So a scheduler that has lost a worker leaves, and its successor starts its tasks anew; they go on where they were.
"""

from __future__ import annotations

import os

from airflow.executors import local_executor


class LocalExecutor(local_executor.LocalExecutor):
    """Leaves, and its scheduler with it, when one of its workers has been killed."""

    def _check_workers(self) -> None:
        killed = [worker.pid for worker in self.workers.values() if worker.exitcode]
        if killed:
            self.log.error("A worker was killed (pid %s); the scheduler leaves, to be started again.", killed)
            for worker in self.workers.values():
                worker.kill()
            os._exit(1)  # an orderly end would wait for the workers
        super()._check_workers()  # type: ignore[no-untyped-call]
