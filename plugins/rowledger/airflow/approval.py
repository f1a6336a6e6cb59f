"""Unusual batches before a person, in Airflow's own page of required actions.

A held batch is a paused one: whoever resumes or cancels it on the desk has decided as well. So the task that asks comes
back every few minutes, and ends when there is nothing left to decide. What is shown are counts, never values of a file.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.triggers.hitl import HITLTrigger
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSkipException, TaskAwaitingInput, TaskDeferred
from airflow.triggers.base import TriggerEvent

from rowledger import batches, control, pipeline
from rowledger.airflow.tasks import LABEL, task_states, worker_of_task
from rowledger.errors import NotPossible, RowledgerError
from rowledger.feeds import unusual
from rowledger.feeds.unusual import Held
from rowledger.model import Batch
from rowledger.settings import from_environment

log = logging.getLogger("rowledger.airflow")
HELD_PER_RUN = 20
TRIGGER_TIMEOUT = timedelta(minutes=1)  # after which a try fails whose answer no triggerer has looked up


def held() -> list[dict[str, Any]]:
    """What to ask about the batches that wait for a person and that no task asks about; skip when there are none."""
    with task_states(), worker_of_task() as mine:
        questions = list(_questions(mine))
    if not questions:
        raise AirflowSkipException("No import batch waits for approval.")
    return questions


def _questions(mine: pipeline.Worker) -> Iterator[dict[str, Any]]:
    """One question after the other; all of them stay ours while the file of each is tried out, which may take minutes."""
    found = unusual.take_up(mine.connection, _lease(), HELD_PER_RUN)
    for one in found:
        if one.seqno in unusual.keep_asking(mine.connection, [each.seqno for each in found], _lease()):
            yield _question(mine, one)


def _lease() -> int:
    """Seconds for which a batch belongs to the task that asks: it says so far more often."""
    return 3 * from_environment().approval_seconds


def _question(mine: pipeline.Worker, one: Held) -> dict[str, Any]:
    batch = batches.get(mine.connection, one.seqno)
    return {
        "seqno": one.seqno,
        "subject": f"Import batch {batch.seqno} of {batch.domain} is unusual: load it?",
        "body": "\n".join(_body(batch, one, _trial(mine, batch))),
    }


def _trial(mine: pipeline.Worker, batch: Batch) -> Batch | str:
    """The batch as it would end today; a sentence if it would fail, or if that cannot be told."""
    from rowledger.dry_run import dry_run

    try:
        template = pipeline.template_of(mine.connection, batch)
        origins, subscriptions = batches.choices(mine.connection, batch.seqno)
        with (
            _file(mine, batch) as path,
            dry_run(mine, path, template, batch.suite_hash, batch.domain,
                    origins=origins, subscriptions=subscriptions) as trial,
        ):  # fmt: skip
            if trial.batch.failed:
                return f"It would fail today ({trial.batch.error_rule}), and nothing of it would be loaded."
            return trial.batch
    except RowledgerError as error:
        return f"What would become of it cannot be told: {error.in_log}"
    except OSError as error:  # whose file name is a path of this machine
        why = error.strerror or type(error).__name__
        return f"What would become of it cannot be told: its file cannot be read or copied just now ({why})."


@contextmanager
def _file(mine: pipeline.Worker, batch: Batch) -> Iterator[Path]:
    """The file of a batch under a name of its own."""
    scratch = mine.settings.scratch
    scratch.mkdir(parents=True, exist_ok=True)
    with mine.file(batch) as kept, tempfile.TemporaryDirectory(dir=scratch) as folder:
        yield Path(shutil.copyfile(kept, Path(folder) / "file"))


def _body(batch: Batch, one: Held, trial: Batch | str) -> list[str]:
    lines = [
        f"Feed `{one.feed}`, file `{batch.file_name.replace('`', '')}`, held {one.held_at:%Y-%m-%d %H:%M} UTC:",
        "",
        *(f"- {why}" for why in one.why.split("; ")),
        "",
    ]
    if isinstance(trial, str):
        return [*lines, trial]
    counts = {outcome: count for outcome, count in trial.counts.items() if count}
    return [
        *lines,
        "What would become of its records today (a dry run; nothing is loaded yet):",
        "",
        "| outcome | records |",
        "|---|---:|",
        *(f"| {outcome} | {count:,} |" for outcome, count in counts.items()),
        f"| **all** | **{trial.records_in_file or 0:,}** |",
        "",
        "*Approve*: the next run loads it. *Reject*: it is cancelled, and nothing of it is loaded.",
    ]


class EarlierAnswer(HITLTrigger):
    """Looks up what an earlier try was answered, also of a try that was lost before it asked."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where the triggerer finds this class, and its arguments."""
        return f"{__name__}.{type(self).__name__}", super().serialize()[1]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The answer, or that there is none."""
        try:
            async for event in super().run():
                yield event
        except AirflowRuntimeError as error:
            if (error.error.detail or {}).get("status_code") != HTTPStatus.NOT_FOUND:
                raise
            yield TriggerEvent({"error": "It was not asked.", "error_type": "unknown"})  # type: ignore[no-untyped-call]


class BatchApproval(ApprovalOperator):
    """Asks about one batch, and resumes or cancels it in the name of whoever answers."""

    def __init__(self, *, seqno: int, **options: Any) -> None:
        super().__init__(**options, response_timeout=timedelta(seconds=from_environment().approval_seconds))
        self.seqno = seqno

    def execute(self, context: Context) -> Any:
        """Ask, unless the batch was decided by now or somebody has answered an earlier try.

        Earlier tries are lost to a database that was away, or to Airflow: its scheduler may take the end of the process
        that asked for that of the one that is to carry out an answer which came at once. To ask anew would be to forget
        that answer, and only a trigger may read it.
        """
        self._label(context)
        if not self._undecided():
            return None
        mine = context["ti"]
        if mine.try_number == 1:
            return super().execute(context)
        look = EarlierAnswer(
            ti_id=mine.id, options=self.options, params={}, timeout_datetime=datetime.now(UTC)
        )
        raise TaskDeferred(trigger=look, method_name="answered_before", timeout=TRIGGER_TIMEOUT)

    def answered_before(self, context: Context, event: dict[str, Any]) -> Any:
        """Carry out what an earlier try was answered; ask when it was not."""
        if "error" not in event:
            return self.execute_complete(context, event)
        self._label(context)
        return super().execute(context) if self._undecided() else None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Carry out what was answered; without an answer look whether it was decided elsewhere, and wait on."""
        self._label(context)
        if event.get("error_type") != "timeout":
            answer = super().execute_complete(context, event)
            self._decide(answer["chosen_options"][0], (answer["responded_by_user"] or {}).get("name"))
            return answer
        if self._undecided():
            raise TaskAwaitingInput(method_name="execute_complete", timeout=self.response_timeout)
        return None  # a task cannot give the answer itself; that it has ended takes it off the list

    def _label(self, context: Context) -> None:
        context[LABEL] = f"#{self.seqno}"  # type: ignore[literal-required]  # a context takes any key

    def _undecided(self) -> bool:
        """Whether the batch still waits for a person; it goes on belonging to this task then."""
        with task_states(), worker_of_task() as mine:
            waits = unusual.keep_asking(mine.connection, [self.seqno], _lease())
        if not waits:
            log.info("Import batch %s was decided already, or its batch has ended.", self.seqno)
        return bool(waits)

    def _decide(self, answer: str, name: str | None) -> None:
        by = name or "somebody"
        with task_states(), worker_of_task() as mine:
            if not unusual.keep_asking(mine.connection, [self.seqno], _lease()):
                log.info("Import batch %s was decided already.", self.seqno)
                return
            try:
                if answer == self.APPROVE:
                    control.resume(mine.connection, self.seqno, by=by, why="approved in Airflow")
                else:
                    control.cancel(mine.connection, self.seqno, by=by, why="refused in Airflow")
            except NotPossible as error:
                log.info("%s", error)
                return
        log.info("Import batch %s: %s by %s", self.seqno, answer.lower(), by)
