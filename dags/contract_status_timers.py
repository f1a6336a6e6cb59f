"""
### Contract statuses that are given automatically, N days after sign-up

**Waits for** nothing but the day: soon after midnight UTC it gives every contract status that has *given automatically
after N days* to the contracts that signed up so many days ago.

**Writes** an entry in the history of the contract, with the cause `timer` and the date on which the status fell due. It
becomes the current status unless the history has something later. A contract is passed over that was at a definitive
status on that day, or had had the status before; so is a status or domain that is retired.

The log of `give` ends with what was given: domain, result code, to how many contracts, and how many of these have moved
on already, so that it stands in their history only.

**A run that is late, missing, doubled or killed** does no harm: the next one gives all that is due, dated as daily runs
would have dated it. What a run has given it does not give again. There is no past run to be made up for.
`rowledger timers --next 7d` tells beforehand what will be given, and `rowledger timers` gives what is due now.

**When a task is red**, its log says above the traceback what is wrong, and so who can mend it.
- *The set-up is wrong*, such as a missing connection: mend it, then clear the task.
- *The database was away* for longer than the retries lasted: clear the task, or leave it to the next day.

Pausing this DAG stops statuses from being given until it goes on; then it gives them all, each with its own date.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task

from rowledger.airflow import tasks


@dag(
    schedule="10 0 * * *",
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
def contract_status_timers() -> None:
    @task
    def give() -> None:
        """Give every contract the statuses that are due."""
        tasks.give()

    give()


contract_status_timers()
