"""``make chaos``: every fault at every point, two at a time, two writers, and kills at random; a table in the end.

    make chaos                                   everything, on two servers side by side; about two hours
    make chaos ARGS="--part kills --count 500"   some of a part
    make chaos ARGS="--every 10"                 every tenth of everything
    make chaos ARGS="--seconds 600"              what can be done in ten minutes

What is drawn is drawn from ``--seed``, which is printed. Every trial that is done is kept, so that the same seed goes on
where an interrupted run was; and one trial can be repeated: ``--only faults/contacts/1/17/deadlock``.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import injection, kills, writers
from faults.crowd import crowd
from faults.harness import Server, Trial
from faults.scenarios import ENUMERATED, KILLED

DOUBLES, KILLS = 1000, 10_000
KILLS_IN_A_TRIAL = 4  # more strike on average
TWO_WRITERS = ("contacts", "contract statuses", "contracts", "contacts in parts")


@dataclass(frozen=True)
class Task:
    """One trial: its name, by which it can be repeated, and how it is done."""

    name: str
    do: Callable[[Server], Trial]


def faults(server: Server, seed: str) -> Iterator[Task]:
    """Every fault at every point of every scenario."""
    for scenario in ENUMERATED:
        for point in server.prepared(scenario).points:
            for kind in point.kinds:
                yield Task(
                    f"faults/{scenario}/{point.step}/{point.number}/{kind}",
                    lambda s, n=scenario, p=point, k=kind: s.prepared(n).trial(p.step, (p.number, k)),  # type: ignore[misc]
                )


def doubles(server: Server, seed: str) -> Iterator[Task]:
    """A fault, and another one soon after, while the work is tried again."""
    for number in range(DOUBLES):
        draw = random.Random(f"{seed} double {number}")
        scenario = draw.choice(list(ENUMERATED))
        point = draw.choice(server.prepared(scenario).points)
        first = point.number, draw.choice(point.kinds)
        second = draw.randint(1, 25), draw.choice(injection.KINDS)
        yield Task(
            f"doubles/{number}",
            lambda s, n=scenario, p=point, f=first, g=second: s.prepared(n).trial(p.step, f, g),  # type: ignore[misc]
        )


def pairs(server: Server, seed: str) -> Iterator[Task]:
    """Two tries of one batch at every pair of places between two transactions."""
    for scenario in TWO_WRITERS:
        commits = server.prepared(scenario).commits(upto=3)
        for first in range(1, commits + 1):
            for second in range(1, commits + 1):
                yield Task(
                    f"pairs/{scenario}/{first}/{second}",
                    lambda s, n=scenario, f=first, g=second: writers.two_tries(s.prepared(n), f, g),  # type: ignore[misc]
                )


def leases(server: Server, seed: str) -> Iterator[Task]:
    """A process that is stopped for longer than its lease: between transactions, and inside them."""
    for scenario in TWO_WRITERS:
        prepared = server.prepared(scenario)
        stops = [{"stop_after": number} for number in range(1, prepared.commits(upto=3) + 1)]
        stops += [{"stop_inside": number} for number in prepared.statements(upto=3)[::4]]
        for stop in stops:
            (place,) = stop.items()
            yield Task(
                f"leases/{scenario}/{place[0]}/{place[1]}",
                lambda s, n=scenario, at=stop: writers.outlived(s.prepared(n), **at),  # type: ignore[misc]
            )


def killed(server: Server, seed: str) -> Iterator[Task]:
    """Kills at random moments, while two lanes are loaded."""
    for number in range(int(KILLS / KILLS_IN_A_TRIAL)):
        yield Task(
            f"kills/{number}",
            lambda s, n=number: kills.killed_at_random(  # type: ignore[misc]
                s.prepared(list(KILLED)[n % len(KILLED)]), random.Random(f"{seed} kill {n}")
            ),
        )


def crowds(server: Server, seed: str) -> Iterator[Task]:
    """Eight loaders of two schedulers."""
    yield Task("crowd/84", lambda s: crowd(s.prepared("a crowd of 84")))


PARTS = {
    "faults": faults,
    "doubles": doubles,
    "pairs": pairs,
    "leases": leases,
    "kills": killed,
    "crowd": crowds,
}


class Results:
    """What trials have shown, kept in a file a line each, so that a run that was interrupted can go on."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self.lines: list[dict[str, Any]] = []
        if path.exists():
            self.lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.parent.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, trial: Trial) -> None:
        line = {"name": name, "struck": trial.struck, "violations": trial.violations, "lives": trial.lives,
                "seconds": round(trial.seconds, 3), "chunks": trial.chunks}  # fmt: skip
        with self._lock:
            self.lines.append(line)
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    @property
    def done(self) -> set[str]:
        return {line["name"] for line in self.lines}

    @property
    def wrong(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["violations"]]

    def table(self) -> str:
        """Fault kind, how many struck, violations, seconds until work went on: as Markdown."""
        rows: dict[str, list[Any]] = defaultdict(lambda: [0, 0, []])
        for line in self.lines:
            for kind, seconds in _counted(line):
                row = rows[kind]
                row[0] += 1
                row[1] += bool(line["violations"])
                row[2].append(seconds)
        told = [
            "| fault | points or kills | violations | went on after, median | 95 % |",
            "|---|---:|---:|---:|---:|",
        ]
        for kind, (count, violations, seconds) in rows.items():
            told.append(
                f"| {kind} | {count:,} | {violations} | {statistics.median(seconds):.2f} s | {_late(seconds):.2f} s |"
            )
        return "\n".join(told)


