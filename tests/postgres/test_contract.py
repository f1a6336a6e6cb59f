"""The rules for contracts (docs/rules.md), one after the other."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from rowledger import ledger, pipeline
from rowledger.db import Connection, rows, transaction
from rowledger.model import Batch
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
Told = list[tuple[Any, ...]]
Apply = Callable[..., Told]
Fresh = Callable[..., AbstractContextManager[str]]
HEADER = "Form ID;Sign-up date;Customer number\n"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Templates that a test may change."""
    folder = shutil.copytree(settings.templates, tmp_path / "templates")
    return dataclasses.replace(settings, templates=folder)


@pytest.fixture(scope="module")
def database_url(fresh_database: Fresh) -> Iterator[str]:
    """One database for all; every test has a domain of its own."""
    with fresh_database() as url:
        yield url


@dataclasses.dataclass
class Register:
    """The contracts of the test's domain, as they are stored."""

    connection: Connection
    domain: str

    def contract(self, form_id: str) -> tuple[str, str | None, str | None, str | None]:
        """Sign-up date, contact, current status and its date."""
        found = self._rows("""
            SELECT sign_up_date::text AS signed, external_id, contract_status.code, date_result::text AS day
            FROM contract JOIN domain USING (domain_id)
            LEFT JOIN contract_status USING (status_id) LEFT JOIN contact USING (contact_id)
            WHERE domain.code = %(domain)s AND form_id = %(form_id)s""", form_id)  # fmt: skip
        return found[0]["signed"], found[0]["external_id"], found[0]["code"], found[0]["day"]

    def history(self, form_id: str) -> list[tuple[str, str, str]]:
        found = self._rows("""
            SELECT h.date_result::text AS day, contract_status.code, cause
            FROM status_chain AS h JOIN contract USING (contract_id, domain_id) JOIN domain USING (domain_id)
            JOIN contract_status ON contract_status.status_id = h.status_id
            WHERE domain.code = %(domain)s AND form_id = %(form_id)s ORDER BY h.date_result""", form_id)  # fmt: skip
        return [(r["day"], r["code"], r["cause"]) for r in found]

    def form_ids(self) -> list[str]:
        return [r["form_id"] for r in self.versions()]

    def versions(self) -> list[dict[str, Any]]:
        """Which row versions the contracts have: an update that writes the same is a write too."""
        return self._rows("""
            SELECT form_id, contract.xmin::text FROM contract JOIN domain USING (domain_id)
            WHERE domain.code = %(domain)s ORDER BY form_id""")  # fmt: skip

    def _rows(self, query: str, form_id: str = "") -> list[dict[str, Any]]:
        with transaction(self.connection) as cursor:
            return rows(cursor, query, {"domain": self.domain, "form_id": form_id})


@pytest.fixture
def register(connection: Connection, domain: str) -> Register:
    return Register(connection, domain)


@pytest.fixture
def apply(submit: Submit, work: Work, settings: Settings, connection: Connection, domain: str) -> Apply:
    """Import lines like ``C1;02-02-2026;K1`` and tell the outcome, reasons and warnings of each."""
    policy(settings, "max_rejected_share: 0.5", "max_rejected_share: 1")
    policy(settings, "unknown_contact: ignore", "unknown_contact: reject")

    def apply(lines: str, *, domain: str = domain) -> Told:
        text = HEADER + "".join(line.strip() + "\n" for line in lines.strip().splitlines())
        batch = work(submit(text, "contracts", domain=domain))
        assert batch.succeeded, batch.error_message
        assert [check for check in ledger.check(connection) if check["violations"]] == []
        return told(connection, batch.seqno)

    return apply


@pytest.fixture
def contacts(submit: Submit, work: Work, domain: str) -> None:
    """The contacts K1 and K2 of the domain, and K3 of another."""
    work(submit("Customer number,Last name\nK1,Adams\nK2,Bauer\n", domain=domain))
    work(submit("Customer number,Last name\nK3,Clark\n", domain="OTHER"))


