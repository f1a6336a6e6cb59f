"""Speed and memory of whole imports, side by side with hand-written SQL that validates nothing.

    python bench/bench.py [--quick] [--ten-million]

Prints one JSON object a line while it measures, and a table at the end. Each case runs in databases of its own on one
embedded server, the hand-written SQL and Rowledger in turn. Rowledger's work is done in a process forked from one that
has imported Great Expectations, as Airflow's warm workers are; its time is validate + load + close, its memory the
peak resident set of that process with everything inherited. Idle sensors are measured as whole processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
from rich.console import Console
from rich.table import Table

from rowledger import batches, db, loading, pipeline, server, suites, templates, uploads
from rowledger.settings import Settings

HERE = Path(__file__).parent
PASSES = {"contact": ("new", "all updates"), "contract_status": ("new", "all updates")}


def contacts(path: Path, records: int, version: int) -> None:
    """Write contacts of 12 columns, 1 % of them bad: an email, a country or a last name."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(
            "Customer number,Email,First name,Last name,Company,Phone,Mobile,Street,Postal code,City,Country,Birth date\n"
        )
        for n in range(records):
            email = f"person{n}.at.example.org" if n % 300 == 7 else f"person{n}@mail{n % 97}.example.org"
            country = "XX" if n % 300 == 107 else ("DE", "FR", "NL")[n % 3]
            last = "" if n % 300 == 207 else f"Muster{n % 5000}v{version}"
            file.write(
                f"C{n:08d},{email},Anna{n % 800},{last},Example {n % 3000} Ltd,+4930{n:08d},+49171{n:07d},"
                f"Long Street {n % 200},{10000 + n % 80000},Town {n % 900},{country},19{50 + n % 50}-0{1 + n % 9}-1{n % 10}\n"
            )


def contract_statuses(path: Path, records: int, version: int) -> None:
    """Write one status for each contract, 1 % of them bad codes."""
    with path.open("w", encoding="utf-8", newline="") as file:
        for n in range(records):
            code = "not a code" if n % 100 == 7 else ("20", "30", "40")[(n + version) % 3]
            file.write(f"F{n:08d};1{n % 10}-0{version}-2026;{code};agent {n % 50};\n")


def template_for(kind: str) -> templates.ImportTemplate:
    path = HERE / f"{kind}.yml"
    return templates.read_template(path, loading.kinds())


def prepare(url: str, contracts: int) -> None:
    with contextlib.closing(db.connect(url)) as connection:
        db.migrate(connection)
        with db.transaction(connection) as cursor:
            cursor.execute((HERE / "prepare.sql").read_text(encoding="utf-8"), {"contracts": contracts})
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


def by_hand(url: str, kind: str, file: Path, seqno: int) -> float:
    """COPY, INSERT … ON CONFLICT, joined ledger insert, in one transaction. Returns seconds."""
    parts = (HERE / f"{kind}.sql").read_text(encoding="utf-8").split("-- then\n")
    with contextlib.closing(db.connect(url)) as connection:
        with db.transaction(connection) as cursor:
            cursor.execute("SELECT open_ledger_volume(%(seqno)s, 1)", {"seqno": seqno})
        started = time.perf_counter()
        with db.transaction(connection) as cursor:
            cursor.execute(parts[0])
            with file.open("rb") as source:
                cursor.copy_expert(parts[1], source)
            cursor.execute(parts[2], {"seqno": seqno})
        return time.perf_counter() - started


def by_rowledger(url: str, kind: str, file: Path, settings: Settings) -> dict[str, float]:
    """Submit here; work in a forked process. Returns seconds and MB."""
    template = template_for(kind)
    with contextlib.closing(db.connect(url)) as connection:
        upload = uploads.keep_file(file, settings.uploads)
        seqno = batches.register(
            connection,
            upload,
            template,
            suites.suite_hash(template),
            "DEMO",
            by="bench",
            through="command line",
        )
    result = in_fork(lambda: _work(url, settings, seqno))
    with contextlib.closing(db.connect(url)) as connection:
        batch = batches.get(connection, seqno)
        assert batch.succeeded, batch
        result["rejected"] = batch.counts["rejected"]
    return result


def _work(url: str, settings: Settings, seqno: int) -> dict[str, float]:
    connection = db.connect(url)
    worker = pipeline.Worker(connection, settings, "bench")
    seconds = {}
    for step in (pipeline.validate, pipeline.load, pipeline.close):
        started = time.perf_counter()
        step(worker, seqno)
        seconds[step.__name__] = round(time.perf_counter() - started, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**seconds, "seconds": round(sum(seconds.values()), 2), "peak_mb": round(peak)}


