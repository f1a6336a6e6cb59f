"""``python -m rowledger.demo``: everything on this machine, with nothing to set up.

Starts an embedded PostgreSQL and Airflow under ``.rowledger/``, uploads the sample files, lets the scheduled DAGs work
them off, shows what became of every file, and serves Airflow's pages until Ctrl-C, importing what is dropped into the
folder of a feed meanwhile. A second start loads nothing twice.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from rowledger import batches, db, feeds, loading, reference, server, templates, uploads
from rowledger.airflow import local
from rowledger.db import Connection
from rowledger.errors import DuplicateUpload, RowledgerError, SetupError, TryAgain
from rowledger.feeds import Feed
from rowledger.feeds.places import wanted
from rowledger.model import Batch
from rowledger.settings import Settings, from_environment
from rowledger.suites import suite_hash

SAMPLES = local.ROOT / "include" / "samples"
REFERENCE = local.ROOT / "include" / "reference" / "demo.yml"
EXAMPLE = local.ROOT / "include" / "feeds" / "example" / "results_2025_08_12.csv"
TIMERS = "contract_status_timers"
AFTERWARDS = (TIMERS, "import_approval", "import_notices", "import_housekeeping")
IMPORT_SECONDS = 300
SETTLE_SECONDS = 20
DROP_SECONDS = 2
PATIENCE_SECONDS = 8  # how long nothing may move before a run is asked for by hand
out = Console(highlight=False, soft_wrap=False)


@dataclass(frozen=True)
class Sample:
    """A line of the samples' manifest: a file and what to choose when it is uploaded."""

    file: str
    kind: str
    domain: str
    template: str
    origins: list[str]
    subscriptions: list[str]


