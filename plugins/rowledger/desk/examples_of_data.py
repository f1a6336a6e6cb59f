"""What answers about contracts, contacts, templates and reference data look like, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_ENTRY: dict[str, Any] = {
    "code": "20", "description": "Called", "phase": "NEW", "phase_description": "New contracts", "definitive": False,
    "churn": False, "date_result": "2026-02-01", "recorded_at": "2026-02-03T08:15:04Z", "cause": "import", "seqno": 42,
    "record_no": 17, "previous_code": "10", "file_name": "result_codes_may.csv", "uploaded_by": "mia",
}  # fmt: skip
CONTRACT: dict[str, Any] = {
    "contract_id": 1201, "domain": "DEMO", "form_id": "F241002", "sign_up_date": "2026-01-12", "current": _ENTRY,
    "history": [_ENTRY], "contact_id": 88, "contact": "K10001", "contact_name": "Ada Byron",
    "touches": [{"seqno": 7, "record_no": 3, "outcome": "created", "before": None, "recorded_at": "2026-01-13T09:00:02Z",
                 "file_name": "contracts_may.csv", "uploaded_by": "mia", "rolled_back_at": None}],
    "withdrawn": [], "had": [], "as_of": {"on": "2026-02-02", "known_at": None, "status": _ENTRY, "not_kept": None},
}  # fmt: skip
CONTACT: dict[str, Any] = {
    "contact_id": 88, "domain": "DEMO",
    "fields": {"external_id": "K10001", "email": "ada@example.com", "last_name": "Byron", "lead": False,
               "roles": ["customer"], "attributes.loyalty_card": "L-7", "created_at": "2026-01-02T10:00:00Z"},
    "contracts": [{"contract_id": 1201, "form_id": "F241002", "sign_up_date": "2026-01-12", "status": "20",
                   "description": "Called", "phase": "NEW", "date_result": "2026-02-01"}],
    "origins": [{"code": "FAIR", "name": "Trade fair", "active": True, "first": True, "added_at": "2026-01-02T10:00:00Z",
                 "seqno": 5, "record_no": 1, "file_name": "contacts_may.csv", "uploaded_by": "mia"}],
    "subscriptions": [{"list_id": "NEWS", "name": "Newsletter", "type": "email", "disabled": False, "opted_in": True,
                       "changed_at": "2026-01-02T10:00:00Z"}],
    "subscription_history": [{"recorded_at": "2026-01-02T10:00:00Z", "list_id": "NEWS", "name": "Newsletter",
                              "type": "email", "opted_in": True, "seqno": 5, "record_no": 1,
                              "file_name": "contacts_may.csv", "uploaded_by": "mia", "withdrawn_at": None}],
    "records": [{"recorded_at": "2026-03-01T10:00:00Z", "seqno": 9, "record_no": 4, "outcome": "updated",
                 "changes": {"city": {"before": "Köln", "after": "Bonn"}}, "reasons": None, "warnings": None,
                 "file_name": "contacts_june.csv", "uploaded_by": "mia", "uploaded_at": "2026-03-01T09:58:00Z",
                 "origins_added": [], "opted_in": [], "opted_out": [], "rolled_back_at": None}],
    "totals": {"records": 2, "subscription_history": 1, "contracts": 1}, "history_kept_from": None,
}  # fmt: skip
_USE: dict[str, Any] = {"versions": 2, "batches": 120, "last_used_at": "2026-05-04T08:12:03Z"}
TEMPLATES: dict[str, Any] = {
    "templates": [
        {"name": "contacts", "kind": "contact", "title": "Contacts by header", "there": True} | _USE
    ],
    "wrong": [
        {"name": "draft", "message": "draft.yml, line 3, kind: must be one of contact, contract, not 'x'."}
    ],
}
TEMPLATE: dict[str, Any] = {
    "name": "contacts", "kind": "contact", "title": "Contacts by header", "hash": "0f3c…", "there": True,
    "file": ["cells separated by commas", "saved as UTF-8"], "policies": ["A row is found by Customer number."],
    "columns": [{"name": "Email", "field": "email", "position": None, "aliases": ["E-mail"], "severity": "reject",
                 "rules": ["an email address"], "writing": ["finds the contact"]}],
    "suite_hash": "9a41…",
    "suite": [{"type": "expect_column_values_to_be_rowledger_email", "kwargs": {"column": "Email"},
               "meta": {"column": 1, "rule": "format"}, "severity": "critical"}],
    "versions": [{"template_hash": "0f3c…", "suite_hash": "9a41…", "first_used_at": "2026-05-01T08:00:00Z",
                  "batches": 100, "last_seqno": 42, "last_used_at": "2026-05-04T08:12:03Z"}],
    "rejections": {"of_batches": 100, "of_records": 200000, "at_most_batches": 200,
                   "rules": [{"outcome": "rejected", "rule": "format", "column": "Email", "records": 210,
                              "share": 0.00105, "batches": 60, "last_seqno": 42}]},
}  # fmt: skip
STATUS: dict[str, Any] = {
    "sort": "status", "domain": "DEMO", "id": "20", "in_use": True, "version": "5b1e…",
    "fields": {"code": "20", "phase": "NEW", "description": "Called", "initial": False, "definitive": False,
               "churn": False, "automatic_after_days": None, "retired": False},
}  # fmt: skip
STATUSES = {"items": [STATUS]}
TOLD = STATUS | {"message": 'Status "20" of domain DEMO is changed.'}
CHANGES: dict[str, Any] = {
    "changes": [{"change_id": 31, "changed_at": "2026-05-04T08:12:03Z", "by": "olga", "file": None, "domain": "DEMO",
                 "sort": "status", "code": "20", "before": {"description": "Caled"}, "after": {"description": "Called"}}],
    "next": 31,
}  # fmt: skip
LISTS = {"lists": [{"list_name": "countries", "values": 249}]}
VALUES = {"list": "countries", "values": ["AT", "DE"], "next": "DE"}
VALUES_TOLD = {"message": 'Added 2 to the list "countries".', "changed": 2}