def test_a_new_contract_is_created_at_the_initial_status_of_its_sign_up_date(
    apply: Apply, register: Register
) -> None:
    assert apply("C1;04-03-2026;") == [("created",)]
    assert register.contract("C1") == ("2026-03-04", None, "10", "2026-03-04")
    assert register.history("C1") == [("2026-03-04", "10", "initial")]


def test_a_new_contract_of_a_domain_without_initial_status_has_none(
    apply: Apply, connection: Connection
) -> None:
    assert apply("C1;04-03-2026;", domain="OTHER") == [("created",)]
    other = Register(connection, "OTHER")
    assert other.contract("C1") == ("2026-03-04", None, None, None)
    assert other.history("C1") == []


def test_the_same_form_id_in_another_domain_is_another_contract(apply: Apply, register: Register) -> None:
    assert apply("F1;04-03-2026;", domain="OTHER") == [("created",)]
    assert register.contract("F1")[0] == "2026-01-01"


def test_a_contract_that_the_file_says_again_is_unchanged_and_not_written(
    apply: Apply, register: Register, contacts: None
) -> None:
    apply("C1;04-03-2026;K1")
    before = register.versions()
    assert apply("C1;04-03-2026;K1\nF1;01-01-2026;") == [("unchanged",), ("unchanged",)]
    assert register.versions() == before


def test_a_known_contract_is_corrected_and_keeps_its_history(apply: Apply, register: Register) -> None:
    """A corrected sign-up date moves no entry of the history."""
    assert apply("F1;15-12-2025;") == [("updated",)]
    assert register.contract("F1") == ("2025-12-15", None, "10", "2026-01-01")
    assert register.history("F1") == [("2026-01-01", "10", "initial")]


def test_a_correction_keeps_what_stood_there_before(
    apply: Apply, connection: Connection, contacts: None
) -> None:
    before = "SELECT before FROM import_record ORDER BY seqno DESC, record_no LIMIT 3"
    apply("C1;04-03-2026;K1\nF1;01-01-2026;K1\nF2;02-01-2026;")
    with transaction(connection) as cursor:
        assert [r["before"] for r in rows(cursor, before)] == [
            None,
            {"contact": None},
            {"sign_up_date": "2026-01-01"},
        ]
    apply("C1;05-03-2026;K2\nF1;01-01-2026;K1\nF2;02-01-2026;")
    with transaction(connection) as cursor:
        assert [r["before"] for r in rows(cursor, before)] == [
            {"contact": "K1", "sign_up_date": "2026-03-04"},
            None,
            None,
        ]


def test_a_contract_names_its_contact(apply: Apply, register: Register, contacts: None) -> None:
    assert apply("C1;04-03-2026;K1\nF1;01-01-2026;K2") == [("created",), ("updated",)]
    assert (register.contract("C1")[1], register.contract("F1")[1]) == ("K1", "K2")
    assert apply("C1;04-03-2026;K2") == [("updated",)]
    assert register.contract("C1")[1] == "K2"


def test_a_blank_contact_leaves_the_stored_one_alone(
    apply: Apply, register: Register, contacts: None
) -> None:
    apply("C1;04-03-2026;K1")
    assert apply("C1;04-03-2026;") == [("unchanged",)]
    assert register.contract("C1")[1] == "K1"


def test_a_clear_word_takes_the_contact_away(
    apply: Apply, register: Register, contacts: None, settings: Settings
) -> None:
    policy(settings, "field: contact\n", "field: contact\n    clear: none\n")
    apply("C1;04-03-2026;K1")
    assert apply("C1;04-03-2026;none\nC2;04-03-2026;none") == [("updated",), ("created",)]
    assert (register.contract("C1")[1], register.contract("C2")[1]) == (None, None)
    assert apply("C1;04-03-2026;none") == [("unchanged",)]


@pytest.mark.parametrize(
    ("rule", "filled", "empty"),
    [("overwrite", "K2", "K2"), ("fill_if_empty", "K1", "K2"), ("never", "K1", None)],
)
def test_write_rules_decide_what_becomes_of_the_contact(
    rule: str, filled: str, empty: str | None, apply: Apply, settings: Settings, register: Register, contacts: None
) -> None:  # fmt: skip
    apply("C1;04-03-2026;K1")
    policy(settings, "field: contact\n", f"field: contact\n    on_update: {rule}\n")
    apply("C1;04-03-2026;K2\nF1;01-01-2026;K2\nC2;04-03-2026;K2")
    assert [register.contract(form_id)[1] for form_id in ("C1", "F1", "C2")] == [filled, empty, "K2"]


