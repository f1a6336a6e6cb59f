"""The rules for contract statuses (docs/rules.md), one after the other."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from rowledger import contracts, ledger, reference
from rowledger.db import Connection, rows, transaction
from rowledger.errors import UnknownCode
from rowledger.model import Batch
from rowledger.reference import Reference
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
Became = Callable[[int], list[tuple[Any, ...]]]
Apply = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Templates that a test may change."""
    return dataclasses.replace(
        settings, templates=shutil.copytree(settings.templates, tmp_path / "templates")
    )


@pytest.fixture
def apply(submit: Submit, work: Work, became: Became, settings: Settings, connection: Connection) -> Apply:
    """Import lines like ``F1 02-02-2026 20`` and tell what became of each."""
    change(settings, "  max_rejected_share: 0.5\n", "")

    def apply(lines: str) -> list[tuple[Any, ...]]:
        batch = work(submit(file(lines), "result_codes"))
        assert batch.succeeded, batch.error_message
        assert [check for check in ledger.check(connection) if check["violations"]] == []
        return [told[1:] for told in became(batch.seqno)]

    return apply


def test_a_status_moves_its_contract_and_enters_the_history(apply: Apply, connection: Connection) -> None:
    assert apply("F1 02-02-2026 20") == [("updated",)]
    assert current(connection, "F1") == ("20", "2026-02-02")
    assert history(connection, "F1") == [("2026-01-01", "10", "initial"), ("2026-02-02", "20", "import")]


def test_rule_1_an_unknown_contract_is_rejected(apply: Apply) -> None:
    assert apply("F9 02-02-2026 20\nF1 02-02-2026 20") == [("rejected", "unknown_contract"), ("updated",)]


def test_rule_1_an_unknown_contract_is_ignored_where_the_template_says_so(
    apply: Apply, settings: Settings
) -> None:
    change(settings, "unknown_contract: reject", "unknown_contract: ignore")
    assert apply("F9 02-02-2026 20") == [("ignored", "unknown_contract")]


def test_rule_1_a_contract_of_another_domain_is_unknown(apply: Apply, connection: Connection) -> None:
    other = {
        "code": "OTHER",
        "name": "Another",
        "contracts": [{"form_id": "G1", "sign_up_date": "2026-01-01"}],
    }
    reference.load(connection, Reference.model_validate({"domains": [other]}))
    assert apply("G1 02-02-2026 20") == [("rejected", "unknown_contract")]


def test_rule_2_an_unknown_code_is_ignored(apply: Apply, connection: Connection) -> None:
    assert apply("F1 02-02-2026 99") == [("ignored", "unknown_status")]
    assert current(connection, "F1") == ("10", "2026-01-01")


def test_rule_2_an_unknown_code_is_rejected_where_the_template_says_so(
    apply: Apply, settings: Settings
) -> None:
    change(settings, "unknown_status: ignore", "unknown_status: reject")
    assert apply("F1 02-02-2026 99") == [("rejected", "unknown_status")]


def test_rule_2_a_retired_code_is_unknown_to_new_records(
    apply: Apply, connection: Connection, submit: Submit, work: Work
) -> None:
    apply("F1 02-02-2026 30")
    with transaction(connection) as cursor:
        cursor.execute("UPDATE contract_status SET retired = true WHERE code = '30'")
    batch = work(submit(file("F1 02-02-2026 30\nF2 02-02-2026 30"), "result_codes"))
    told = [(r["outcome"], r["reasons"][0]["message"]) for r in ledger.records(connection, batch.seqno)]
    assert told == [("ignored", 'The result code "30" of domain DEMO is retired.')] * 2
    assert current(connection, "F1") == ("30", "2026-02-02")


def test_a_record_names_all_that_is_unknown_and_its_date_and_the_first_rule_decides(apply: Apply) -> None:
    everything = ("unknown_contract", "unknown_status", "future_date")
    assert apply("F9 31-12-2099 99\nF1 31-12-2099 99\nF9 02-02-2026 99") == [
        ("rejected", *everything), ("ignored", *everything[1:]), ("rejected", *everything[:2]),
    ]  # fmt: skip