def main() -> None:
    """Run the demo; errors become a sentence and an exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rowledger.demo", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("--exit", action="store_true", help="stop everything after the table")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        done = run(_settings(), stay=not arguments.exit)
    except KeyboardInterrupt:
        out.print("Stopped.")
        done = not arguments.exit
    except RowledgerError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"{error}", style="red", markup=False)
        sys.exit(error.exit_code)
    sys.exit(0 if done else 1)


def run(settings: Settings, *, stay: bool) -> bool:
    """Start, upload, wait, show; serve until interrupted if ``stay``. True if every sample has reached its end."""
    with _alone(settings.home), contextlib.ExitStack() as stack:
        with out.status("Starting PostgreSQL …"):
            embedded = stack.enter_context(server.running(settings))
            server.create_database(embedded, "airflow")
            address = embedded.get_uri(server.DATABASE)
            connection = stack.enter_context(contextlib.closing(db.connect(address)))
            db.migrate(connection)
            reference.load(connection, reference.read(REFERENCE), by="demo", file=REFERENCE.name)
        folders = _drop_folders(settings)
        seqnos = [_submit(connection, settings, sample) for sample in samples()]
        place = local.Place(
            settings.home / "airflow",
            settings.home / "logs",
            embedded.get_uri("airflow"),
            local.free_port(8080),
        )
        with out.status("Starting Airflow (the first time takes half a minute) …"):
            api = stack.enter_context(local.running(place, _task_environment(settings, address)))
            unpause(api, _dags())
        done = _watch(connection, api, seqnos)
        if stay:  # not before: which of a timer and a file comes first would be chance
            unpause(api, AFTERWARDS)
        _say_what_next(place, settings, batches_of(connection, seqnos), folders if stay else {})
        if stay:
            _serve(connection, api, folders)
    return done


def samples() -> list[Sample]:
    """The sample files in the order of their manifest."""
    return [Sample(**line) for line in yaml.safe_load((SAMPLES / "manifest.yml").read_text(encoding="utf-8"))]


def unpause(api: local.Api, dags: Sequence[str]) -> None:
    """Switch DAGs on; their last scheduled runs then start at once."""
    for dag in dags:
        _wait_for_dag(api, dag)
        api.call("PATCH", f"/dags/{dag}", {"is_paused": False})


def _dags() -> list[str]:
    return [f"{kind}_import" for kind in sorted({sample.kind for sample in samples()})]


def _wait_for_dag(api: local.Api, dag: str) -> None:
    for _ in range(60):
        with contextlib.suppress(local.ApiError):
            api.call("GET", f"/dags/{dag}")
            return
        time.sleep(0.5)
    raise SetupError(
        f"Airflow does not find the DAG {dag}; see its import errors: airflow dags list-import-errors"
    )


def _submit(connection: Connection, settings: Settings, sample: Sample) -> int:
    """Upload a sample; one that was uploaded before, whatever became of it, is taken as it is."""
    template = templates.find_template(settings.templates, sample.template, loading.kinds())
    upload = uploads.keep_file(SAMPLES / sample.file, settings.uploads)
    for batch in batches.listed(connection, sample.kind, limit=1000):
        if (batch.file_sha256, batch.template_hash, batch.domain) == (
            upload.sha256,
            template.hash,
            sample.domain,
        ):
            return batch.seqno
    try:
        return batches.register(
            connection, upload, template, suite_hash(template), sample.domain,
            origins=sample.origins, subscriptions=sample.subscriptions, by="demo", through="command line",
        )  # fmt: skip
    except DuplicateUpload as earlier:
        return earlier.seqno


def batches_of(connection: Connection, seqnos: list[int]) -> list[Batch]:
    """The batches of these numbers, as they stand now."""
    return [batches.get(connection, seqno) for seqno in seqnos]


def _watch(connection: Connection, api: local.Api, seqnos: list[int]) -> bool:
    """Show the batches until all are done; True unless time runs out."""
    deadline, moved, before = time.monotonic() + IMPORT_SECONDS, time.monotonic(), ""
    with Live(console=out, transient=True, refresh_per_second=4) as live:
        while time.monotonic() < deadline:
            now = batches_of(connection, seqnos)
            unfinished = [batch for batch in now if not batch.status.terminal]
            if not unfinished:
                break
            live.update(_progress(now, len(unfinished)))
            if str(now) != before:
                moved, before = time.monotonic(), str(now)
            elif time.monotonic() - moved > PATIENCE_SECONDS:
                moved = time.monotonic()
                _ask_for_runs(api, {f"{batch.kind}_import" for batch in unfinished})
            time.sleep(0.3)
        if before:  # there was something to do
            _wait_for_runs(api)
    out.print(_table(now))
    return not unfinished


def _progress(now: list[Batch], unfinished: int) -> Group:
    done = len(now) - unfinished
    return Group(_table(now), Spinner("dots", f"Airflow works: {done} of {len(now)} files are done"))


def _table(found: list[Batch]) -> Table:
    table = Table("#", Column("File", no_wrap=True), Column("Status", no_wrap=True), "What became of its records",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for batch in found:
        if batch.failed:
            # The first sentence; `rowledger show` has all of it.
            became = Text((batch.error_message or "").partition(". ")[0].rstrip("."), "red")
        else:
            became = Text(", ".join(f"{n:,} {outcome}" for outcome, n in batch.counts.items() if n))
        status = Text("failed", "red") if batch.failed else Text(batch.status.replace("_", " "))
        table.add_row(str(batch.seqno), Text(batch.file_name), status, became)
    return table


def _ask_for_runs(api: local.Api, dags: set[str]) -> None:
    """Trigger DAGs that have nothing to do with their schedule just now, such as after a start within one interval."""
    for dag in dags:
        if not _active_runs(api, dag):
            api.call("POST", f"/dags/{dag}/dagRuns", {"logical_date": None})


def _active_runs(api: local.Api, dag: str) -> int:
    return int(api.call("GET", f"/dags/{dag}/dagRuns?state=queued&state=running")["total_entries"])


def _wait_for_runs(api: local.Api) -> None:
    """Let Airflow note the end of its runs, too, so that a stop now leaves none of them open."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while any(_active_runs(api, dag) for dag in _dags()) and time.monotonic() < deadline:
        time.sleep(0.5)