@pytest.mark.parametrize(
    ("rule", "date"),
    [("overwrite", "2025-12-15"), ("fill_if_empty", "2026-01-01"), ("never", "2026-01-01")],
)
def test_write_rules_decide_what_becomes_of_the_sign_up_date(
    rule: str, date: str, apply: Apply, settings: Settings, register: Register
) -> None:
    policy(settings, "field: sign_up_date\n", f"field: sign_up_date\n    on_update: {rule}\n")
    assert apply("F1;15-12-2025;") == [("updated" if rule == "overwrite" else "unchanged",)]
    assert register.contract("F1")[0] == date


def test_of_records_about_one_contract_the_last_wins(apply: Apply, register: Register) -> None:
    superseded = ("rejected", "superseded_in_file")
    assert apply("C1;01-03-2026;\nF1;02-03-2026;\nC1;03-03-2026;\nC1;04-03-2026;\nF1;05-03-2026;") == [
        superseded, superseded, superseded, ("created",), ("updated",),
    ]  # fmt: skip
    assert register.contract("C1") == ("2026-03-04", None, "10", "2026-03-04")
    assert register.contract("F1")[0] == "2026-03-05"


def test_an_exact_repeat_is_unchanged_with_a_warning(
    apply: Apply, connection: Connection, contacts: None
) -> None:
    assert apply("C1;01-03-2026;K1\nC1;02-03-2026;K1\nC1;01-03-2026;K1") == [
        ("created",), ("rejected", "superseded_in_file"), ("unchanged", "duplicate_in_file"),
    ]  # fmt: skip
    assert apply("C2;01-03-2026;K1\nC2;01-03-2026;") == [("rejected", "superseded_in_file"), ("created",)]


def test_a_record_that_is_refused_supersedes_none(apply: Apply, register: Register, contacts: None) -> None:
    assert apply("C1;01-03-2026;K1\nC1;02-03-2026;K9") == [("created",), ("rejected", "unknown_contact")]
    assert register.contract("C1")[:2] == ("2026-03-01", "K1")


def test_an_unknown_contact_is_rejected_one_of_another_domain_too(apply: Apply, contacts: None) -> None:
    refused = ("rejected", "unknown_contact")
    assert apply("C1;04-03-2026;K9\nC2;04-03-2026;K3\nF1;01-01-2026;K9") == [refused] * 3


def test_an_unknown_contact_is_left_out_with_a_warning_where_the_template_says_so(
    apply: Apply, settings: Settings, register: Register, contacts: None
) -> None:
    policy(settings, "unknown_contact: reject", "unknown_contact: ignore")
    apply("C2;04-03-2026;K1")
    assert apply("C1;04-03-2026;K9\nC2;04-03-2026;K9") == [
        ("created", "unknown_contact"), ("unchanged", "unknown_contact"),
    ]  # fmt: skip
    assert (register.contract("C1")[1], register.contract("C2")[1]) == (None, "K1")


def test_a_sign_up_in_the_future_is_rejected_and_today_is_not(apply: Apply, connection: Connection) -> None:
    today, tomorrow = days(connection)
    assert apply(f"C1;{tomorrow};\nC2;{today};\nF1;{tomorrow};") == [
        ("rejected", "future_date"), ("created",), ("rejected", "future_date"),
    ]  # fmt: skip


def test_a_sign_up_in_the_future_is_taken_where_the_template_says_so(
    apply: Apply, settings: Settings, register: Register
) -> None:
    policy(settings, "future_dates: reject", "future_dates: allow")
    assert apply("C1;31-12-2099;") == [("created",)]
    assert register.history("C1") == [("2099-12-31", "10", "initial")]


def test_a_record_lists_all_its_reasons(apply: Apply, connection: Connection) -> None:
    _, tomorrow = days(connection)
    assert apply(f"C1;{tomorrow};K9") == [("rejected", "future_date", "unknown_contact")]