def test_rule_3_a_definitive_status_is_never_overwritten(apply: Apply, connection: Connection) -> None:
    assert apply("F1 02-02-2026 90") == [("updated",)]
    refused = ("rejected", "definitive_status")
    assert apply("F1 03-02-2026 20\nF1 04-02-2026 90\nF1 02-02-2026 30") == [refused, refused, refused]
    assert current(connection, "F1") == ("90", "2026-02-02")
    assert len(history(connection, "F1")) == 2


def test_rule_3_a_definitive_status_holds_against_later_records_of_its_own_file(
    apply: Apply, connection: Connection
) -> None:
    told = apply("F1 03-02-2026 20\nF1 02-02-2026 90\nF1 01-02-2026 30")
    assert told == [("rejected", "definitive_status"), ("updated",), ("updated",)]
    assert current(connection, "F1") == ("90", "2026-02-02")


def test_rule_3_the_reason_names_the_definitive_status_that_stands(
    submit: Submit, work: Work, connection: Connection
) -> None:
    lines = "F1 02-02-2026 90\nF1 03-02-2026 20\nF1 04-02-2026 30\nF2 01-02-2026 20\nF2 02-02-2026 90\nF2 03-02-2026 30"
    batch = work(submit(file(lines), "result_codes"))
    work(submit(file("F1 05-02-2026 10"), "result_codes"))
    refused = [
        r["reasons"][0]["message"]
        for seqno in (batch.seqno, batch.seqno + 1)
        for r in ledger.records(connection, seqno, ["rejected"])
    ]
    sentence = 'Contract "{}" is at the definitive status "90", which cannot be overwritten.'
    assert refused == [sentence.format(form_id) for form_id in ("F1", "F1", "F2", "F1")]


def test_rule_3_a_repeat_of_what_is_refused_is_refused(apply: Apply, connection: Connection) -> None:
    """The contract does not say so: it cannot be unchanged. A repeat of the definitive status itself is."""
    told = apply(
        "F1 02-02-2026 90\nF1 03-02-2026 20\nF1 02-02-2026 90\nF1 03-02-2026 20\nF1 02-02-2026 30\nF1 02-02-2026 30"
    )
    refused = ("rejected", "definitive_status")
    assert told == [("updated",), refused, ("unchanged",), refused, refused, refused]
    told = apply("F2 02-02-2026 20\nF2 02-02-2026 90\nF2 02-02-2026 20")
    assert told == [("updated",), ("updated",), ("unchanged",)]
    warned = [len(r["warnings"] or ()) for r in ledger.records(connection, 1)]
    assert warned == [0, 0, 1, 1, 0, 1]


def test_rule_4_a_status_older_than_the_stored_one_goes_to_history_only(
    apply: Apply, connection: Connection
) -> None:
    apply("F1 02-02-2026 20")
    assert apply("F1 01-02-2026 30") == [("historic",)]
    assert current(connection, "F1") == ("20", "2026-02-02")
    assert [code for _, code, _ in history(connection, "F1")] == ["10", "30", "20"]


def test_rule_4_a_late_status_is_filled_in_below_a_definitive_one(
    apply: Apply, connection: Connection
) -> None:
    apply("F1 02-02-2026 90")
    assert apply("F1 01-02-2026 30") == [("historic",)]
    assert current(connection, "F1") == ("90", "2026-02-02")


def test_rule_4_a_late_definitive_status_overwrites_nothing(apply: Apply, connection: Connection) -> None:
    apply("F1 02-02-2026 20")
    assert apply("F1 01-02-2026 90") == [("historic",)]
    assert apply("F1 03-02-2026 30") == [("updated",)]
    assert current(connection, "F1") == ("30", "2026-02-03")