def _drop_folders(settings: Settings) -> dict[Path, Feed]:
    """The folders of the feeds, made if need be: whatever is dropped there is imported."""
    found, _ = feeds.read_feeds(settings.feeds, loading.kinds())
    folders = {settings.home / feed.place: feed for feed in found if not feed.remote}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def _serve(connection: Connection, api: local.Api, folders: dict[Path, Feed]) -> NoReturn:
    """Until Ctrl-C: a file dropped into the folder of a feed need not wait for the quarter of an hour, and its end is told."""
    told = {batch.seqno for batch in _of_feeds(connection)}
    while True:
        time.sleep(DROP_SECONDS)
        with contextlib.suppress(TryAgain, local.ApiError):  # a part of all this is being started again
            dropped = {
                feed.kind
                for folder, feed in folders.items()
                if any(wanted(path.name, feed.pattern) for path in folder.iterdir() if path.is_file())
            }
            _ask_for_runs(api, {f"{kind}_import" for kind in dropped})
            ended = [
                batch for batch in _of_feeds(connection) if batch.status.terminal and batch.seqno not in told
            ]
            if ended:
                out.print(_table(ended))
                told |= {batch.seqno for batch in ended}


def _of_feeds(connection: Connection) -> list[Batch]:
    return [batch for batch in batches.listed(connection) if batch.uploaded_through == "feed"]


def _say_what_next(
    place: local.Place, settings: Settings, done: list[Batch], folders: dict[Path, Feed]
) -> None:
    most = max(done, key=lambda batch: (batch.succeeded, batch.counts["rejected"])).seqno
    folder = os.path.relpath(Path(sys.executable).parent)
    here = f"{folder}/" if (Path(folder) / "rowledger").exists() else ""
    out.print("What to try next:")
    for command, shows in (
        (f"rowledger show {most}", "one import batch: its outcomes and the commonest reasons"),
        (f"rowledger records {most} --outcome rejected", "every rejected record and why"),
        (f"rowledger rejects {most} > mend.csv", "the same as a file to mend and submit again"),
        (
            "rowledger contract F240001 --domain DEMO",
            "a contract: its status, its history and where that came from",
        ),
        ("rowledger check", "every invariant of the whole database"),
    ):
        out.print(f"  [bold]{here}{command}[/bold]\n      {shows}", soft_wrap=True)
    for drop, feed in folders.items():
        example = os.path.relpath(EXAMPLE)
        out.print(
            f"A feed takes what is dropped into its folder ({feed.title}); it appears here when it is done:\n"
            f"  [bold]cp {example} {os.path.relpath(drop)}/[/bold]",
            soft_wrap=True,
        )
    if folders:
        out.print(
            f"\nAirflow: [bold]{place.url}[/bold]   user [bold]{local.USER}[/bold]   password [bold]{place.password}[/bold]"
        )
        out.print(f"Logs: {settings.home / 'logs'}\nCtrl-C stops everything.")


def _settings() -> Settings:
    """The settings of the environment, with the embedded server and, unless told otherwise, this checkout's templates."""
    os.environ.setdefault("ROWLEDGER_TEMPLATES", str(local.ROOT / "include" / "templates"))
    os.environ.setdefault("ROWLEDGER_FEEDS", str(local.ROOT / "include" / "feeds"))
    return replace(from_environment(), database_url=None)


def _task_environment(settings: Settings, address: str) -> dict[str, str]:
    return {
        "AIRFLOW_CONN_ROWLEDGER": local.airflow_connection(address),
        "ROWLEDGER_HOME": str(settings.home),
        "ROWLEDGER_TEMPLATES": str(settings.templates),
        "ROWLEDGER_FEEDS": str(settings.feeds),
    }


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One demo per home at a time. Raises SetupError."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SetupError(f"A demo is running in {home} already; stop that one first.") from None
        yield


def _interrupt(*_: Any) -> NoReturn:
    """Stop once; an impatient second Ctrl-C must not leave processes behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    out.print("\nStopping …")
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