def test_create_only_leaves_known_contracts_out(apply: Apply, settings: Settings, register: Register) -> None:
    policy(settings, "policies:\n", "policies:\n  mode: create_only\n")
    assert apply("F1;05-05-2025;\nC1;04-03-2026;") == [("ignored", "exists_already"), ("created",)]
    assert register.contract("F1")[0] == "2026-01-01"


def test_update_only_leaves_new_contracts_out(apply: Apply, settings: Settings, register: Register) -> None:
    policy(settings, "policies:\n", "policies:\n  mode: update_only\n")
    assert apply("F1;05-05-2025;\nC1;04-03-2026;") == [("updated",), ("ignored", "unknown_contract")]
    assert register.form_ids() == ["F1", "F2", "F3"]


def test_messages_are_sentences_with_the_names_of_the_file(
    submit: Submit, work: Work, connection: Connection, settings: Settings, domain: str
) -> None:
    policy(settings, "unknown_contact: ignore", "unknown_contact: reject")
    _, tomorrow = days(connection)
    text = f"Contract;Signed on;Customer\nC1;{tomorrow};K9\nC2;01-01-2026;\nC2;02-01-2026;\n"
    batch = work(submit(text, "contracts", domain=domain))
    found = [r["reasons"] for r in ledger.records(connection, batch.seqno)]
    assert [(r["column"], r["message"]) for reasons in found for r in reasons or ()] == [
        ("Signed on", f"Signed on {tomorrow} lies in the future."),
        ("Customer", f'There is no contact "K9" in domain {domain}.'),
        (None, "Record 3 of the same file is about the same contract and comes later; it was taken instead."),
    ]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_result_does_not_depend_on_the_size_of_chunks(
    size: int, submit: Submit, settings: Settings, connection: Connection, contacts: None, domain: str
) -> None:
    lines = """C1;01-03-2026;K1
               F1;02-03-2026;
               C1;02-03-2026;K9
               C2;01-03-2026;K2
               C1;03-03-2026;
               C2;01-03-2026;K2
               F1;02-03-2026;
               C3;31-12-2099;
               F2;01-01-2026;
               C1;01-03-2026;K1"""
    text = HEADER + "".join(line.strip() + "\n" for line in lines.splitlines())
    policy(settings, "unknown_contact: ignore", "unknown_contact: reject")
    small = dataclasses.replace(settings, validate_chunk=size, load_chunk=size)
    seqno = submit(text, "contracts", domain=domain)
    pipeline.work(pipeline.Worker(connection, small, "tester"), seqno)
    assert told(connection, seqno) == [
        ("created",), ("updated",), ("rejected", "unknown_contact"), ("created",), ("rejected", "superseded_in_file"),
        ("unchanged", "duplicate_in_file"), ("unchanged", "duplicate_in_file"), ("rejected", "future_date"),
        ("unchanged",), ("unchanged", "duplicate_in_file"),
    ]  # fmt: skip


def test_statuses_go_on_from_the_initial_one(
    apply: Apply, submit: Submit, work: Work, register: Register, domain: str
) -> None:
    apply("C1;04-03-2026;")
    assert work(submit("C1;05-03-2026;20;;\n", "result_codes", domain=domain)).counts["updated"] == 1
    assert register.history("C1") == [("2026-03-04", "10", "initial"), ("2026-03-05", "20", "import")]


def policy(settings: Settings, old: str, new: str) -> None:
    path = settings.templates / "contracts.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def told(connection: Connection, seqno: int) -> Told:
    return [
        (r["outcome"], *(reason["rule"] for reason in (*(r["reasons"] or ()), *(r["warnings"] or ()))))
        for r in ledger.records(connection, seqno)
    ]


def days(connection: Connection) -> tuple[str, str]:
    """Today and tomorrow."""
    with transaction(connection) as cursor:
        (found,) = rows(cursor, "SELECT to_char(current_date, 'DD-MM-YYYY') AS today, "
                                "to_char(current_date + 1, 'DD-MM-YYYY') AS tomorrow")  # fmt: skip
    return found["today"], found["tomorrow"]
