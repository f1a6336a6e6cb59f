"""What answers about operations look like, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from rowledger.desk.examples import BATCH

NOW: dict[str, Any] = {
    "now": "2026-05-04T08:20:00Z",
    "waiting": [
        {"kind": "contact", "state": "waiting", "feed": None, "batches": 3, "oldest": 44,
         "oldest_at": "2026-05-04T08:05:00Z", "age": 900, "troubled": 1, "why": "The database is away.",
         "dag_paused": False, "next_run": "2026-05-04T08:30:00Z"},
        {"kind": "contract_status", "state": "held", "feed": "call_centre", "batches": 1, "oldest": 41,
         "oldest_at": "2026-05-04T06:00:00Z", "age": 8400, "troubled": 0,
         "why": "3 records, usually 1,000", "dag_paused": None, "next_run": None},
    ],
    "running": [BATCH | {"seqno": 43, "status": "in_progress", "state": "in_progress", "processed": False,
                         "progress": {"doing": "Loading", "done": 400, "of": 1000, "rate": 200.0, "left": 3.0, "share": 0.4},
                         "worked_on": True, "silent_since": None}],
    "running_in_all": 1,
}  # fmt: skip
FEEDS: dict[str, Any] = {
    "feeds": [{"name": "call_centre", "title": "Results of the call centre", "there": True, "kind": "contract_status",
               "domain": "DEMO", "template": "result_codes", "looked_at": "2026-05-04T08:15:00Z",
               "last_file_at": "2026-05-03T05:45:00Z", "missing_since": None, "trouble": None,
               "file_name": "results_2026_05_03.csv", "seqno": 40, "duplicate": False, "state": "succeeded",
               "records": 1000, "rejected": 12, "held": 0, "next_due": "2026-05-05T06:00:00Z", "broken": False}],
    "wrong": [{"name": "agency.yml", "message": "agency.yml, line 3, kind: must be one of contact, contract, not 'x'."}],
    "no_folder": None,
}  # fmt: skip
_BY_DAY = [0, 12, 0, 40, 3, 0, 7]
REJECTIONS: dict[str, Any] = {
    "days": [f"2026-05-{day:02d}" for day in range(1, 8)],
    "since": "2026-05-01",
    "feeds": [{"feed": "call_centre", "batches": 7, "of_records": 7000, "records": 62, "share": 0.008857,
               "by_day": _BY_DAY}],
    "reasons": [{"template": "result_codes", "kind": "contract_status", "rule": "format", "column": "Date result",
                 "records": 62, "batches": 4, "last_seqno": 40, "of_records": 7000, "share": 0.008857,
                 "feed": "call_centre", "of_feed": 62, "by_day": _BY_DAY}],
    "of_batches": 7, "of_records": 7000, "records": 62, "at_most_batches": 10000,
}  # fmt: skip
DAYS: dict[str, Any] = {
    "days": [{"day": "2026-05-07", "batches": 12, "failed": 1, "cancelled": 0, "unfinished": 2, "records": 12000,
              "created": 9000, "updated": 2000, "unchanged": 700, "historic": 0, "ignored": 0, "parked": 60,
              "rejected": 240, "unprocessed": 0}],
    "unsent": [{"scope": "feed call_centre", "channel": "mail", "created_at": "2026-05-07T08:00:00Z", "tries": 3,
                "given_up_at": None}],
}  # fmt: skip