def test_rule_4_a_late_definitive_status_of_the_same_file_as_a_new_one_overwrites_nothing(
    apply: Apply, connection: Connection
) -> None:
    apply("F1 02-02-2026 20")
    assert apply("F1 01-02-2026 90\nF1 03-02-2026 30") == [("historic",), ("updated",)]
    assert current(connection, "F1") == ("30", "2026-02-03")


def test_rule_5_a_date_in_the_future_is_rejected_and_today_is_not(
    apply: Apply, connection: Connection
) -> None:
    with transaction(connection) as cursor:
        (days,) = rows(cursor, "SELECT to_char(current_date, 'DD-MM-YYYY') AS today, "
                               "to_char(current_date + 1, 'DD-MM-YYYY') AS tomorrow")  # fmt: skip
    told = apply(f"F1 {days['tomorrow']} 20\nF2 {days['today']} 20")
    assert told == [("rejected", "future_date"), ("updated",)]


def test_rule_5_a_date_in_the_future_is_taken_where_the_template_says_so(
    apply: Apply, settings: Settings
) -> None:
    change(settings, "future_dates: reject", "future_dates: allow")
    assert apply("F1 31-12-2099 20") == [("updated",)]


def test_rule_6_what_the_history_has_already_is_unchanged(apply: Apply, connection: Connection) -> None:
    apply("F1 02-02-2026 20\nF1 03-02-2026 30")
    before = versions(connection)
    assert apply("F1 02-02-2026 20\nF1 03-02-2026 30\nF2 01-01-2026 10") == [("unchanged",)] * 3
    assert versions(connection) == before
    assert len(history(connection, "F1")) == 3


def test_rule_6_holds_for_what_is_definitive_and_for_what_came_late(apply: Apply) -> None:
    apply("F1 03-02-2026 90")
    apply("F1 02-02-2026 20")
    assert apply("F1 03-02-2026 90\nF1 02-02-2026 20\nF1 02-02-2026 20") == [("unchanged",)] * 3


def test_rule_7_records_of_a_file_are_applied_in_the_order_of_their_dates(
    apply: Apply, connection: Connection
) -> None:
    told = apply("F1 04-02-2026 30\nF2 02-02-2026 20\nF1 02-02-2026 20\nF1 03-02-2026 10")
    assert told == [("updated",)] * 4
    assert current(connection, "F1") == ("30", "2026-02-04")
    assert [code for _, code, _ in history(connection, "F1")] == ["10", "20", "10", "30"]


def test_rule_7_of_two_records_of_one_date_the_later_record_is_current(
    apply: Apply, connection: Connection
) -> None:
    assert apply("F1 02-02-2026 30\nF1 02-02-2026 20") == [("updated",), ("updated",)]
    assert current(connection, "F1") == ("20", "2026-02-02")


def test_rule_7_an_exact_repeat_in_a_file_is_unchanged_with_a_warning(
    submit: Submit, work: Work, connection: Connection
) -> None:
    batch = work(submit("F1;02-02-2026;20;;\nF2;02-02-2026;20;;\nF1;02-02-2026;20;x;y\n", "result_codes"))
    found = [
        (r["outcome"], [w["rule"] for w in r["warnings"] or ()])
        for r in ledger.records(connection, batch.seqno)
    ]
    assert found == [("updated", []), ("updated", []), ("unchanged", ["duplicate_in_file"])]


def test_rule_7_a_repeat_is_warned_of_whatever_became_of_the_first(
    apply: Apply, connection: Connection
) -> None:
    apply("F1 03-02-2026 30")
    told = apply("\n".join(2 * ["F1 03-02-2026 30", "F1 02-02-2026 20", "F9 03-02-2026 30"]))
    unknown = ("rejected", "unknown_contract")
    assert told == [("unchanged",), ("historic",), unknown, ("unchanged",), ("unchanged",), unknown]
    warned = [[w["rule"] for w in r["warnings"] or ()] for r in ledger.records(connection, 2)]
    assert warned == [[]] * 3 + [["duplicate_in_file"]] * 3


def test_rule_8_a_later_batch_wins_on_the_same_date(apply: Apply, connection: Connection) -> None:
    apply("F1 02-02-2026 30")
    assert apply("F1 02-02-2026 20") == [("updated",)]
    assert current(connection, "F1") == ("20", "2026-02-02")


