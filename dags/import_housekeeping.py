"""
### What need not be kept any more, removed

**Waits for** nothing but the day: soon after one in the morning UTC it removes what the retention of each domain does not
keep any longer. `include/retention.yml` says for how many days; what it does not mention is kept for ever.

**Removes**, of batches that ended so many days ago:
- *files*: the uploaded file. A file that several batches share stays as long as one of them needs it. Such a batch cannot
  be reprocessed any more, nor opened again if it has failed, and it says so.
- *cells*: the cells of its rejected, ignored and parked records, and what reasons, warnings and examples quote of them.
  Outcome, rule and column of every record stay.
- *ledger*: what became of every record, a volume at a time: when all batches of the domain in a span of about a month have
  ended so many days ago. Batches, their counts and why how many records were not loaded stay; the records cannot be seen,
  exported, mended or rolled back any more.
- *history*: the histories of contracts and of subscriptions, a year at a time: when all of its days are so many days past.
  A contract keeps the last status of before, a contact the last change of each list.
- *parked*: nothing, but the waiting of its parked records: those whose code or contract has not come are given up.
- *staging*: the staged records of a batch that has failed. It cannot be opened again then.
- *upload keys*: Idempotency-Keys, counted from their use.

And whatever the retention says: staging tables of batches that have succeeded or were cancelled, uploads that have become
no batch within a day, and what uploads and dry runs have left that were killed.

Batches that have not ended, that are being rolled back, or for which something is still to be read from their file are
left alone until another day, and so is a volume of the ledger or a history that somebody reads just then. Batches,
contacts and contracts are never removed.

**Writes** what was removed: as the last lines of the log of `clean`, in the table `housekeeping_removed`, and as an event
of each batch.
`rowledger housekeeping --dry-run` tells beforehand what would be removed, and `rowledger housekeeping` removes it now.

**A run that is late, missing, doubled or killed** does no harm: the next one removes the rest.

**When a task is red**, its log says above the traceback what is wrong, and so who can mend it.
- *The retention is wrong*, or names a domain that does not exist: mend `include/retention.yml`, then clear the task.
- *Most kept files belong to no batch*: the folder of uploads and the database do not belong together; nothing that is
  unknown was removed.
- *The database was away* for longer than the retries lasted: clear the task, or leave it to the next day.

Pausing this DAG keeps everything.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task

from rowledger.airflow import tasks


@dag(
    schedule="20 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 4,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 3,
        "max_retry_delay": timedelta(minutes=5),
    },
    doc_md=__doc__,
    tags=["rowledger"],
)
def import_housekeeping() -> None:
    @task
    def clean() -> None:
        """Remove what need not be kept any more."""
        tasks.keep_house()

    clean()


import_housekeeping()
