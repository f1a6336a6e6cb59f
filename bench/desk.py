"""The import desk over a large database: every page and list, beside a route of the same app that does nothing.

    python bench/desk.py [--quick] [--data FOLDER] [--rounds 100] [--only WORD] [--check]

Fills a throw-away PostgreSQL with 100,000 batches, ten million ledger rows and a million contacts (--quick: a hundredth),
serves the desk from a process of its own by uvicorn, and asks. The questions are asked in turn, round by round, each
followed by the bare one, by one caller over one connection; a time is from the first byte sent to the last one received.
Where others use the machine too, the processor time tells more: what the server's process and its database sessions, with
their parallel workers, have used for an answer, in the median. A route without a question is an error. Then what flows: a download of all outcomes of the largest batch with the memory of
the server's process, and uploads beside hashing and writing the same bytes.

The guard lets everybody in: what Airflow takes to know a user comes on top, on the bare route too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from fastapi import FastAPI, Request, Response
from rich.console import Console
from rich.table import Table

from rowledger import batches, db, ledger, loading, reference, server, suites, templates
from rowledger.desk import batch_list, batch_view, create_app
from rowledger.desk.access import Right, User
from rowledger.desk.batch_list import Listing
from rowledger.desk.context import Schedule
from rowledger.settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parent
TEMPLATES = ROOT / "include" / "templates"
BARE = "/bare"
MOST_MS, MOST_TIMES = 100, 1.5  # what is promised
UPLOAD_BYTES = 150_000_000

# The database ---------------------------------------------------------------------------------------------------

FILL = ("more_codes", "plan", "volumes", "records_of_contacts", "records_of_contracts", "records_of_statuses", "batches",
        "reasons", "contacts", "contracts", "feeds")  # fmt: skip
SAMPLE = "Customer number,Email,First name,Last name,Country\n" + "".join(
    f"K{n:08d},person{n}@example.org,Anna{n},Muster{n},DE\n" for n in range(100)
)


def fill(url: str, sample: Path, count: int, contacts: int) -> None:
    """Fill an empty database: so many batches of about a hundred records, and one with a record for each contact."""
    steps = _steps()
    sample.write_text(SAMPLE, encoding="utf-8")
    with contextlib.closing(db.connect(url)) as connection:
        db.migrate(connection)
        reference.load(connection, reference.read(ROOT / "include" / "reference" / "demo.yml"))
        with connection.cursor() as cursor:
            for path in sorted(TEMPLATES.glob("*.yml")):
                template = templates.read_template(path, loading.kinds())
                kept = {"template_hash": template.hash, "name": template.name, "kind": template.kind,
                        "source": template.source, "suite_hash": suites.suite_hash(template)}  # fmt: skip
                cursor.execute(db.queries("batches")["keep_template"], kept)
            for name, value in (("batches", count), ("contacts", contacts), ("file", sample)):
                cursor.execute("SELECT set_config(%s, %s, false)", (f"bench.{name}", str(value)))
            for name in FILL:
                cursor.execute(steps[name])
                connection.commit()
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


def _steps() -> dict[str, str]:
    parts = re.split(
        r"^-- name: (\w+)\s*$", (HERE / "desk.sql").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@contextlib.contextmanager
def database(home: Path, count: int, contacts: int) -> Iterator[str]:
    """The address of a filled database; one that is there already is taken as it is, with new migrations."""
    with server.running(Settings(home=home, templates=TEMPLATES)) as handle:
        url = handle.get_uri(server.DATABASE)
        with contextlib.closing(db.connect(url)) as connection:
            db.migrate(connection)
            there = batches.listed(connection, limit=1)
        if not there:
            started = time.perf_counter()
            fill(url, home / "sample.csv", count, contacts)
            say(f"filled in {time.perf_counter() - started:.0f} s")
        yield url


# The server -----------------------------------------------------------------------------------------------------


class Everybody:
    """Lets everybody do everything."""

    async def who(self, request: Request) -> User:
        return User("bench", False)

    def may(self, user: User, right: Right, kind: str) -> bool:
        return True


class Runs:
    """An engine that runs every quarter of an hour."""

    def schedule(self, kind: str) -> Schedule:
        return Schedule(False, datetime.now(UTC))

    def run_now(self, kind: str, by: str) -> str:
        return "manual"

    def kind_of(self, dag: str) -> str | None:
        return dag.removesuffix("_import") if dag.endswith("_import") else None

    def taken_on(self, kind: str, run_id: str) -> list[int] | None:
        return None

    def run_path(self, kind: str, run_id: str) -> str:
        return f"/dags/{kind}_import/runs/{run_id}"

    def task_path(self, kind: str, run_id: str, task: str, index: int) -> str:
        return f"{self.run_path(kind, run_id)}/tasks/import_batch.{task}/mapped/{index}"


def desk(url: str, home: Path) -> FastAPI:
    """The app as Airflow mounts it, and a route that does nothing."""
    app = create_app(
        lambda: db.connect(url, "rowledger-desk"), Everybody(), settings=Settings(home=home, templates=TEMPLATES),
        suites=suites, engine=Runs(),
    )  # fmt: skip
    app.add_api_route(BARE, lambda: Response("nothing"))
    return app


def serve(url: str, home: Path, port: int) -> None:
    import uvicorn

    uvicorn.run(desk(url, home), host="127.0.0.1", port=port, log_level="warning", access_log=False)


class Served:
    """The desk in a process of its own, and a caller of it."""

    def __init__(self, url: str, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, __file__, "--serve", url, str(home), str(self.port)]
        self.process = subprocess.Popen(command)
        self._observer = psycopg2.connect(url)
        self._observer.autocommit = True
        self._postmaster = psutil.Process(self._observer.info.backend_pid).ppid()
        self.caller = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self._wait()

    def _wait(self) -> None:
        while True:
            try:
                self.ask(BARE)
            except OSError:
                if self.process.poll() is not None:
                    raise
                self.caller.close()
                time.sleep(0.2)
            else:
                return

    def ask(self, address: str) -> float:
        """Ask, read everything; returns milliseconds."""
        started = time.perf_counter()
        self.caller.request("GET", address)
        answer = self.caller.getresponse()
        answer.read()
        taken = (time.perf_counter() - started) * 1000
        if answer.status not in (200, 204, 303):
            raise SystemExit(f"{address} answers {answer.status}")
        return taken

    def busy(self) -> float:
        """Milliseconds of processor time that the process and its database sessions have used so far."""
        with self._observer.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s", (f"rowledger-desk {self.process.pid}",)
            )  # fmt: skip
            processes = [self.process.pid, *(pid for (pid,) in cursor)]
        used = sum(time.clock_gettime((~pid << 3) | 2) for pid in processes)  # clock_getcpuclockid(3)
        ended = (
            Path(f"/proc/{self._postmaster}/stat")
            .read_text(encoding="ascii")
            .rpartition(")")[2]
            .split()[13:15]
        )
        return 1000 * (used + sum(map(int, ended)) / os.sysconf("SC_CLK_TCK"))

    def memory(self, what: str) -> float:
        """VmRSS or VmHWM of the process, in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{what}:\s+(\d+) kB", text, re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.caller.close()
        self._observer.close()
        self.process.terminate()
        self.process.wait()


