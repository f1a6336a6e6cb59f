"""Looks at feeds as the sensor of a DAG does: in a process of its own for each, forked from one that is warm.

Run as a program it is that warm process: a line of JSON on its standard input is a look, a line on its output the answer.
A look can be stopped at a point of its way, to be killed there or to go on when somebody has done something.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILLED = 9
# Where a look can be stopped, and what it is about to do there.
POINTS = ("register", "take away", "remove the copied")


class Lookers:
    """The warm process, spoken to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def look(self, **asked: Any) -> list[int]:
        """Have some look at once (``times``); their exit codes."""
        self.begin(**asked)
        return self.ended()

    def begin(self, **asked: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asked, default=str) + "\n")
        self._process.stdin.flush()

    def ended(self) -> list[int]:
        assert self._process.stdout
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes


@dataclass(frozen=True)
class Gate:
    """Where a look waits until it is let go on."""

    folder: Path

    def wait(self) -> None:
        """Until a look has come to its point."""
        reached, ended = self.folder / "reached", self.folder / "ended"
        _until(lambda: reached.exists() or ended.exists())
        assert reached.exists(), "the look ended without coming to its point"

    def go_on(self) -> None:
        (self.folder / "go").touch()


def _until(said: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not said():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Lookers]:
    """The warm process, with an Airflow home of its own."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment = quiet | {"AIRFLOW_HOME": str(folder), "HOME": str(folder)}
    with (
        (folder / "lookers.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True,
        ) as process,
    ):  # fmt: skip
        try:
            yield Lookers(process)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(60)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is logged is no answer
    import airflow.sdk.io  # noqa: F401 - for the children

    from rowledger.suites import warm

    warm()
    for line in sys.stdin:
        asked = json.loads(line)
        children = [_forked(asked) for _ in range(asked.get("times", 1))]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        answers.write(json.dumps(codes) + "\n")
        answers.flush()


def _forked(asked: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _look(asked)
        code = 0
    except Exception:  # noqa: BLE001 - whatever it is, this is a fork
        traceback.print_exc()
    finally:
        if "gate" in asked:
            (Path(asked["gate"]) / "ended").touch()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _look(asked: dict[str, Any]) -> None:
    from rowledger import db, pipeline
    from rowledger.airflow import feeds
    from rowledger.settings import Settings

    os.environ.update(asked["environment"])
    if point := asked.get("at"):
        _stop_at(point, Path(asked["gate"]) if "gate" in asked else None)
    places = {name: Path(asked[name]) for name in ("home", "templates", "feeds")}
    settings = Settings(**places, database_url=asked["database_url"])
    with contextlib.closing(db.connect(asked["database_url"])) as connection:
        feeds.look(pipeline.Worker(connection, settings, "looker"), "contact")


def _stop_at(point: str, gate: Path | None) -> None:
    """Stop once, before the first call of what is next at that point."""
    from rowledger.feeds import arrivals, stores

    def stop(then: Callable[..., Any]) -> Callable[..., Any]:
        stopped: list[bool] = []

        def stopping(*given: Any, **named: Any) -> Any:
            if gate is None:
                os._exit(KILLED)
            if not stopped:
                stopped.append(True)
                (gate / "reached").touch()
                _until((gate / "go").exists)
            return then(*given, **named)

        return stopping

    if point == "register":
        arrivals.batches.register = stop(arrivals.batches.register)
    elif point == "take away":
        stores.Store.move = stop(stores.Store.move)  # type: ignore[method-assign]
        stores.Store.delete = stop(stores.Store.delete)  # type: ignore[method-assign]
    else:
        assert point == "remove the copied"
        stores.Store._remove = stop(stores.Store._remove)  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
