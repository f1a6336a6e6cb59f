"""The rules for contacts (docs/rules.md), one after the other."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rowledger import ledger, pipeline
from rowledger.db import Connection, rows, transaction
from rowledger.errors import UnknownCode
from rowledger.model import Batch
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
Became = Callable[[int], list[tuple[Any, ...]]]
Apply = Callable[..., list[tuple[Any, ...]]]

ALL = "Customer number,Email,Last name,First name,City,Birth date"
SHORT = "Customer number,Email,Last name"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Templates that a test may change."""
    return dataclasses.replace(
        settings, templates=shutil.copytree(settings.templates, tmp_path / "templates")
    )


@pytest.fixture
def apply(submit: Submit, work: Work, became: Became, settings: Settings, connection: Connection) -> Apply:
    """Import lines below a header and tell what became of each."""
    change(settings, "  max_rejected_share: 0.5\n", "")

    def apply(header: str, *lines: str, **options: Any) -> list[tuple[Any, ...]]:
        batch = work(submit("".join(f"{line}\n" for line in (header, *lines)), **options))
        assert batch.succeeded, batch.error_message
        assert [check for check in ledger.check(connection) if check["violations"]] == []
        return [told[1:] for told in became(batch.seqno)]

    return apply


# Match keys ----------------------------------------------------------------------------------------------------