# Pages and lists ------------------------------------------------------------------------------------------------

# Route -> what is asked of it. Words in braces are drawn anew each time, see ``places``.
LISTS = {
    "first page": "",
    "page far behind": "?cursor={deep}",
    "failed": "?status=failed",
    "of an uploader": "?uploader={uploader}",
    "of an origin": "?origin={origin}",
    "of a template and domain": "?template=travel_leads&domain=TRAVEL",
    "of a day": "?day={day}",
    "by end": "?sort=processed_at",
    "by upload, of a kind, the oldest first": "?sort=uploaded_at&order=asc&kind=contract",
    "search, few found": "?q={day}",
    "search, many found": "?q=contacts",
    "search, nothing found": "?q=nothing+like+that",
}
GROUPS = {"status": "", "kind": "", "domain": "", "template": "", "origin": "", "uploader": "", "day": ""}
QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "/": LISTS
    | {f"grouped by {group}": f"?group={group}" for group in GROUPS}
    | {"grouped by day, of a template": "?group=day&template=contacts",
       "grouped by origin, of an uploader": "?group=origin&uploader={uploader}",
       "grouped by status, search": "?group=status&q=spring"},
    "/changes": {"nothing has changed": "?seen={seen}&newest={newest}",
                 "all have changed": "?seen={seen_otherwise}&newest=10"},
    "/batches/{seqno}": {"usual": "{usual}", "the largest": "{large}", "failed": "{failed}", "at work": "{at_work}"},
    "/batches/{seqno}/head": {"usual": "{usual}", "the largest": "{large}", "at work": "{at_work}"},
    "/batches/{seqno}/records": {
        "usual": "{usual}", "the largest": "{large}", "the largest, far behind": "{large}?after={far}",
        "the largest, of an outcome": "{large}?outcome=rejected&after={far}",
        "the largest, of a rare outcome": "{large}?outcome=updated",
        "the largest, of no such outcome": "{large}?outcome=ignored",
        "the largest, of a rule": "{large}?rule=required", "the largest, of a column": "{large}?column=City",
        "the largest, of a rare rule": "{large}?rule=superseded_in_file",
        "the largest, of a rare rule, the last": "{large}?rule=superseded_in_file&after={last}",
        "the largest, of rule and column": "{large}?outcome=rejected&rule=format&column=Email",
        "the largest, of no such rule": "{large}?rule=pattern",
    },
    "/batches/{seqno}/errors": {"usual": "{usual}", "the largest": "{large}", "failed": "{failed}"},
    "/batches/{seqno}/expectations": {"usual": "{usual}", "the largest": "{large}"},
    "/batches/{seqno}/activity": {"usual": "{usual}", "the largest": "{large}"},
    "/batches/{seqno}/mend": {"usual": "{usual}", "the largest": "{large}"},
    "/of-run": {"of a run": "?dag_id=contact_import&run_id={run}", "of no import": "?dag_id=other&run_id=other"},
    "/contacts": {"form": "", "by number": "?domain=DEMO&key=K{contact:0>8}"},
    "/contacts/{contact_id}": {"usual": "{contact}", "of hundreds of records": "{hot}", "of hundreds, all": "{hot}?limit=1000"},
    "/contracts": {"form": "", "by form id": "?domain=DEMO&form_id=C{contract}"},
    "/contracts/{contract_id}": {"usual": "{contract}", "as of": "{contract}?on=2025-05-31&known_at=2026-01-01"},
    "/new": {"form": "", "chosen": "?kind=contact&domain=DEMO&template=contacts"},
    "/operations": {"30 days": "", "90 days": "?days=90", "90 days of a feed": "?days=90&feed=of+contact"},
    "/operations/now": {"all": ""},
    "/parked": {"all": "", "of a domain": "?domain=DEMO", "of an import": "?seqno={usual}"},
    "/set-up": {"all": "", "a domain of hundreds of codes": "?domain=DEMO"},
    "/set-up/changes": {"all": "", "of a sort": "?domain=DEMO&sort=status"},
    "/set-up/list": {"20,000 values": "?name=postal_codes", "that begin": "?name=postal_codes&begins=2999"},
    "/set-up/{sort}/item": {"a status": "status/item?domain=DEMO&code=S7", "an origin": "origin/item?domain=DEMO&code=WEB"},
    "/set-up/{sort}/new": {"a status": "status/new?domain=DEMO"},
    "/static/htmx.min.js": {"script": ""},
    "/static/{name}": {"style": "desk.css"},
    "/templates": {"all": ""},
    "/templates/{name}": {"contacts": "contacts", "result codes": "result_codes", "contracts": "contracts"},
    "/api/v1/batches": {name: f"{query}{'&' if query else '?'}limit=200" for name, query in LISTS.items()},
    "/api/v1/batches/totals": {"all": ""} | {f"by {group}": f"?group={group}" for group in GROUPS},
    "/api/v1/batches/{seqno}": {"usual": "{usual}", "the largest": "{large}"},
    "/api/v1/batches/{seqno}/errors": {"usual": "{usual}", "the largest": "{large}", "at work": "{at_work}"},
    "/api/v1/batches/{seqno}/events": {"usual": "{usual}"},
    "/api/v1/batches/{seqno}/file": {"usual": "{usual}"},
    "/api/v1/batches/{seqno}/outcomes.csv": {"usual": "{usual}"},
    "/api/v1/batches/{seqno}/records": {"usual": "{usual}", "rejected": "{usual}?outcome=rejected"},
    "/api/v1/batches/{seqno}/rejects.csv": {"usual": "{usual}"},
    "/api/v1/contacts/{domain}/{key:path}": {"by number": "DEMO/K{contact:0>8}", "of hundreds of records": "DEMO/K{hot:0>8}"},
    "/api/v1/contracts/{domain}/{form_id:path}": {"usual": "DEMO/C{contract}", "as of": "DEMO/C{contract}?on=2025-05-31"},
    "/api/v1/openapi.json": {"document": ""},
    "/api/v1/operations/days": {"90 days": "?days=90"},
    "/api/v1/operations/feeds": {"all": ""},
    "/api/v1/operations/now": {"all": ""},
    "/api/v1/operations/rejections": {"90 days": "?days=90", "90 days, parked": "?days=90&outcome=parked"},
    "/api/v1/parked": {"1,000 things": "?limit=1000", "of an import": "?seqno={usual}"},
    "/api/v1/reference/changes": {"all": "", "of a sort": "?domain=DEMO&sort=origin"},
    "/api/v1/reference/lists": {"all": ""},
    "/api/v1/reference/lists/values": {"1,000 of 20,000": "?name=postal_codes&after=15000"},
    "/api/v1/reference/{sort}": {"statuses": "status?domain=DEMO", "origins": "origin?domain=DEMO"},
    "/api/v1/reference/{sort}/item": {"a status": "status/item?domain=DEMO&code=S7"},
    "/api/v1/templates": {"all": ""},
    "/api/v1/templates/{name}": {"contacts": "contacts"},
    "/api/v1/templates/{name}/export.csv": {"contacts": "contacts/export.csv"},
    "/api/v1/templates/{name}/export.xlsx": {"contacts": "contacts/export.xlsx?domain=DEMO"},
}  # fmt: skip


