"""
### Who is told of what became of files

**Waits for** what happened to batches and feeds: *executed*, *failed*, *held* before a person, *missing*. Every five
minutes `tell` looks what is new since it was told last; with nothing new it ends *skipped*. Who is told of what stands in
the file of a feed (`tell`), or for a whole domain in `domains.yml` beside it; see docs/feeds.md.

**Writes** one message with all that is new for each feed or domain and each of its channels:

| channel | sent by | needs |
|---|---|---|
| mail | Airflow's `SmtpNotifier` | the Airflow connection `smtp_default` |
| webhook | a signed POST request with JSON | an Airflow connection whose password signs it |

A message is sent at least once, each time under the same id, and has counts and names of files, never a value of a file.

**When a task is red**, its log says which message was not taken, and why: a mail server or a webhook that does not
answer, a connection that does not exist. Mend that; the message is tried again for a day, other messages go their way
meanwhile. `rowledger feeds` lists what could not be sent. A `domains.yml` that is wrong is told with its line: what
happened in its domains is told when it is mended, what feeds say is told meanwhile.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task

from rowledger.airflow import notices


@dag(
    schedule="*/5 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 3,
        "execution_timeout": timedelta(minutes=15),  # the next try begins with the others
    },
    doc_md=__doc__,
    tags=["rowledger"],
)
def import_notices() -> None:
    @task
    def tell() -> None:
        """Tell people and programs what is new; skip when there is nothing."""
        notices.tell()

    tell()


import_notices()
