"""
### An example: what to do whenever contract statuses went in

**Waits for** the asset `rowledger/contract_status`: every import batch of contract statuses that was executed and
processed. Several of them may start one run together.

**Writes** a line of the log for each batch. A report, an export or a model would begin here, with the number of the batch:
its records are in `rowledger.import_record`, its statuses in `rowledger.status_history`, each with this `seqno`.

**When a task is red**, clear it: the events of a run stay with it.

Copy this file into `dags/` and change what it does. An event is sent once for each batch, by the task that closed it; if
that task is killed in the very moment between, there is none. Who must not miss a batch remembers the last `seqno` and
asks for what came since (`rowledger list --json`, or the API).
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from airflow.sdk import dag, get_current_context, task

from rowledger.airflow import assets

STATUSES = assets.loaded("contract_status")


@dag(schedule=[STATUSES], start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, doc_md=__doc__)
def after_contract_statuses() -> None:
    @task
    def report() -> None:
        """Say what went in."""
        for event in get_current_context()["triggering_asset_events"][STATUSES]:
            extra = event.extra
            logging.info("Import batch %s of %s: %s", extra["seqno"], extra["domain"], extra["counts"])

    report()


after_contract_statuses()
