"""What answers look like, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

BATCH: dict[str, Any] = {
    "seqno": 42, "parent_seqno": None, "kind": "contact", "domain": "DEMO", "template": "contacts",
    "file_name": "contacts_may.csv", "file_bytes": 120043, "uploaded_by": "mia", "uploaded_through": "api",
    "uploaded_at": "2026-05-04T08:12:03.120Z", "status": "executed", "state": "succeeded", "import_completed": True,
    "processed": True, "error_rule": None, "error_message": None, "warnings": [], "records_in_file": 1000,
    "counts": {"created": 820, "updated": 100, "unchanged": 60, "rejected": 20},
    "origins": ["SPRING_FAIR"], "subscriptions": [], "children": [],
    "etag": '"5b0c9d2f7a1e4c38"', "replayed": {}, "roll_back": None,
}  # fmt: skip
STATUS_RECORDS = {"records": [
    {"form_id": "F241002", "date_result": "2026-05-31", "result_code": "20"},
    {"form_id": "F241003", "date_result": "2026-05-31", "result_code": "90", "agent": "mia", "remark": "moved away"},
]}  # fmt: skip
STATUS_BATCH = BATCH | {
    "seqno": 43, "kind": "contract_status", "template": "contract_status_records", "file_name": "contract_statuses.csv",
    "file_bytes": 143, "status": "waiting", "state": "waiting", "import_completed": False, "processed": False,
    "records_in_file": None, "counts": {},
}  # fmt: skip
PAGE = {"batches": [BATCH], "next_cursor": "WyJzZXFubyIsICI0MiIsIDQyXQ"}
TOTALS = {"groups": [{"group": "contact", "batches": 12, "failed": 1, "unfinished": 0, "records": 12000,
                      "created": 9000, "rejected": 240}]}  # fmt: skip
EVENT = {"events": [{"occurred_at": "2026-05-04T08:12:03.120Z", "event": "uploaded", "by": "mia",
                     "detail": "contacts_may.csv"}]}  # fmt: skip
RECORD = {"record_no": 17, "outcome": "rejected", "target_id": None, "warnings": None,
          "reasons": [{"rule": "required", "column": "Last name", "value": None,
                       "message": '"Last name" is empty; every record needs one.'}],
          "raw": ["K10017", "a@example.com", ""]}  # fmt: skip
REJECTS = (
    '"Customer number","Email","Last name","rowledger_reasons"\r\n'
    '"K10017","a@example.com","","rowledger: ""Last name"" is empty; every record needs one."\r\n'
)
OUTCOMES = (
    '"record","outcome","rules","reasons","warnings","cells","replayed","rolled back"\r\n'
    '"17","rejected","required","""Last name"" is empty; every record needs one.","","[""K10017""]","",""\r\n'
)
REASONS = {"records_in_file": 1000, "complete": True,
           "reasons": [{"outcome": "rejected", "rule": "required", "column": "Last name", "records": 20,
                        "share": 0.02, "examples": [{"record_no": 17, "value": None,
                                                     "message": '"Last name" is empty; every record needs one.'}]}]}  # fmt: skip
WAITING = {"groups_in_all": 1, "records_in_all": 60,
           "groups": [{"domain": "DEMO", "kind": "contract_status", "waits_for": "status", "key": "77", "records": 60,
                       "batches": [42, 45], "since": "2026-05-04T08:12:03.120Z", "first_seqno": 42, "first_record": 17,
                       "exists_now": False}]}  # fmt: skip
GIVEN_UP = {"given_up": 60, "batches": [{"seqno": 42, "given_up": 40}, {"seqno": 45, "given_up": 20}],
            "message": "60 parked records are given up, of 2 import batches."}  # fmt: skip
CHECK = {"records_in_file": 2, "counts": {"created": 1, "rejected": 1}, "error_rule": None, "error_message": None,
         "warnings": [], "complete": True, "file_bytes": 93, "uploaded_before": None,
         "reasons": [{"rule": "required", "column": "Last name", "records": 1, "first_record": 2,
                      "example": "Last name is empty, but must be filled in."}],
         "columns": [{"name": "Email", "field": "email"}, {"name": "Last name", "field": "last_name"}],
         "records": [{"record_no": 1, "outcome": "created", "reasons": None, "warnings": None,
                      "cells": ["Ann@Example.com", "Adams"], "values": {"email": "Ann@example.com", "last_name": "Adams"}},
                     {"record_no": 2, "outcome": "rejected", "warnings": None, "cells": ["b@example.com", ""], "values": None,
                      "reasons": [{"rule": "required", "column": "Last name", "value": None,
                                   "message": "Last name is empty, but must be filled in."}]}]}  # fmt: skip
PROBLEM = {"type": "about:blank", "title": "Conflict", "status": 409, "seqno": 42,
           "detail": "The same file was uploaded before with the same template and domain, as import batch 42."}  # fmt: skip


def answers(
    status: int, example: Any, media_type: str = "application/json"
) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: what it answers, and that everything else is a problem document."""
    problem = {
        "description": "A problem, in a sentence",
        "content": {"application/problem+json": {"example": PROBLEM}},
    }
    return {
        status: {"description": "As in the example", "content": {media_type: {"example": example}}},
        "4XX": problem,
    }
