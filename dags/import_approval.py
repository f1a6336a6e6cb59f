"""
### Unusual files of feeds, before a person

**Waits for** import batches that a feed has held: their number of records, their share of rejects or their churn
statuses are far from what is usual for the feed (`unusual` in its file, see docs/feeds.md). Every five minutes `held`
takes up those that nobody is asked about yet; with none it ends *skipped*.

**Writes** nothing but the answer. `ask`, one task a batch, waits under *Required actions* in this UI, with the reasons
and the counts of a dry run:

| answer | what becomes of the batch |
|---|---|
| Approve | it is resumed; the next run of its DAG loads it |
| Reject | it is cancelled; nothing of it is loaded |

The name of whoever answered stands in the events of the batch. To resume or to cancel it on the desk, or with
`rowledger resume` and `rowledger cancel`, is an answer as well: `ask` finds out within minutes and ends.

**When a task is red**, its log says above the traceback what is wrong. *The database was away* when the answer came:
clear the task, it carries out the answer. To mark a task as failed or as a success decides nothing: the batch stays held, and is
asked about again within a quarter of an hour.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import dag, task

from rowledger.airflow import approval

LABEL = "{{ batch if batch is defined else '#' ~ task.seqno }}"


@dag(
    schedule="*/5 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=100,  # a run lasts until its last batch is decided
    default_args={
        "retries": 4,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 3,
        "max_retry_delay": timedelta(minutes=5),
    },
    doc_md=__doc__,
    tags=["rowledger"],
)
def import_approval() -> None:
    @task
    def held() -> list[dict[str, Any]]:
        """Take up the batches that wait for a person; skip when there are none."""
        return approval.held()

    ask = approval.BatchApproval.partial(task_id="ask", map_index_template=LABEL)
    ask.expand_kwargs(held())


import_approval()
