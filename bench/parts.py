"""How the time of one huge file goes down when it is worked in parts, and what it is waiting for then.

    python bench/parts.py [--records 10000000] [--parts 1 2]

One worker process for each part, forked from one that has imported Great Expectations, on one embedded server. Prints one
JSON object a line: seconds of each step, the CPU seconds that workers and database took, and which share of all cores
that was. Workers and database share the cores of this machine: with two of them, two workers cannot be twice as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import bench
from rowledger import batches, db, pipeline, server, suites, uploads
from rowledger.settings import Settings

CPUS = os.cpu_count() or 1


def measure(handle: Any, file: Path, parts: int, folder: Path) -> dict[str, Any]:
    """Work the file off in so many parts, in a database of its own."""
    settings = Settings(home=folder / "home", templates=bench.HERE, part_bytes=1, max_parts=parts)
    with bench.database(handle, f"in_{parts}") as url:
        bench.prepare(url, 0)
        seqno, records = _submit(url, file, settings)
        bench.settle(handle, url)
        result: dict[str, Any] = {"parts": parts, "records": records}
        for step in (pipeline.validate, pipeline.load, pipeline.close):
            result |= _step(handle, url, settings, seqno, step, parts)
        with contextlib.closing(db.connect(url)) as connection:
            batch = batches.get(connection, seqno)
            assert batch.succeeded, batch
    result["seconds"] = round(sum(result[name]["seconds"] for name in ("validate", "load", "close")), 1)
    return bench.report(result)


def _submit(url: str, file: Path, settings: Settings) -> tuple[int, int]:
    template = bench.template_for("contact")
    with contextlib.closing(db.connect(url)) as connection:
        upload = uploads.keep_file(file, settings.uploads)
        hashed = suites.suite_hash(template)
        seqno = batches.register(
            connection, upload, template, hashed, "DEMO", by="bench", through="command line"
        )
        shares = batches.shared_out(connection, [seqno], settings.part_bytes, settings.max_parts, 100, 300)
        assert len(shares) == settings.max_parts
        return seqno, sum(1 for _ in file.open("rb")) - 1


def _step(handle: Any, url: str, settings: Settings, seqno: int, step: Any, parts: int) -> dict[str, Any]:
    """Do one step of all parts at once, each in a process of its own."""
    database = psutil.Process(handle.get_postmaster_info().process.pid)
    context = multiprocessing.get_context("fork")
    before, began = _cpu_of(database), time.perf_counter()
    receiver, sender = context.Pipe(duplex=False)
    workers = [
        context.Process(target=lambda part=part: sender.send(_work(url, settings, seqno, step, part)))
        for part in (range(1, parts + 1) if parts > 1 else (None,))
    ]
    for worker in workers:
        worker.start()
    told = [receiver.recv() for _ in workers]
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    ours, theirs = sum(cpu for cpu, _ in told), _cpu_of(database) - before
    return {
        step.__name__: {
            "seconds": round(seconds, 1), "worker_cpu": round(ours, 1), "database_cpu": round(theirs, 1),
            "busy": round((ours + theirs) / seconds / CPUS, 2), "peak_mb": max(peak for _, peak in told),
        }
    }  # fmt: skip


def _work(url: str, settings: Settings, seqno: int, step: Any, part: int | None) -> tuple[float, int]:
    with contextlib.closing(db.connect(url)) as connection:
        step(pipeline.Worker(connection, settings, "bench", part=part), seqno)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_maxrss // 1024


def _cpu_of(postmaster: psutil.Process) -> float:
    """CPU seconds of the server and of all sessions it has had."""
    total = 0.0
    for process in (postmaster, *postmaster.children()):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            total += times.children_user + times.children_system if process == postmaster else 0.0
    return total


def show(results: list[dict[str, Any]]) -> None:
    table = Table("Parts", "Step", "Seconds", "Worker CPU", "Database CPU", "Cores busy", "Peak MB")
    for result in results:
        for name in ("validate", "load", "close"):
            row = (f"{result[name][column]}" for column in ("seconds", "worker_cpu", "database_cpu"))
            table.add_row(
                str(result["parts"]), name, *row, f"{result[name]['busy']:.0%}", str(result[name]["peak_mb"])
            )
        table.add_row(str(result["parts"]), "all", str(result["seconds"]), end_section=True)
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    suites.warm()
    with tempfile.TemporaryDirectory(prefix="rowledger-bench-") as name:
        folder = Path(name)
        file = folder / "contacts.csv"
        bench.contacts(file, arguments.records, 1)
        with server.running(Settings(home=folder, templates=bench.HERE)) as handle:
            results = [measure(handle, file, parts, folder) for parts in arguments.parts]
    show(results)


if __name__ == "__main__":
    main()