def unasked(app: FastAPI) -> set[str]:
    """The routes that answer to GET and have no question here, and the questions that have no route."""
    routes = {route.path for route in app.routes if "GET" in route.methods}  # type: ignore[attr-defined]
    return routes ^ {*QUESTIONS, BARE}


def address(route: str, asked: str) -> str:
    """Where a question goes: the first part in braces of a route is filled in by it."""
    before, parameter, after = re.fullmatch(r"([^{]*)(\{.*\})?([^{}]*)", route).groups()  # type: ignore[union-attr]
    if not parameter:
        return f"{route}{asked}"
    value, mark, query = asked.partition("?")
    return f"{before}{value}{'' if value.endswith(after) else after}{mark}{query}"


def places(connection: db.Connection) -> dict[str, list[Any]]:
    """What is drawn from, for each word in braces."""
    found: dict[str, list[Any]] = {}
    with db.transaction(connection) as cursor:
        for one in db.rows(cursor, _steps()["places"]):
            found.setdefault(one["word"], []).append(one["value"])
    kinds = list(loading.kinds())
    newest = batch_list.page(connection, Listing(), kinds).batches
    found["seen"] = [",".join(f"{one.seqno}-{batch_view.version(one)}" for one in newest)]
    found["seen_otherwise"] = [",".join(f"{one.seqno}-{'0' * 12}" for one in newest)]
    found["newest"] = [newest[0].seqno]
    middle = batches.get(connection, found["large"][0])
    found["deep"] = [batch_list._cursor(Listing(), {"sort_key": str(middle.seqno), "seqno": middle.seqno})]
    return found


