"""Workers as processes of their own, at the price of a fork: one process has imported everything and forks the others.

``python -m faults.nursery`` reads a job a line and answers with a pid, or ``{"reap": pid}`` and answers with the exit
code: 0 done, 75 try again, 4 fenced, 70 anything else, negative the signal that killed it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any

GONE, FENCED, BROKEN = 75, 4, 70


class Hung(Exception):
    """A worker did not end in time."""


class Nursery:
    """Starts workers and tells how they ended."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.nursery"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
        self._lock = threading.Lock()

    def _ask(self, question: dict[str, Any]) -> int:
        with self._lock:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def start(self, job: dict[str, Any]) -> int:
        return self._ask(job)

    def wait(self, pid: int, seconds: float = 120) -> int:
        """The exit code of a worker. Raises Hung, after killing it."""
        ended = self.ended(pid, seconds)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        code = self._ask({"reap": pid})
        if not ended:
            raise Hung(f"a worker did not end within {seconds} seconds")
        return code

    def ended(self, pid: int, seconds: float) -> bool:
        """Wait so long for a worker to end; it still has to be waited for."""
        handle = os.pidfd_open(pid)
        try:
            return bool(select.select([handle], [], [], max(seconds, 0))[0])
        finally:
            os.close(handle)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def serve() -> None:
    import rowledger.suites
    from faults import worker

    rowledger.suites.warm()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        if "reap" in asked:
            print(os.waitstatus_to_exitcode(os.waitpid(asked["reap"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _be_born(worker.run, asked)
        print(pid, flush=True)
    os._exit(0)  # libraries have much to say when a process ends that has forked others


def _be_born(run: Any, job: dict[str, Any]) -> None:
    code = BROKEN
    try:
        out = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = run(job)
    except BaseException:  # noqa: BLE001 - the last thing this process does is to say what went wrong
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
