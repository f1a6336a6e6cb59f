"""A process that judges files for one that must not: ``judges`` starts it, writes a case a line, and reads the answers.

It keeps nothing, and ends when its input does, in the middle of a file too: whoever asked is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from rowledger import db, heads, judges, loading, pipeline
from rowledger.dry_run import Trial, dry_run
from rowledger.errors import FileError, RowledgerError
from rowledger.judges import Case, Judgement
from rowledger.records_in import Records
from rowledger.settings import Settings
from rowledger.templates import ImportTemplate, parse_template

REASONS = 20
log = logging.getLogger("rowledger.judge")


def main() -> None:
    """Answer until the input ends."""
    cases: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(cases,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    from rowledger import suites

    suites.warm()
    while True:
        print(json.dumps(_answer(cases.get()), default=str), file=answers, flush=True)


def _read(cases: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        cases.put(line)
    os._exit(0)


def _answer(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
        codes = {name: tuple(told[name]) for name in ("origins", "subscriptions")}
        return vars(judged(Case(**told | codes)))
    except RowledgerError as error:
        return {"error": judges.named(error), "message": str(error)}
    except Exception:
        log.exception("A file could not be judged")
        return {"error": "", "message": "Rowledger itself failed; the log of the API server has the details."}


def judged(case: Case) -> Judgement:
    """What an import of the file would do today. Raises UnknownCode, SetupError or TryAgain."""
    template = parse_template(case.source, case.template, loading.kinds(), f"template {case.template}")
    settings, path = Settings(Path(case.folder), Path(case.folder)), Path(case.path)
    if case.part:
        _cut(path, template, sys.maxsize)
    with contextlib.closing(db.connect(case.url, "rowledger-judge")) as connection:
        worker = pipeline.Worker(connection, settings, case.by, excerpt=case.part)
        codes = {"origins": case.origins, "subscriptions": case.subscriptions}
        with dry_run(worker, path, template, case.suite_hash, case.domain, **codes) as trial:
            return _told(trial, case, path, template, settings)


def _told(trial: Trial, case: Case, path: Path, template: ImportTemplate, settings: Settings) -> Judgement:
    batch = trial.batch
    columns, cells = _first_cells(
        path, template, settings, case.first if case.cells and batch.records_in_file else 0
    )
    records = [
        {name: record[name] for name in ("record_no", "outcome", "reasons", "warnings")}
        | {"cells": cells.get(record["record_no"]), "values": record["after"]}
        for record in (trial.records(limit=case.first) if case.first else ())
    ]
    return Judgement(
        batch.records_in_file, batch.as_dict()["counts"], batch.error_rule, batch.error_message, batch.warnings,
        trial.reasons(REASONS), columns, records,
    )  # fmt: skip


def _first_cells(
    path: Path, template: ImportTemplate, settings: Settings, count: int
) -> tuple[list[dict[str, Any]], dict[int, list[str]]]:
    """The columns of a file, and the cells of its first records by their numbers."""
    beginning, cells = path.with_suffix(".first"), dict[int, list[str]]()
    if not count:
        return [], cells
    with path.open("rb") as source:
        beginning.write_bytes(source.read(heads.HEAD_BYTES))
    _cut(beginning, template, count, whole=path.stat().st_size <= heads.HEAD_BYTES)
    with contextlib.suppress(FileError), Records(beginning, template, settings.scratch) as records:
        layout = records.layout
        fields = {place: column.field for place, column in zip(layout.places, template.columns, strict=True)}
        columns = [
            {"name": name, "field": fields.get(place)} for place, name in enumerate(layout.names_by_place())
        ]
        for chunk in records.chunks(0, count):
            cells |= {reject.record_no: list(reject.raw) for reject in chunk.rejects}
            for row in chunk.cells.to_pylist():
                number = row.pop("record_no")
                cells[number] = list(row.values())
        return columns, cells
    return [], cells


def _cut(path: Path, template: ImportTemplate, count: int, *, whole: bool = False) -> None:
    """Leave no more than the first records; the file as it is if none of them comes to its end."""
    first = heads.first_records(path.read_bytes(), template, count, whole=whole)
    if first is not None:
        path.write_bytes(first)


if __name__ == "__main__":
    main()