def test_rule_8_an_earlier_batch_that_is_worked_later_does_not_win_on_the_same_date(
    submit: Submit, work: Work, became: Became, connection: Connection
) -> None:
    first = submit(file("F1 02-02-2026 30\nF2 02-02-2026 30\nF3 03-02-2026 30"), "result_codes")
    second = submit(file("F1 02-02-2026 20\nF2 02-02-2026 90\nF3 02-02-2026 20"), "result_codes")
    assert [outcome for _, outcome in became(work(second).seqno)] == ["updated"] * 3
    assert [outcome for _, outcome in became(work(first).seqno)] == ["historic", "historic", "updated"]
    assert [current(connection, form_id)[0] for form_id in ("F1", "F2", "F3")] == ["20", "90", "30"]
    assert [code for _, code, _ in history(connection, "F1")] == ["10", "30", "20"]


def test_rule_8_what_came_without_a_batch_is_before_the_imports_of_its_date(
    apply: Apply, connection: Connection
) -> None:
    assert apply("F1 01-01-2026 20") == [("updated",)]
    assert history(connection, "F1") == [("2026-01-01", "10", "initial"), ("2026-01-01", "20", "import")]
    assert current(connection, "F1") == ("20", "2026-01-01")


def test_rule_8_every_entry_of_the_history_names_the_status_before_it(
    apply: Apply, connection: Connection
) -> None:
    apply("F1 03-02-2026 30\nF1 02-02-2026 20")
    apply("F1 15-01-2026 30")
    with transaction(connection) as cursor:
        chain = rows(cursor, """
            SELECT s.code, p.code AS before, is_current
            FROM status_chain JOIN contract USING (contract_id) JOIN contract_status AS s ON s.status_id = status_chain.status_id
            LEFT JOIN contract_status AS p ON p.status_id = previous_status_id
            WHERE form_id = 'F1' ORDER BY status_chain.date_result""")  # fmt: skip
    assert [(entry["code"], entry["before"], entry["is_current"]) for entry in chain] == [
        ("10", None, False), ("30", "10", False), ("20", "30", False), ("30", "20", True),
    ]  # fmt: skip


def test_a_new_contract_gets_the_initial_status_once(connection: Connection) -> None:
    contract = {"form_id": "F7", "sign_up_date": "2026-03-04"}
    demo = Reference.model_validate({"domains": [{"code": "DEMO", "name": "Demo", "contracts": [contract]}]})
    for _ in range(2):
        reference.load(connection, demo)
        assert current(connection, "F7") == ("10", "2026-03-04")
        assert history(connection, "F7") == [("2026-03-04", "10", "initial")]


def test_a_contract_of_a_domain_without_an_initial_status_has_none_until_an_import(
    connection: Connection,
) -> None:
    contract = {"form_id": "G1", "sign_up_date": "2026-01-01"}
    other = {"code": "OTHER", "name": "Another", "contracts": [contract]}
    reference.load(connection, Reference.model_validate({"domains": [other]}))
    assert current(connection, "G1") == (None, None)


def test_rule_10_which_status_on_a_day_as_known_at_a_moment(apply: Apply, connection: Connection) -> None:
    """A result that comes late changes what we know of a day, not what we knew."""
    apply("F1 03-02-2026 30")
    then = now(connection)
    apply("F1 01-02-2026 20")

    def told(day: str | None, known_at: datetime | None = None) -> str | None:
        on = date.fromisoformat(day) if day else None
        found = contracts.status_as_of(connection, "DEMO", "F1", on, known_at)
        return found and found.code

    assert [told(day, then) for day in ("2025-12-31", "2026-01-01", "2026-02-02", "2026-02-03")] == [
        None,
        "10",
        "10",
        "30",
    ]
    assert [told(day) for day in ("2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03", None)] == [
        "10",
        "20",
        "20",
        "30",
        "30",
    ]
    assert told("2026-02-02", datetime(2000, 1, 1, tzinfo=UTC)) is None


