"""
### Contacts and leads into PostgreSQL, with a ledger of what became of every record

**Waits for** uploaded files of the kind `contact`: import batches in the state *waiting*, and new
files of feeds. Every quarter of an hour `sense` takes what waits, at most 500 batches; with nothing waiting it ends *skipped*.

**Writes**, for each batch on its own, labelled with its number and file name:

| task | reads | writes |
|---|---|---|
| `validate` | the whole file | the rejected records with their reasons; nothing else yet |
| `load` | the accepted records | contacts, their origins and subscriptions, and the outcome of every record |
| `close` | the ledger | the batch as executed, if the ledger balances; an event of the asset `rowledger/contact` |

`settle` completes batches that failed or were cancelled with the cells of their refused records, and rolls back what
was asked for. `replay` is for records that wait for something; records of this kind never do, so it ends *skipped*.

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

CLOSED = [assets.outlet("contact")]
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
def contact_import() -> None:
    @task
    def sense() -> list[list[int]]:
        """Reserve the batches that wait; skip when there are none."""
        return tasks.sense("contact")

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
        tasks.replay("contact")

    @task
    def settle() -> None:
        """Complete what ended before its close, roll back what was asked for; skip when there is nothing."""
        tasks.settle("contact")

    @task_group
    def import_batch(share: list[int]) -> None:
        validate(share) >> load(share) >> close(share)

    shares = sense()
    import_batch.expand(share=shares)
    shares >> [settle(), replay()]


contact_import()
