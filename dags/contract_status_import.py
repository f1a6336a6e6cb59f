"""
### Contract statuses into PostgreSQL, with a ledger of what became of every record

**Waits for** uploaded files of the kind `contract_status`: import batches in the state *waiting*, and new
files of feeds. Every quarter of an hour `sense` takes what waits, at most 500 batches; with nothing waiting it ends *skipped*.
Records that were parked because their contract or result code did not exist are replayed once it does.

**Writes**, for each batch on its own, labelled with its number and file name:

| task | reads | writes |
|---|---|---|
| `validate` | the whole file | the rejected records with their reasons; nothing else yet |
| `load` | the accepted records | statuses, their history, and the outcome of every record |
| `close` | the ledger | the batch as executed, if the ledger balances; an event of the asset `rowledger/contract_status` |

and, once a run, in any order with them, for dates decide and not arrival:

| task | reads | writes |
|---|---|---|
| `replay` | parked records whose contract or code exists by now | the same as `load`; what became of each stands with it |
| `settle` | batches that failed or were cancelled; roll backs that were asked for | the cells of refused records; what a roll back restores |

The log of a task ends with the outcomes of its batch so far; the tab *Import records* has its records, and the link
*Import batch* under *Details* opens its page.

**When a task is red**, its log says above the traceback what is wrong, and so who can mend it.
- *The file is wrong* (`validate`): upload it again once its sender has mended it. Nothing of it was loaded.
- *The set-up is wrong*, such as a missing list of values: mend it, then clear the task. The batch is opened again
  and goes on. Clearing a task of a batch that has succeeded changes nothing.
- *The database was away* for longer than the retries lasted: clear the task. What is loaded stays, the rest follows.

A task that was *skipped* says in its log who paused or cancelled its batch (`rowledger resume` lets the next run go
on), or that another try has taken the batch over. A `load` that is *up for reschedule* waits for an earlier file of
its domain. A huge file is worked in parts, each a task of its own; they wait for each other between the steps.

Pausing this DAG stops new batches from being taken on, not those in progress.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task, task_group

from rowledger.airflow import assets, tasks
from rowledger.airflow.batch_task import batch_task

CLOSED = [assets.outlet("contract_status")]
LABEL = "{{ batch if batch is defined else '#' ~ task.op_args[0][0] }}"


@dag(
    schedule="*/15 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=2,  # while one run is at a big file, the next one takes what other domains have
    default_args={
        "retries": 4,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 3,
        "max_retry_delay": timedelta(minutes=5),
        "weight_rule": "upstream",  # what is begun is brought to its end first
    },
    doc_md=__doc__,
    tags=["rowledger"],
)
def contract_status_import() -> None:
    @task
    def sense() -> list[list[int]]:
        """Reserve the batches that wait; skip when there are none."""
        return tasks.sense("contract_status")

    @batch_task(map_index_template=LABEL)
    def validate(share: list[int]) -> None:
        """Read the whole file and give every record a verdict."""
        tasks.validate(share)

    @batch_task(map_index_template=LABEL)
    def load(share: list[int]) -> None:
        """Merge the accepted records into their targets, and enter in the ledger what became of each."""
        tasks.load(share)

    @batch_task(map_index_template=LABEL, inlets=CLOSED, outlets=CLOSED)
    def close(share: list[int]) -> None:
        """Balance the ledger and close the batch."""
        tasks.close(share)

    @task
    def replay() -> None:
        """Apply the parked records that waited for what exists by now; skip when there are none."""
        tasks.replay("contract_status")

    @task
    def settle() -> None:
        """Complete what ended before its close, roll back what was asked for; skip when there is nothing."""
        tasks.settle("contract_status")

    @task_group
    def import_batch(share: list[int]) -> None:
        validate(share) >> load(share) >> close(share)

    shares = sense()
    import_batch.expand(share=shares)
    shares >> [settle(), replay()]


contract_status_import()