def _counted(line: dict[str, Any]) -> list[tuple[str, float]]:
    part, struck = line["name"].partition("/")[0], line["struck"]
    if part == "doubles":
        return [("two faults, the second while trying again", struck[1][1])] if len(struck) > 1 else []
    if part == "crowd":
        return [("eight loaders of two schedulers, chunk transactions", 0.0)] * line["chunks"]
    if part == "leases":
        return [(kind, max(0.0, seconds - writers.LEASE_SECONDS)) for kind, seconds in struck]
    return [(kind, seconds) for kind, seconds in struck]


def _late(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.95 * (len(seconds) - 1))]


def _tasks(server: Server, asked: argparse.Namespace, done: set[str]) -> list[Task]:
    found = []
    for part in asked.part or PARTS:
        tasks = list(PARTS[part](server, asked.seed))
        print(f"{part}: {len(tasks):,} trials", flush=True)
        found += tasks[:: asked.every]
    if asked.only:
        return [task for task in found if task.name == asked.only]
    random.Random(asked.seed).shuffle(found)
    return [task for task in found if task.name not in done][: asked.count]


def _work(server: Server, tasks: queue.SimpleQueue[Task], results: Results, until: float) -> None:
    while time.monotonic() < until:
        try:
            task = tasks.get_nowait()
        except queue.Empty:
            return
        results.keep(task.name, trial := task.do(server))
        if trial.violations:
            print(f"VIOLATION in {task.name}:", *trial.violations, sep="\n  ", flush=True)
        if len(results.lines) % 100 == 0:
            print(f"{len(results.lines):,} trials, {len(results.wrong)} with violations", flush=True)


def main() -> int:
    asked = _arguments()
    results = Results(Path(asked.keep or f".rowledger/chaos/{asked.seed}.jsonl"))
    print(f"seed {asked.seed}", flush=True)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    until = time.monotonic() + asked.seconds

    def server(first: threading.Event, ready: threading.Event) -> None:
        with Server() as server:
            if not first.is_set():
                first.set()
                try:
                    for task in _tasks(server, asked, results.done):
                        tasks.put(task)
                finally:
                    ready.set()
            ready.wait()
            _work(server, tasks, results, until)

    first, ready = threading.Event(), threading.Event()
    threads = [threading.Thread(target=server, args=(first, ready)) for _ in range(asked.servers)]
    for thread in threads:
        thread.start()
        first.wait()
    for thread in threads:
        thread.join()
    print(f"\nseed {asked.seed}: {len(results.lines):,} trials\n\n{results.table()}")
    for line in results.wrong:
        print(f"VIOLATION in {line['name']}: {line['violations'][0]}")
    return 1 if results.wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__.partition("\n")[0].partition("``: ")[2]
    )
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="a part, more than one if repeated; else all"
    )
    parser.add_argument(
        "--seed", default=str(random.SystemRandom().randrange(10**6)), help="what draws and orders the trials"
    )
    parser.add_argument("--every", type=int, default=1, help="only every n-th trial of each part")
    parser.add_argument("--count", type=int, help="so many trials at most")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after so long")
    parser.add_argument(
        "--servers", type=int, default=min(2, os.cpu_count() or 1), help="database servers side by side"
    )
    parser.add_argument("--keep", help="the file of what is done; a run goes on where it ends")
    parser.add_argument("--only", help="the one trial of that name, with the same seed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
