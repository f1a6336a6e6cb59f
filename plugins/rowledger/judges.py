"""Who asks for a judgement without being able to judge: the API server, which must start fast and stay small.

In: a file, a template, a database. Out: what an import of the file would do, as ``judge`` tells it in a process of its
own. That process is started when it is first needed, stays warm for the next file, and ends after some idle minutes, or
with the process that asks: it ends when its input does. It inherits no socket and none of Airflow's settings.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rowledger import errors
from rowledger.errors import JudgedTooLong, NotJudged, RowledgerError, SetupError, TryAgain, UnknownCode

AT_ONCE = 2
IDLE_SECONDS = 600.0
PLACE_SECONDS = 10.0  # to wait for a judge that is at work
POLL_SECONDS = 0.25
COMMAND = (sys.executable, "-P", "-m", "rowledger.judge")


@dataclass(frozen=True)
class Case:
    """What is to be judged: the file at ``path``, by a template's source, in a domain of the database at ``url``.

    Whatever is written meanwhile goes into ``folder``. The first records are told one by one, as many as ``first``, with
    their ``cells`` if asked. A ``part`` is the beginning of a file: its last record, which may be cut off, is left out.
    """

    url: str
    folder: str
    path: str
    template: str
    source: str
    suite_hash: str
    domain: str
    by: str
    origins: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    first: int = 0
    cells: bool = True
    part: bool = False


@dataclass(frozen=True)
class Judgement:
    """What an import would do: its counts, the commonest reasons, and of the first records all there is to tell.

    ``columns`` are those of the file: its name for each, and the field that it fills. A record has ``record_no``,
    ``outcome``, ``reasons``, ``warnings``, its ``cells`` as they stand in the file and the ``values`` read from them.
    """

    records_in_file: int | None
    counts: dict[str, int]
    error_rule: str | None
    error_message: str | None
    warnings: list[dict[str, Any]]
    reasons: list[dict[str, Any]]
    columns: list[dict[str, Any]]
    records: list[dict[str, Any]]


class Judges:
    """The processes that judge, at most ``at_once``; safe for many threads."""

    def __init__(
        self,
        at_once: int = AT_ONCE,
        idle_seconds: float = IDLE_SECONDS,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._places = threading.BoundedSemaphore(at_once)
        self._idle_seconds, self._command = idle_seconds, command
        self._lock = threading.Lock()
        self._idle: dict[_Judge, threading.Timer] = {}

    def ask(self, case: Case, seconds: float, stop: threading.Event | None = None) -> Judgement:
        """The judgement, unless ``stop`` is set first. Raises NotJudged or whatever keeps the file from being judged."""
        if not self._places.acquire(timeout=PLACE_SECONDS):
            raise NotJudged("As many checks are under way as may be at once. Nothing was checked.")
        try:
            told = json.loads(self._answer(json.dumps(asdict(case)), seconds, stop or threading.Event()))
        finally:
            self._places.release()
        if "error" in told:
            raise _as_error(told["error"], told["message"])
        return Judgement(**told)

    def _answer(self, line: str, seconds: float, stop: threading.Event) -> str:
        """The answer to a line, by a judge that lives: one that was idle may have been killed meanwhile."""
        while True:
            judge = self._take()
            fresh = judge.answers == 0
            try:
                answer = judge.ask(line, seconds, stop)
            except _Lost:
                judge.end()
                if fresh:
                    raise
            except BaseException:
                judge.end()
                raise
            else:
                self._give_back(judge)
                return answer

    def warm(self) -> None:
        """Start a judge, unless one is there, so that the first file does not wait for it."""
        if self._places.acquire(blocking=False):
            try:
                self._give_back(self._take())
            finally:
                self._places.release()

    def close(self) -> None:
        """End the judges that are idle."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for judge, timer in idle.items():
            timer.cancel()
            judge.end()

    @property
    def pids(self) -> list[int]:
        """The processes that wait for a file."""
        with self._lock:
            return [judge.pid for judge in self._idle]

    def _take(self) -> _Judge:
        while True:
            with self._lock:
                if not self._idle:
                    return _Judge(self._command)
                judge, timer = self._idle.popitem()
            timer.cancel()
            if judge.lives:
                return judge
            judge.end()

    def _give_back(self, judge: _Judge) -> None:
        timer = threading.Timer(self._idle_seconds, self._retire, [judge])
        timer.daemon = True
        with self._lock:
            self._idle[judge] = timer
        timer.start()

    def _retire(self, judge: _Judge) -> None:
        with self._lock:
            idle = self._idle.pop(judge, None) is not None
        if idle:
            judge.end()


class _Lost(NotJudged):
    """The check came to no end, because its process did; nothing of it was kept."""


class _Judge:
    """One process: a case as a line of JSON goes in, a line comes out."""

    def __init__(self, command: Sequence[str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        # A session of its own: a Ctrl-C in the terminal of the server is not meant for it.
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=kept,
            start_new_session=True,
        )
        self.pid, self.answers = self._process.pid, 0

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, line: str, seconds: float, stop: threading.Event) -> str:
        """The answer to a line. Raises NotJudged."""
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except OSError:
            raise _Lost from None
        answer = self._answer(time.monotonic() + seconds, seconds, stop).decode()
        self.answers += 1
        return answer

    def _answer(self, deadline: float, seconds: float, stop: threading.Event) -> bytes:
        assert self._process.stdout
        told = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not told.endswith(b"\n"):
                if stop.is_set():
                    raise NotJudged("The check was stopped; nothing of it was kept.")
                if time.monotonic() > deadline:
                    raise JudgedTooLong(
                        f"The check was stopped after {seconds:.0f} seconds, as it may not take longer; nothing of it was "
                        "kept. Check a part of the file, or import it: an import takes its time."
                    )
                if selector.select(POLL_SECONDS):
                    block = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not block:
                        raise _Lost
                    told += block
        return bytes(told)

    def end(self) -> None:
        """End it, whatever it is at; the database undoes what it did."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            stream.close()


_TOLD = {kind.__name__: kind for kind in (TryAgain, UnknownCode, SetupError)}


def named(error: RowledgerError) -> str:
    """What an error is called on its way from one process to the other."""
    return next(
        name for name, kind in [*_TOLD.items(), ("", errors.RowledgerError)] if isinstance(error, kind)
    )


def _as_error(name: str, message: str) -> RowledgerError:
    return _TOLD.get(name, NotJudged)(message)