@dataclass
class Asked:
    """A question and its times in milliseconds."""

    route: str
    name: str
    query: str
    times: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def share(self, share: float) -> float:
        return sorted(self.times)[min(len(self.times) - 1, int(share * len(self.times)))]


def ask_all(served: Served, drawn: Mapping[str, list[Any]], rounds: int, only: str) -> list[Asked]:
    """Every question so many times, the bare one after each; the first time is not counted."""
    draw = random.Random(7)
    asked = [
        Asked(route, name, query)
        for route, queries in QUESTIONS.items()
        for name, query in queries.items()
        if only in f"{route} {name}"
    ]
    bare = Asked(BARE, "does nothing", "")
    for turn in range(rounds + 1):
        for one in asked:
            words = {word: draw.choice(values) for word, values in drawn.items()}
            before = served.busy()
            taken = served.ask(address(one.route, one.query.format(**words)))
            between = served.busy()
            nothing = served.ask(BARE)
            if turn:
                one.times.append(taken)
                one.busy.append(between - before)
                bare.times.append(nothing)
                bare.busy.append(served.busy() - between)
    return [bare, *asked]


def show(asked: list[Asked]) -> None:
    table = Table("Route", "Question", "p50 ms", "p95 ms", "processor ms", "", box=None)
    for one in asked:
        median, most = one.share(0.5), one.share(0.95)
        table.add_row(
            one.route, one.name, f"{median:.1f}", f"{most:.1f}", f"{statistics.median(one.busy):.1f}", "over" if most > MOST_MS else "", style="bold" if most > MOST_MS else "",
        )  # fmt: skip
    Console(width=140).print(table)


