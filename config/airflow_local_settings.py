"""Keeps workers warm: Airflow executes this file at the start of every one of its processes.

Great Expectations takes seconds to import, and so does what speaks to object storage. Tasks are forked, so what the process that forks them has imported costs
them nothing. Processes that fork no tasks (DAG processor, API server, triggerer, commands) must not pay for it.
"""

from __future__ import annotations

import sys

__all__: list[str] = []  # Airflow would take every name from here as a setting of its own


def _forks_tasks(arguments: list[str], executor: str) -> bool:
    """Whether a process with this command line forks tasks."""
    if arguments[:1] == ["scheduler"]:
        return "LocalExecutor" in executor
    return arguments[:2] == ["celery", "worker"]


def _executor() -> str:
    from airflow.configuration import conf

    return str(conf.get("core", "executor"))


if _forks_tasks(sys.argv[1:], _executor()):
    from rowledger import suites
    from rowledger.airflow import storage

    suites.warm()
    storage.warm()