def test_a_contact_is_found_by_its_external_id_first(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K1,ada@example.org,Ångström") == [("updated",)]
    assert contacts(connection, "external_id", "email") == [("K1", "ada@example.org")]


def test_a_contact_without_external_id_is_found_by_email(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, ",ada@example.com,Lovelace") == [("updated",)]
    assert contacts(connection, "external_id", "last_name") == [("K1", "Lovelace")]


def test_a_contact_known_by_email_alone_gets_its_external_id(apply: Apply, connection: Connection) -> None:
    apply("Email,Last name", "ada@example.com,Ångström")
    assert apply(SHORT, "K1,ada@example.com,Ångström") == [("updated",)]
    assert contacts(connection, "external_id", "email") == [("K1", "ada@example.com")]


def test_email_is_compared_without_case_and_kept_as_given(apply: Apply, connection: Connection) -> None:
    apply("Email,Last name", "Ada@Example.com,Ångström")
    assert apply("Email,Last name", "ADA@EXAMPLE.COM,Lovelace") == [("updated",)]
    assert len(contacts(connection, "email")) == 1


def test_the_template_says_which_keys_match(apply: Apply, settings: Settings, connection: Connection) -> None:
    change(settings, "match: [external_id, email]", "match: [email]")
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K1,,Lovelace") == [("rejected", "missing_key")]
    assert apply(SHORT, "K2,ada@example.com,Lovelace") == [("updated",)]


def test_a_record_without_any_key_is_rejected(apply: Apply) -> None:
    assert apply(SHORT, ",,Ångström", "  , ,Brontë") == [("rejected", "missing_key")] * 2


def test_keys_that_lead_to_two_contacts_are_rejected(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", "K2,bob@example.com,Brontë")
    assert apply(SHORT, "K1,bob@example.com,Nobody") == [("rejected", "conflicting_keys")]
    assert contacts(connection, "last_name") == [("Ångström",), ("Brontë",)]


def test_two_contacts_that_swap_their_addresses_in_one_file_are_both_rejected(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", "K2,bob@example.com,Brontë")
    told = apply(SHORT, "K1,bob@example.com,Ångström", "K2,ada@example.com,Brontë")
    assert [outcome for outcome, _ in told] == ["rejected", "rejected"]
    assert contacts(connection, "email") == [("ada@example.com",), ("bob@example.com",)]


def test_a_record_whose_keys_contradict_each_other_draws_no_other_record_into_its_fate(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K2,ada@example.com,Ångström", "K3,bob@example.com,Brontë")
    assert apply(SHORT, "K2,,Renamed", "K2,bob@example.com,x", "K3,,Changed") == [
        ("updated",),
        ("rejected", "conflicting_keys"),
        ("updated",),
    ]
    assert contacts(connection, "last_name") == [("Renamed",), ("Changed",)]


def test_the_email_of_a_contact_with_another_external_id_is_no_way_to_it(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K5,ada@example.com,Lovelace") == [("rejected", "conflicting_keys")]
    assert contacts(connection, "external_id") == [("K1",)]


def test_the_same_key_in_another_domain_is_another_contact(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K1,ada@example.com,Lovelace", domain="OTHER") == [("created",)]
    assert contacts(connection, "last_name") == [("Ångström",), ("Lovelace",)]


# Values --------------------------------------------------------------------------------------------------------


def test_a_blank_cell_leaves_the_field_alone(apply: Apply, connection: Connection) -> None:
    apply(ALL, "K1,ada@example.com,Ångström,Ada,Uppsala,1980-02-29")
    assert apply(ALL, "K1,,Ångström,,  ,") == [("unchanged",)]
    assert contacts(connection, "email", "first_name", "city") == [("ada@example.com", "Ada", "Uppsala")]


def test_a_column_that_the_file_lacks_leaves_the_field_alone(apply: Apply, connection: Connection) -> None:
    apply(ALL, "K1,ada@example.com,Ångström,Ada,Uppsala,")
    assert apply(SHORT, "K1,ada@example.com,Lovelace") == [("updated",)]
    assert contacts(connection, "last_name", "first_name", "city") == [("Lovelace", "Ada", "Uppsala")]


def test_write_rules_decide_what_an_update_changes(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    change(settings, "    header: City\n", "    header: City\n    on_update: never\n")
    apply(ALL, "K1,ada@example.com,Ångström,Ada,Uppsala,", "K2,bob@example.com,Brontë,Bob,,1980-02-29")
    told = apply(ALL, "K1,,Ångström,Augusta,Lund,1990-01-01", "K2,,Brontë,Bob,Lund,1990-01-01")
    assert told == [("updated",), ("unchanged",)]
    assert contacts(connection, "first_name", "city", "birth_date::text") == [
        ("Augusta", "Uppsala", "1990-01-01"), ("Bob", None, "1980-02-29"),
    ]  # fmt: skip


def test_an_equal_record_writes_nothing(apply: Apply, connection: Connection) -> None:
    line = "K1,ada@example.com,Ångström,Ada,Uppsala,1980-02-29"
    apply(ALL, line)
    before = contacts(connection, "xmin::text", "updated_at")
    assert apply(ALL, line) == [("unchanged",)]
    assert contacts(connection, "xmin::text", "updated_at") == before


def test_an_address_that_differs_in_case_only_is_an_update(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K1,Ada@example.com,Ångström") == [("updated",)]
    assert contacts(connection, "email") == [("Ada@example.com",)]


def test_phone_numbers_are_stored_in_one_form(apply: Apply, connection: Connection) -> None:
    header = "Customer number,Last name,Phone"
    apply(header, "K1,Ångström,030 23125-117")
    assert apply(header, "K1,Ångström,+49 (0)30 23125117") == [("unchanged",)]
    assert contacts(connection, "phone") == [("+493023125117",)]


# The same contact twice in a file ------------------------------------------------------------------------------


def test_of_several_records_about_one_contact_the_last_wins(apply: Apply, connection: Connection) -> None:
    told = apply(SHORT, "K1,ada@example.com,One", "K2,bob@example.com,Other", "K1,ada@example.com,Two")
    assert told == [("rejected", "superseded_in_file"), ("created",), ("created",)]
    assert contacts(connection, "last_name") == [("Two",), ("Other",)]


def test_a_wrong_last_record_leaves_the_one_before_it_to_win(apply: Apply, connection: Connection) -> None:
    assert apply(SHORT, "K1,ada@example.com,One", "K1,ada@example.com,") == [
        ("created",),
        ("rejected", "required"),
    ]


def test_an_exact_repeat_is_unchanged_with_a_warning(
    submit: Submit, work: Work, connection: Connection
) -> None:
    batch = work(submit(f"{SHORT}\n" + "K1,ada@example.com,One\n" * 3))
    found = [
        (r["outcome"], [w["rule"] for w in r["warnings"] or ()])
        for r in ledger.records(connection, batch.seqno)
    ]
    assert found == [("created", []), *[("unchanged", ["duplicate_in_file"])] * 2]


def test_records_with_different_keys_of_a_stored_contact_are_about_one_contact(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    told = apply(SHORT, ",ada@example.com,By address", "K1,,By number")
    assert told == [("rejected", "superseded_in_file"), ("updated",)]
    assert contacts(connection, "last_name") == [("By number",)]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_result_does_not_depend_on_the_size_of_chunks(
    size: int, apply: Apply, settings: Settings, submit: Submit, became: Became, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", "K2,bob@example.com,Brontë", "K3,eva@example.com,Čapek")
    lines = ["K1,,One", ",ada@example.com,Two", "K9,new@example.com,New", "K2,eva@example.com,Conflict",
             "K8,nobody,Wrong", "K9,new@example.com,New", ",,No key", "K1,,One", "K7,seven@example.com,Seven"]  # fmt: skip
    small = dataclasses.replace(settings, validate_chunk=size, load_chunk=size)
    seqno = submit("\n".join([SHORT, *lines]))
    pipeline.work(pipeline.Worker(connection, small, "tester"), seqno)
    assert [told[1:] for told in became(seqno)] == [
        ("updated",), ("rejected", "superseded_in_file"), ("created",), ("rejected", "conflicting_keys"),
        ("rejected", "format"), ("unchanged",), ("rejected", "missing_key"), ("unchanged",), ("created",),
    ]  # fmt: skip


# Origins and subscriptions -------------------------------------------------------------------------------------


def test_origins_named_at_upload_are_added_and_the_first_stays_the_first(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", origins=["WEB"])
    assert apply(SHORT, "K1,ada@example.com,Ångström", origins=["FAIR", "WEB"]) == [("updated",)]
    assert apply(SHORT, "K1,ada@example.com,Ångström", origins=["FAIR"]) == [("unchanged",)]
    query = "SELECT code, seqno FROM contact_origin JOIN origin USING (origin_id) ORDER BY added_at, seqno"
    with transaction(connection) as cursor:
        assert [(r["code"], r["seqno"]) for r in rows(cursor, query)] == [("WEB", 1), ("FAIR", 2)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"origins": ["OLD"]}, 'The origin "OLD" is not active and cannot be chosen.'),
        ({"origins": ["NONE"]}, 'The origin "NONE" does not exist in this domain and cannot be chosen.'),
        ({"subscriptions": ["GONE"]}, 'The subscription list "GONE" is disabled and cannot be chosen.'),
        ({"subscriptions": ["NEWS"], "domain": "OTHER"}, 'The subscription list "NEWS" does not exist in this domain'),
    ],
)  # fmt: skip
def test_only_active_origins_and_enabled_lists_of_the_domain_can_be_chosen(
    options: dict[str, Any], sentence: str, submit: Submit, connection: Connection
) -> None:
    with pytest.raises(UnknownCode, match=sentence):
        submit(f"{SHORT}\nK1,ada@example.com,Ångström\n", **options)
    with transaction(connection) as cursor:
        assert rows(cursor, "SELECT seqno FROM import_batch") == []


def test_lists_named_at_upload_are_opted_in_to_with_provenance(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", subscriptions=["NEWS", "OFFERS"])
    assert apply(SHORT, "K1,ada@example.com,Ångström", subscriptions=["NEWS"]) == [("unchanged",)]
    query = "SELECT list_id, opted_in, seqno, record_no FROM subscription_history JOIN subscription USING (subscription_id) ORDER BY 1"
    with transaction(connection) as cursor:
        assert [tuple(r.values()) for r in rows(cursor, query)] == [
            ("NEWS", True, 1, 1),
            ("OFFERS", True, 1, 1),
        ]


def test_an_opt_out_always_wins(apply: Apply, submit: Submit, work: Work, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", subscriptions=["NEWS"])
    with transaction(connection) as cursor:
        cursor.execute("UPDATE contact_subscription SET opted_in = false")
    batch = work(submit(f"{SHORT}\nK1,ada@example.com,Ångström\n", subscriptions=["NEWS", "OFFERS"]))
    (record,) = ledger.records(connection, batch.seqno)
    assert (record["outcome"], [w["rule"] for w in record["warnings"]]) == ("updated", ["opted_out_kept"])
    query = "SELECT list_id, opted_in FROM contact_subscription JOIN subscription USING (subscription_id) ORDER BY 1"
    with transaction(connection) as cursor:
        assert [tuple(r.values()) for r in rows(cursor, query)] == [("NEWS", False), ("OFFERS", True)]
        assert len(rows(cursor, "SELECT * FROM subscription_history")) == 2


def test_a_rejected_record_gets_no_origin_and_no_subscription(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", "K2,bob@example.com,Brontë")
    apply(SHORT, "K1,bob@example.com,Conflict", "K3,nobody,Wrong", origins=["WEB"], subscriptions=["NEWS"])
    with transaction(connection) as cursor:
        assert rows(cursor, "SELECT 1 FROM contact_origin UNION ALL SELECT 1 FROM contact_subscription") == []


def test_every_record_that_touched_a_contact_names_it(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    apply(SHORT, "K1,ada@example.com,Lovelace")
    apply(SHORT, "K1,ada@example.com,Lovelace")
    query = "SELECT outcome, target_id = contact_id AS here FROM import_record, contact ORDER BY seqno"
    with transaction(connection) as cursor:
        found = [tuple(r.values()) for r in rows(cursor, query)]
    assert found == [("created", True), ("updated", True), ("unchanged", True)]


def change(settings: Settings, old: str, new: str) -> None:
    path = settings.templates / "contacts.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def contacts(connection: Connection, *columns: str) -> list[tuple[Any, ...]]:
    query = f"SELECT {', '.join(columns)} FROM contact ORDER BY external_id, domain_id, lower(email)"
    with transaction(connection) as cursor:
        return [tuple(r.values()) for r in rows(cursor, query)]