def show_slowest(asked: list[Asked]) -> None:
    """For each route its slowest question, as docs/desk.md has it."""
    say("| route | slowest of | question | p50 ms | p95 ms | processor ms |\n|---|---:|---|---:|---:|---:|")
    for route in dict.fromkeys(one.route for one in asked):
        mine = [one for one in asked if one.route == route]
        slowest = max(mine, key=lambda one: one.share(0.95))
        say(f"| `{route}` | {len(mine)} | {slowest.name} | {slowest.share(0.5):.0f} | {slowest.share(0.95):.0f} "
            f"| {statistics.median(slowest.busy):.0f} |")  # fmt: skip


# What flows -----------------------------------------------------------------------------------------------------


def download(served: Served, path: str) -> None:
    """Read an answer piece by piece; the memory of the server before, and its peak meanwhile."""
    before = served.memory("VmRSS")
    served.forget_peak()
    started = time.perf_counter()
    served.caller.request("GET", path)
    answer = served.caller.getresponse()
    count = 0
    while block := answer.read(1 << 16):
        count += len(block)
    seconds = time.perf_counter() - started
    say(f"{path}: {count / 1e6:.0f} MB in {seconds:.1f} s; the server's memory {before:.0f} MB before, "
        f"at most {served.memory('VmHWM'):.0f} MB meanwhile")  # fmt: skip


def uploads_beside_writing(served: Served, folder: Path, size: int, rounds: int) -> None:
    """Upload bytes, and hash and write the same bytes to the same disk, in turn."""
    line = b"K%08d,person%d@example.org,Anna,Muster,DE\n"
    body = SAMPLE.partition("\n")[0].encode() + b"\n" + b"".join(line % (n, n) for n in range(size // 44))
    body += b"#" * (size - len(body) - 17)
    sent, written = [], []
    for n in range(rounds):
        content = body + b"%016d\n" % (time.time_ns() + n)
        written.append(_seconds(lambda content=content: _hash_and_write(content, folder / "written")))
        sent.append(_seconds(lambda content=content: _upload(served, content)))
    ratio = statistics.median(sent) / statistics.median(written)
    say(f"upload of {size / 1e6:.0f} MB: median {statistics.median(sent):.2f} s; hashing and writing the same bytes "
        f"{statistics.median(written):.2f} s; ratio {ratio:.2f} (promised: {MOST_TIMES})")  # fmt: skip
    say(f"  uploads {[round(s, 2) for s in sent]}, written {[round(s, 2) for s in written]}")


def _seconds(work: Callable[[], None]) -> float:
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _hash_and_write(content: bytes, path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, len(content), 1 << 20):
            block = content[start : start + (1 << 20)]
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _upload(served: Served, content: bytes) -> None:
    headers = {"Content-Type": "text/csv", "Idempotency-Key": str(time.time_ns())}
    query = "kind=contact&domain=DEMO&template=contacts&file_name=upload.csv"
    served.caller.request("POST", f"/api/v1/batches?{query}", content, headers)
    answer = served.caller.getresponse()
    told = answer.read()
    if answer.status != 201:
        raise SystemExit(f"The upload was answered {answer.status}: {told[:500]!r}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def check(url: str) -> None:
    with contextlib.closing(db.connect(url)) as connection:
        for result in ledger.check(connection):
            say(f"check {result['check']}: {result['violations']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1,000 batches, 10,000 contacts, 10 rounds")
    parser.add_argument("--data", type=Path, help="keep the database in this folder, and take what is there")
    parser.add_argument("--rounds", type=int, help="how often each question is asked")
    parser.add_argument("--only", default="", help="only routes and questions with this in their name")
    parser.add_argument("--check", action="store_true", help="look whether the invariants hold, first")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve[0], Path(given.serve[1]), int(given.serve[2]))
        return
    count, contacts, size = (
        (1000, 10_000, UPLOAD_BYTES // 100) if given.quick else (100_000, 1_000_000, UPLOAD_BYTES)
    )
    rounds = given.rounds or (10 if given.quick else 100)
    with contextlib.ExitStack() as stack:
        home = given.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rowledger-bench-")))
        url = stack.enter_context(database(home, count, contacts))
        if given.check:
            check(url)
        if missing := unasked(desk(url, home)):
            raise SystemExit(f"Routes without a question, or questions without a route: {sorted(missing)}")
        with contextlib.closing(db.connect(url)) as connection:
            drawn = places(connection)
        served = stack.enter_context(Served(url, home))
        asked = ask_all(served, drawn, rounds, given.only)
        show(asked)
        show_slowest(asked)
        if not given.only:
            for path in ("outcomes.csv", "records", "rejects.csv"):
                download(served, f"/api/v1/batches/{drawn['large'][0]}/{path}")
            uploads_beside_writing(served, home, size, 5)


if __name__ == "__main__":
    main()
