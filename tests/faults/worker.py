"""What a worker process does: the steps of a scenario, one after the other, each as a task of Airflow would."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from faults import injection, scenarios
from faults.nursery import FENCED, GONE
from rowledger import db, pipeline
from rowledger.errors import Fenced, TryAgain
from rowledger.settings import Settings

ROOT = Path(__file__).parents[2]


class _Hurried:
    """The clock of the pipeline, whose waits between tries are fifty times shorter."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 50)


def settings_of(job: dict[str, Any]) -> Settings:
    return Settings(Path(job["home"]), ROOT / "include" / "templates", job["url"], **job["settings"])


def run(job: dict[str, Any]) -> int:
    """Do a job; what one has is in ``harness.Life``."""
    logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(message)s")
    logging.getLogger("rowledger").setLevel(logging.INFO)
    trace = injection.Trace(job["trace"])
    faults = {int(number): kind for number, kind in job.get("faults", {}).items()}
    injection.inject(injection.Points(trace, faults, job.get("stop_after"), job.get("stop_inside")))
    pipeline.time = _Hurried()  # type: ignore[assignment]
    scenario = scenarios.SCENARIOS[job["scenario"]]
    steps = scenarios.steps_of(job["seqno"]) if "seqno" in job else scenario.steps
    if job.get("prepare"):
        _do(scenarios.Step("prepare", lambda worker: scenario.prepare(worker, Path(job["home"]))), job)
        return 0
    for place in range(job["first"], job.get("last", len(steps))):
        trace.write("step", place)
        try:
            _do(steps[place], job)
        except TryAgain as error:
            trace.write("again", error)
            return GONE
        except Fenced as error:
            trace.write("fenced", error)
            return FENCED
    trace.write("done")
    return 0


def _do(step: scenarios.Step, job: dict[str, Any]) -> None:
    with closing(db.connect(job["url"])) as connection:
        worker = pipeline.Worker(connection, settings_of(job), "worker")
        try:
            step.do(worker)
        except Exception as error:
            if step.raises is None or not isinstance(error, step.raises):
                raise
        else:
            assert step.raises is None, f"{step.name} did not raise {step.raises}"