def test_rule_10_the_last_entry_of_a_day_is_the_status_of_the_day(
    apply: Apply, connection: Connection
) -> None:
    apply("F1 01-01-2026 30\nF1 01-01-2026 20")
    found = contracts.status_as_of(connection, "DEMO", "F1", date(2026, 1, 1))
    assert found
    assert (found.code, found.phase, found.cause, found.seqno, found.record_no) == (
        "20",
        "NEW",
        "import",
        1,
        2,
    )


def test_rule_10_asks_for_a_contract_that_exists(connection: Connection) -> None:
    with pytest.raises(UnknownCode, match='There is no contract "F9" in domain DEMO'):
        contracts.status_as_of(connection, "DEMO", "F9")
    with pytest.raises(UnknownCode, match=r'There is no domain "NONE"\. Domains are: DEMO, OTHER\.'):
        contracts.status_as_of(connection, "NONE", "F1")


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_result_does_not_depend_on_the_size_of_chunks(size: int, settings: Settings, apply: Apply, connection: Connection,
                                                          submit: Submit, became: Became) -> None:  # fmt: skip
    from rowledger import pipeline

    lines = """F1 03-02-2026 20;F9 02-02-2026 20;F1 02-02-2026 90;F2 02-02-2026 99;F3 04-02-2026 30;F1 01-02-2026 30
               F3 02-02-2026 20;F3 04-02-2026 30;F2 31-12-2099 20;F2 05-02-2026 30;F3 04-02-2026 20"""
    text = "".join(f"{line.strip().replace(' ', ';')};;\n" for line in lines.replace("\n", ";").split(";"))
    small = dataclasses.replace(settings, validate_chunk=size, load_chunk=size)
    seqno = submit(text, "result_codes")
    pipeline.work(pipeline.Worker(connection, small, "tester"), seqno)
    assert [told[1:] for told in became(seqno)] == [
        ("rejected", "definitive_status"), ("rejected", "unknown_contract"), ("updated",), ("ignored", "unknown_status"),
        ("updated",), ("updated",), ("updated",), ("unchanged",), ("rejected", "future_date"), ("updated",), ("updated",),
    ]  # fmt: skip
    assert [current(connection, form_id)[0] for form_id in ("F1", "F2", "F3")] == ["90", "30", "20"]


def file(lines: str) -> str:
    return "".join(line.strip().replace(" ", ";") + ";;\n" for line in lines.strip().splitlines())


def change(settings: Settings, old: str, new: str) -> None:
    path = settings.templates / "result_codes.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def current(connection: Connection, form_id: str) -> tuple[str | None, str | None]:
    query = """SELECT code, date_result::text AS day FROM contract LEFT JOIN contract_status USING (status_id)
               WHERE form_id = %(form_id)s"""
    with transaction(connection) as cursor:
        (found,) = rows(cursor, query, {"form_id": form_id})
    return found["code"], found["day"]


def history(connection: Connection, form_id: str) -> list[tuple[str, str, str]]:
    query = """SELECT h.date_result::text AS day, code, cause
               FROM status_history AS h JOIN contract USING (contract_id)
               JOIN contract_status ON contract_status.status_id = h.status_id
               WHERE form_id = %(form_id)s ORDER BY h.date_result, h.seqno NULLS FIRST, h.record_no"""
    with transaction(connection) as cursor:
        return [(r["day"], r["code"], r["cause"]) for r in rows(cursor, query, {"form_id": form_id})]


def now(connection: Connection) -> datetime:
    with transaction(connection) as cursor:
        (found,) = rows(cursor, "SELECT clock_timestamp() AS moment")
    return cast("datetime", found["moment"])


def versions(connection: Connection) -> list[dict[str, Any]]:
    """Which row versions the contracts have: an update that writes the same is a write too."""
    with transaction(connection) as cursor:
        return rows(cursor, "SELECT form_id, xmin::text FROM contract ORDER BY form_id")