def in_fork(part: Callable[[], dict[str, float]]) -> dict[str, float]:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(part()))
    process.start()
    sender.close()
    try:
        return dict(receiver.recv())
    finally:
        process.join()


@contextlib.contextmanager
def database(handle: Any, name: str) -> Iterator[str]:
    server.create_database(handle, name)
    try:
        yield handle.get_uri(name)
    finally:
        _administer(handle, f'DROP DATABASE "{name}" WITH (FORCE)')


def settle(handle: Any, *urls: str) -> None:
    """Clear up what earlier passes left, so that no autovacuum does it while the other side is measured."""
    for url in urls:
        with contextlib.closing(db.connect(url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("VACUUM ANALYZE")
    _administer(handle, "CHECKPOINT")


def _administer(handle: Any, statement: str) -> None:
    connection = psycopg2.connect(handle.get_uri("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def measure(
    handle: Any, kind: str, records: int, folder: Path, *, compare: bool = True
) -> list[dict[str, Any]]:
    """One kind at one size: new records, then the same keys with other values."""
    write = contacts if kind == "contact" else contract_statuses
    results = []
    settings = Settings(home=folder / "home", templates=HERE)
    with database(handle, "by_hand") as hand_url, database(handle, "by_rowledger") as our_url:
        contracts = records if kind == "contract_status" else 0
        prepare(our_url, contracts)
        if compare:
            prepare(hand_url, contracts)
        for version, name in enumerate(PASSES[kind], start=1):
            file = folder / f"{kind}.csv"
            write(file, records, version)
            result: dict[str, Any] = {
                "case": f"{kind}, {name}",
                "records": records,
                "file_mb": round(file.stat().st_size / 1e6),
            }
            if compare:
                settle(handle, hand_url, our_url)
                result["by_hand_seconds"] = round(by_hand(hand_url, kind, file, version), 2)
            settle(handle, *([hand_url] if compare else []), our_url)
            result |= by_rowledger(our_url, kind, file, settings)
            if compare:
                result["ratio"] = round(result["seconds"] / result["by_hand_seconds"], 2)
            results.append(report(result))
    return results


def idle_sense(handle: Any) -> dict[str, Any]:
    """CPU seconds of a process that looks for waiting batches and finds none, as the sensor does."""
    code = (
        "import contextlib, os\nfrom rowledger import batches, db, parked\n"
        "with contextlib.closing(db.connect(os.environ['URL'])) as c:\n"
        "    assert not batches.reserve(c, 'contact', 'run', 100, 300) and not parked.anything_due(c, 'contact')\n"
    )
    with database(handle, "idle") as url:
        prepare(url, 0)
        seconds = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"URL": url})
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return report({"case": "idle sense, own part", "cpu_seconds": round(statistics.median(seconds), 2)})


def report(result: dict[str, Any]) -> dict[str, Any]:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    return result


def show(results: list[dict[str, Any]]) -> None:
    table = Table("Case", "Records", "By hand", "Rowledger", "Ratio", "validate", "load", "close", "Peak MB")
    for r in results:
        if "records" in r:
            table.add_row(
                r["case"], f"{r['records']:,}", str(r.get("by_hand_seconds", "")), str(r["seconds"]), str(r.get("ratio", "")),
                str(r["validate"]), str(r["load"]), str(r["close"]), str(r["peak_mb"]),
            )  # fmt: skip
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10,000 records only")
    parser.add_argument("--ten-million", action="store_true", help="ten million contacts too, for memory")
    parser.add_argument("--records", type=int, help="this size only")
    arguments = parser.parse_args()
    sizes = (
        [arguments.records]
        if arguments.records
        else [10_000]
        if arguments.quick
        else [10_000, 100_000, 1_000_000]
    )
    report({"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()})
    warnings.simplefilter("ignore")
    suites.warm()
    with tempfile.TemporaryDirectory(prefix="rowledger-bench-") as name:
        folder = Path(name)
        with server.running(Settings(home=folder, templates=HERE)) as handle:
            idle_sense(handle)
            results = [r for size in sizes for kind in PASSES for r in measure(handle, kind, size, folder)]
            if arguments.ten_million:
                results += measure(handle, "contact", 10_000_000, folder, compare=False)
    show(results)


if __name__ == "__main__":
    main()
