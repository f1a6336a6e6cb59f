"""The rules for contacts (docs/rules.md), one after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from rowledger import contacts as contacts_of
from rowledger import ledger, loading, pipeline
from rowledger.db import Connection, Cursor, connect, rows, transaction
from rowledger.errors import TemplateError, UnknownCode
from rowledger.loading.contact import KIND
from rowledger.model import Batch
from rowledger.settings import Settings

Submit, Work = Callable[..., int], Callable[[int], Batch]
Became = Callable[[int], list[tuple[Any, ...]]]
Apply = Callable[..., list[tuple[Any, ...]]]

ALL = "Customer number,Email,Last name,First name,City,Birth date"
SHORT = "Customer number,Email,Last name"

WIDE = "Number,Mail,Name,City,Born,Lead,Roles,Card,Since,Tags,Origins,Lists,Out"
WIDE_TEMPLATE = """\
kind: contact
title: All that a contact can have, in short
columns:
  - {field: external_id, header: Number, type: code}
  - {field: email, header: Mail, type: email}
  - {field: last_name, header: Name}
  - {field: city, header: City, clear: "-"}
  - {field: birth_date, header: Born, type: date, format: YYYY-MM-DD, on_update: fill_if_empty, clear: "-"}
  - {field: lead, header: Lead, type: boolean, words: {"true": ["yes"], "false": ["no"]}, clear: "-"}
  - {field: roles, header: Roles, type: list, separator: "|", clear: "-"}
  - {field: attributes.card, header: Card, type: number, clear: "-"}
  - {field: attributes.since, header: Since, type: date, format: YYYY-MM-DD, on_update: fill_if_empty}
  - {field: attributes.tags, header: Tags, type: list, separator: "|", on_update: add, clear: "-"}
  - {field: origins, header: Origins, type: list, separator: "|"}
  - {field: subscriptions, header: Lists, type: list, separator: "|"}
  - {field: opt_outs, header: Out, type: list, separator: "|"}
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Templates that a test may change, and one of its own."""
    templates = shutil.copytree(settings.templates, tmp_path / "templates")
    (templates / "wide.yml").write_text(WIDE_TEMPLATE, encoding="utf-8")
    return dataclasses.replace(settings, templates=templates)


@pytest.fixture
def apply(submit: Submit, work: Work, became: Became, settings: Settings, connection: Connection) -> Apply:
    """Import lines below a header and tell what became of each."""
    change(settings, "  max_rejected_share: 0.5\n", "")

    def apply(header: str, *lines: str, **options: Any) -> list[tuple[Any, ...]]:
        template = "wide" if header.startswith("Number") else "contacts"
        batch = work(submit("".join(f"{line}\n" for line in (header, *lines)), template, **options))
        assert batch.succeeded, batch.error_message
        assert [check for check in ledger.check(connection) if check["violations"]] == []
        return [told[1:] for told in became(batch.seqno)]

    return apply


# Rule 1: match keys and modes ----------------------------------------------------------------------------------


def test_rule_1_a_contact_is_found_by_its_external_id_first(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K1,ada@example.org,Ångström") == [("updated",)]
    assert contacts(connection, "external_id", "email") == [("K1", "ada@example.org")]


def test_rule_1_a_contact_without_external_id_is_found_by_email(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, ",ada@example.com,Lovelace") == [("updated",)]
    assert contacts(connection, "external_id", "last_name") == [("K1", "Lovelace")]


def test_rule_1_a_contact_known_by_email_alone_gets_its_external_id(
    apply: Apply, connection: Connection
) -> None:
    apply("Email,Last name", "ada@example.com,Ångström")
    assert apply(SHORT, "K1,ada@example.com,Ångström") == [("updated",)]
    assert contacts(connection, "external_id", "email") == [("K1", "ada@example.com")]


def test_rule_1_the_template_says_which_keys_match(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    change(settings, "match: [external_id, email]", "match: [email]")
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K1,,Lovelace") == [("rejected", "missing_key")]
    assert apply(SHORT, "K2,ada@example.com,Lovelace") == [("updated",)]


def test_rule_1_a_record_without_any_key_is_rejected(apply: Apply) -> None:
    assert apply(SHORT, ",,Ångström", "  , ,Brontë") == [("rejected", "missing_key")] * 2


def test_rule_1_keys_that_lead_to_two_contacts_are_rejected(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", "K2,bob@example.com,Brontë")
    assert apply(SHORT, "K1,bob@example.com,Nobody") == [("rejected", "conflicting_keys")]
    assert contacts(connection, "last_name") == [("Ångström",), ("Brontë",)]


def test_rule_1_two_contacts_that_swap_their_addresses_in_one_file_are_both_rejected(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", "K2,bob@example.com,Brontë")
    told = apply(SHORT, "K1,bob@example.com,Ångström", "K2,ada@example.com,Brontë")
    assert [outcome for outcome, _ in told] == ["rejected", "rejected"]
    assert contacts(connection, "email") == [("ada@example.com",), ("bob@example.com",)]


def test_rule_1_a_record_whose_keys_contradict_each_other_draws_no_other_record_into_its_fate(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K2,ada@example.com,Ångström", "K3,bob@example.com,Brontë")
    assert apply(SHORT, "K2,,Renamed", "K2,bob@example.com,x", "K3,,Changed") == [
        ("updated",),
        ("rejected", "conflicting_keys"),
        ("updated",),
    ]
    assert contacts(connection, "last_name") == [("Renamed",), ("Changed",)]


def test_rule_1_the_email_of_a_contact_with_another_external_id_is_no_way_to_it(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K5,ada@example.com,Lovelace") == [("rejected", "conflicting_keys")]
    assert contacts(connection, "external_id") == [("K1",)]


def test_rule_1_the_same_key_in_another_domain_is_another_contact(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K1,ada@example.com,Lovelace", domain="OTHER") == [("created",)]
    assert contacts(connection, "last_name") == [("Ångström",), ("Lovelace",)]


def test_rule_1_create_only_leaves_known_contacts_out(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    change(settings, "title: All", "policies: {mode: create_only}\ntitle: All", "wide")
    apply(WIDE, wide("K1", "ada@example.com", name="One"))
    told = apply(WIDE, wide("K1", name="Two", origins="WEB", lists="NEWS"), wide("K2", name="Two"),
                 wide(mail="ADA@example.com", name="Two"))  # fmt: skip
    assert told == [("ignored", "exists_already"), ("created",), ("ignored", "exists_already")]
    assert contacts(connection, "last_name") == [("One",), ("Two",)]
    assert links(connection) == []


def test_rule_1_update_only_leaves_unknown_contacts_out(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    apply(WIDE, wide("K1", "ada@example.com", name="One"))
    change(settings, "title: All", "policies: {mode: update_only}\ntitle: All", "wide")
    told = apply(
        WIDE, wide("K2", name="Two", origins="WEB", out="NEWS"), wide(mail="ADA@example.com", name="Two")
    )
    assert told == [("ignored", "unknown_contact"), ("updated",)]
    assert contacts(connection, "external_id", "last_name") == [("K1", "Two")]
    assert links(connection) == []


def test_rule_1_what_the_mode_leaves_out_supersedes_nothing(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    apply(WIDE, wide(mail="ada@example.com", name="One"))
    change(settings, "title: All", "policies: {mode: update_only}\ntitle: All", "wide")
    both = [wide("K1", "ada@example.com", name) for name in ("Two", "Three")]
    assert apply(WIDE, *both, wide("K1", name="Nobody's")) == [
        ("rejected", "superseded_in_file"),
        ("updated",),
        ("ignored", "unknown_contact"),
    ]
    assert contacts(connection, "external_id", "last_name") == [("K1", "Three")]


def test_rule_1_the_sentence_of_a_mode_names_the_contact(
    submit: Submit, work: Work, settings: Settings, connection: Connection
) -> None:
    change(settings, "title: All", "policies: {mode: update_only}\ntitle: All", "wide")
    batch = work(submit(f"{WIDE}\n{wide('K2', 'ada@example.com')}\n", "wide"))
    (record,) = ledger.records(connection, batch.seqno)
    assert record["reasons"] == [{
        "rule": "unknown_contact", "column": "Number and Mail", "value": "K2, ada@example.com",
        "message": 'There is no contact "K2, ada@example.com" in domain DEMO, and this template creates none.',
    }]  # fmt: skip
    assert record["raw"][:2] == ["K2", "ada@example.com"]


# Rule 2: blank, clear, write rules -----------------------------------------------------------------------------


def test_rule_2_a_blank_cell_leaves_the_field_alone(apply: Apply, connection: Connection) -> None:
    apply(ALL, "K1,ada@example.com,Ångström,Ada,Uppsala,1980-02-29")
    assert apply(ALL, "K1,,Ångström,,  ,") == [("unchanged",)]
    assert contacts(connection, "email", "first_name", "city") == [("ada@example.com", "Ada", "Uppsala")]


def test_rule_2_a_column_that_the_file_lacks_leaves_the_field_alone(
    apply: Apply, connection: Connection
) -> None:
    apply(ALL, "K1,ada@example.com,Ångström,Ada,Uppsala,")
    assert apply(SHORT, "K1,ada@example.com,Lovelace") == [("updated",)]
    assert contacts(connection, "last_name", "first_name", "city") == [("Lovelace", "Ada", "Uppsala")]


def test_rule_2_write_rules_decide_what_an_update_changes(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    change(settings, "    header: City\n", "    header: City\n    on_update: never\n")
    apply(ALL, "K1,ada@example.com,Ångström,Ada,Uppsala,", "K2,bob@example.com,Brontë,Bob,,1980-02-29")
    told = apply(ALL, "K1,,Ångström,Augusta,Lund,1990-01-01", "K2,,Brontë,Bob,Lund,1990-01-01")
    assert told == [("updated",), ("unchanged",)]
    assert contacts(connection, "first_name", "city", "birth_date::text") == [
        ("Augusta", "Uppsala", "1990-01-01"), ("Bob", None, "1980-02-29"),
    ]  # fmt: skip


def test_rule_2_an_equal_record_writes_nothing(apply: Apply, connection: Connection) -> None:
    line = "K1,ada@example.com,Ångström,Ada,Uppsala,1980-02-29"
    apply(ALL, line)
    before = contacts(connection, "xmin::text", "updated_at")
    assert apply(ALL, line) == [("unchanged",)]
    assert contacts(connection, "xmin::text", "updated_at") == before


def test_rule_2_every_field_can_be_imported(apply: Apply, settings: Settings, connection: Connection) -> None:
    cells = {
        "text": "Zoë", "email": "zoe@example.com", "phone": "+49 30 23125-117", "date": "29-02-1980",
        "boolean": "yes", "list": "b,a,b",
    }  # fmt: skip
    stored = cells | {"phone": "+493023125117", "date": "1980-02-29", "boolean": True, "list": ["a", "b"]}
    more = {"date": ", format: DD-MM-YYYY", "list": ', separator: ","', "boolean": ', words: {"true": ["yes"], "false": ["no"]}'}  # fmt: skip
    fields = [(field.name, field.types[0]) for field in KIND.fields if field.reference is None]
    columns = [
        f"  - {{field: {name}, header: {name}, type: {type}{more.get(type, '')}}}\n" for name, type in fields
    ]
    (settings.templates / "contacts.yml").write_text(
        "kind: contact\ntitle: x\nfile: {delimiter: ';'}\ncolumns:\n" + "".join(columns)
    )
    names = [name for name, _ in fields]
    assert apply(";".join(names), ";".join(cells[type] for _, type in fields)) == [("created",)]
    assert contacts(connection, *names) == [
        tuple(date(1980, 2, 29) if type == "date" else stored[type] for _, type in fields)
    ]


def test_rule_2_a_blank_cell_leaves_lists_attributes_and_booleans_alone(
    apply: Apply, connection: Connection
) -> None:
    full = wide(
        "K1", city="Ulm", born="1980-02-29", lead="yes", roles="buyer", card="7", since="2020-01-31", tags="a"
    )
    apply(WIDE, full)
    before = contacts(connection, "contact")
    assert apply(WIDE, wide("K1")) == [("unchanged",)]
    assert contacts(connection, "contact") == before


def test_rule_2_the_clear_word_sets_to_nothing(apply: Apply, connection: Connection) -> None:
    apply(
        WIDE,
        wide(
            "K1",
            city="Ulm",
            born="1980-02-29",
            lead="yes",
            roles="buyer",
            card="7",
            since="2020-01-31",
            tags="a",
        ),
    )
    assert apply(WIDE, wide("K1", city="-", lead="-", roles="-", card="-")) == [("updated",)]
    assert contacts(connection, "city", "birth_date::text", "lead", "roles", "attributes") == [
        (None, "1980-02-29", None, None, {"since": "2020-01-31", "tags": ["a"]})
    ]
    assert apply(WIDE, wide("K1", city="-", lead="-", roles="-", card="-")) == [("unchanged",)]


def test_rule_2_the_clear_word_empties_what_is_only_filled_or_added_to(
    apply: Apply, connection: Connection
) -> None:
    apply(WIDE, wide("K1", born="1980-02-29", tags="a"))
    assert apply(WIDE, wide("K1", born="-", tags="-")) == [("updated",)]
    assert contacts(connection, "birth_date", "attributes") == [(None, None)]


def test_rule_2_the_clear_word_is_a_blank_cell_for_a_new_contact(
    apply: Apply, connection: Connection
) -> None:
    assert apply(WIDE, wide("K1", city="-", born="-", lead="-", roles="-", card="-", tags="-")) == [
        ("created",)
    ]
    assert contacts(connection, "city", "birth_date", "lead", "roles", "attributes") == [(None,) * 5]


def test_rule_2_a_key_has_no_clear_word(apply: Apply, settings: Settings) -> None:
    change(settings, "header: Mail, type: email", "header: Mail, type: email, clear: '-'", "wide")
    with pytest.raises(
        TemplateError, match="clear: is not for email; it says whom or what a record is about"
    ):
        apply(WIDE, wide("K1", "-"))


def test_rule_2_a_list_is_overwritten_or_added_to(apply: Apply, connection: Connection) -> None:
    apply(WIDE, wide("K1", roles="buyer|admin", tags="b|a"))
    assert apply(WIDE, wide("K1", roles="seller", tags="c|a")) == [("updated",)]
    assert contacts(connection, "roles", "attributes") == [(["seller"], {"tags": ["a", "b", "c"]})]


def test_rule_2_the_roles_of_a_contact_can_be_added_to(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    change(settings, "header: Roles, type: list,", "header: Roles, type: list, on_update: add,", "wide")
    apply(WIDE, wide("K1", roles="seller"), wide("K2"))
    told = apply(WIDE, wide("K1", roles="buyer|seller"), wide("K2", roles="buyer"), wide("K3", roles="buyer"))
    assert told == [("updated",), ("updated",), ("created",)]
    assert contacts(connection, "roles") == [(["buyer", "seller"],), (["buyer"],), (["buyer"],)]


def test_rule_2_a_list_of_the_same_items_in_another_order_is_unchanged(
    apply: Apply, connection: Connection
) -> None:
    apply(WIDE, wide("K1", roles="buyer|admin", tags="b|a"))
    assert apply(WIDE, wide("K1", roles="admin|buyer", tags="a")) == [("unchanged",)]


def test_rule_2_of_the_attributes_only_those_named_change(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    apply(WIDE, wide("K1", card="0012.50", since="2020-01-31", tags="x"))
    change(settings, "attributes.tags", "attributes.colours", "wide")
    assert apply(WIDE, wide("K1", card="8", since="2024-01-31", tags="red")) == [("updated",)]
    assert contacts(connection, "attributes::text") == [
        ('{"card": 8, "tags": ["x"], "since": "2020-01-31", "colours": ["red"]}',)
    ]


def test_rule_2_an_attribute_that_becomes_a_list_keeps_what_it_was(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    apply(WIDE, wide("K1", card="12", since="2020-01-31"))
    change(settings, "attributes.card", "attributes.number", "wide")
    change(settings, "attributes.tags", "attributes.card", "wide")
    assert apply(WIDE, wide("K1", tags="a|b")) == [("updated",)]
    assert contacts(connection, "attributes -> 'card'") == [(["12", "a", "b"],)]


def test_rule_2_there_is_no_limit_to_attributes(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    names = [f"n{number}" for number in range(300)]
    columns = "".join(f"  - {{field: attributes.{name}, header: {name}}}\n" for name in names)
    change(settings, "columns:\n", "columns:\n" + columns, "wide")
    header = ",".join([*WIDE.split(","), *names])
    assert apply(header, wide("K1") + ",one" * 300) == [("created",)]
    assert apply(header, wide("K1") + ",two" * 300) == [("updated",)]
    assert contacts(connection, "attributes") == [(dict.fromkeys(names, "two"),)]


def test_rule_2_an_update_notes_what_it_changed_with_the_values_before(
    apply: Apply, connection: Connection
) -> None:
    apply(
        WIDE,
        wide(
            "K1", "ada@example.com", "One", city="Ulm", born="1980-02-29", roles="buyer", card="7", tags="a"
        ),
    )
    line = wide(
        "K1",
        "ada@example.com",
        "Two",
        city="-",
        born="1990-01-01",
        lead="no",
        roles="buyer|admin",
        card="-",
        tags="a|b",
    )
    apply(WIDE, line)
    apply(WIDE, line)
    with transaction(connection) as cursor:
        found = [r["before"] for r in rows(cursor, "SELECT before FROM import_record ORDER BY seqno")]
    assert found == [
        None,
        {"last_name": "One", "city": "Ulm", "lead": None, "roles": ["buyer"],
         "attributes.card": 7, "attributes.tags": ["a"]},
        None,
    ]  # fmt: skip


def test_rule_2_a_template_of_keys_that_are_never_written_updates_nothing(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    apply(WIDE, wide("K1", name="One"))
    (settings.templates / "wide.yml").write_text(
        "kind: contact\ntitle: x\ncolumns:\n  - {field: external_id, header: Number, type: code, on_update: never}\n"
    )
    assert apply("Number", "K1", "K2") == [("unchanged",), ("created",)]
    assert contacts(connection, "last_name") == [("One",), (None,)]


# Rule 3: the same contact twice in a file ----------------------------------------------------------------------


def test_rule_3_of_several_records_about_one_contact_the_last_wins(
    apply: Apply, connection: Connection
) -> None:
    told = apply(SHORT, "K1,ada@example.com,One", "K2,bob@example.com,Other", "K1,ada@example.com,Two")
    assert told == [("rejected", "superseded_in_file"), ("created",), ("created",)]
    assert contacts(connection, "last_name") == [("Two",), ("Other",)]


def test_rule_3_a_wrong_last_record_leaves_the_one_before_it_to_win(
    apply: Apply, connection: Connection
) -> None:
    assert apply(SHORT, "K1,ada@example.com,One", "K1,ada@example.com,") == [
        ("created",),
        ("rejected", "required"),
    ]


def test_rule_3_an_exact_repeat_is_unchanged_with_a_warning(
    submit: Submit, work: Work, connection: Connection
) -> None:
    batch = work(submit(f"{SHORT}\n" + "K1,ada@example.com,One\n" * 3))
    found = [
        (r["outcome"], [w["rule"] for w in r["warnings"] or ()])
        for r in ledger.records(connection, batch.seqno)
    ]
    assert found == [("created", []), *[("unchanged", ["duplicate_in_file"])] * 2]


def test_rule_3_records_with_different_keys_of_a_stored_contact_are_about_one_contact(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    told = apply(SHORT, ",ada@example.com,By address", "K1,,By number")
    assert told == [("rejected", "superseded_in_file"), ("updated",)]
    assert contacts(connection, "last_name") == [("By number",)]


@pytest.mark.parametrize("match", ["external_id, email", "email, external_id"])
@pytest.mark.parametrize(
    ("stored", "lines", "left"),
    [
        (",ada@example.com,Old", ["K1,ada@example.com,One", "K1,,Two"], ("K1", "ada@example.com", "Two")),
        (",ada@example.com,Old", ["K1,ada@example.com,One", "K1,ada@x.example,Two"], ("K1", "ada@x.example", "Two")),
        ("K1,ada@example.com,Old", ["K1,ada@x.example,One", ",ADA@x.example,Two"], ("K1", "ADA@x.example", "Two")),
        ("K1,,Old", ["K1,ada@example.com,One", ",ada@example.com,Two"], ("K1", "ada@example.com", "Two")),
    ],
)  # fmt: skip
def test_rule_3_a_last_record_that_finds_nobody_is_about_the_contact_of_those_before_it(
    match: str, stored: str, lines: list[str], left: tuple[str, ...], apply: Apply, settings: Settings, connection: Connection
) -> None:  # fmt: skip
    """Two lines of one file end as they do as two files, and as they do when the file comes again."""
    change(settings, "match: [external_id, email]", f"match: [{match}]")
    apply(SHORT, stored)
    assert apply(SHORT, *lines) == [("rejected", "superseded_in_file"), ("updated",)]
    assert contacts(connection, "external_id", "email", "last_name") == [left]
    assert apply(SHORT, *lines) == [("rejected", "superseded_in_file"), ("unchanged",)]
    for line in (stored, *lines):
        apply(SHORT, line, domain="OTHER")
    assert contacts(connection, "external_id", "email", "last_name") == [left, left]


def test_rule_3_a_chain_of_records_is_about_the_stored_contact_that_one_of_them_finds(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, ",ada@example.com,Old")
    lines = ["K1,ada@example.com,One", "K1,ada@x.example,Two", ",ada@x.example,Three", ",ada@x.example,Three"]
    superseded = ("rejected", "superseded_in_file")
    assert apply(SHORT, *lines) == [superseded, superseded, ("updated",), ("unchanged",)]
    assert contacts(connection, "external_id", "email", "last_name") == [(None, "ada@x.example", "Three")]


def test_rule_3_origins_and_lists_of_a_last_record_that_finds_nobody_go_to_the_contact_of_the_others(
    apply: Apply, connection: Connection
) -> None:
    apply(WIDE, wide(mail="ada@example.com", city="Ulm", tags="a"))
    lines = [
        wide("K1", "ada@example.com", city="Bonn"),
        wide("K1", city="-", tags="b", origins="WEB", out="NEWS"),
    ]
    assert apply(WIDE, *lines) == [("rejected", "superseded_in_file"), ("updated",)]
    assert contacts(connection, "external_id", "city", "attributes") == [("K1", None, {"tags": ["a", "b"]})]
    assert links(connection) == [("K1", "WEB", 2, 2), ("K1", "NEWS", False, 2, 2)]


def test_rule_3_a_last_record_with_another_external_id_is_somebody_else(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Old")
    told = apply(SHORT, "K1,ada@x.example,One", "K2,ada@x.example,Two")
    assert told == [("rejected", "superseded_in_file"), ("created",)]
    assert contacts(connection, "external_id", "email", "last_name") == [
        ("K1", "ada@example.com", "Old"), ("K2", "ada@x.example", "Two"),
    ]  # fmt: skip


def test_rule_3_of_two_stored_contacts_a_last_record_that_finds_neither_takes_none(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, ",ada@example.com,Old", ",bob@example.com,Old")
    told = apply(SHORT, "K1,ada@example.com,One", "K1,bob@example.com,Two", "K1,,Three")
    assert told == [("rejected", "superseded_in_file")] * 2 + [("created",)]
    assert contacts(connection, "external_id", "email", "last_name") == [
        ("K1", None, "Three"), (None, "ada@example.com", "Old"), (None, "bob@example.com", "Old"),
    ]  # fmt: skip


def test_rule_3_a_record_that_is_refused_leads_no_other_to_its_contact(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    apply(SHORT, ",ada@example.com,Old")
    assert apply(SHORT, "K1,ada@example.com,", "K1,,Two") == [("rejected", "required"), ("created",)]
    change(settings, "title: All", "policies: {mode: create_only}\ntitle: All", "wide")
    told = apply(WIDE, wide("K2", "ada@example.com", "One"), wide("K2", name="Two"))
    assert told == [("ignored", "exists_already"), ("created",)]
    change(settings, "mode: create_only", "mode: update_only", "wide")
    told = apply(WIDE, wide("K3", "ada@example.com", "One"), wide("K3", name="Two"))
    assert told == [("updated",), ("ignored", "unknown_contact")]
    assert contacts(connection, "external_id", "email", "last_name") == [
        ("K1", None, "Two"), ("K2", None, "Two"), ("K3", "ada@example.com", "One"),
    ]  # fmt: skip


def test_rule_3_where_one_key_finds_contacts_another_value_of_it_is_somebody_else(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    change(settings, "match: [external_id, email]", "match: [email]")
    apply(SHORT, ",ada@example.com,Old")
    told = apply(SHORT, "K1,ada@example.com,One", "K1,bob@example.com,Two")
    assert told == [("rejected", "superseded_in_file"), ("created",)]
    assert contacts(connection, "external_id", "email", "last_name") == [
        ("K1", "bob@example.com", "Two"), (None, "ada@example.com", "Old"),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 7])
def test_rule_3_the_result_does_not_depend_on_the_size_of_chunks(
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


def test_rule_3_a_record_that_clears_says_something_else_than_one_that_does_not(
    apply: Apply, connection: Connection
) -> None:
    apply(WIDE, wide("K1", city="Ulm"))
    assert apply(WIDE, wide("K1", city="-"), wide("K1")) == [
        ("rejected", "superseded_in_file"),
        ("unchanged",),
    ]
    assert apply(WIDE, wide("K1"), wide("K1", city="-")) == [("rejected", "superseded_in_file"), ("updated",)]
    assert contacts(connection, "city") == [(None,)]


def test_rule_3_lists_of_earlier_records_are_not_taken(apply: Apply, connection: Connection) -> None:
    told = apply(
        WIDE, wide("K1", tags="a", origins="WEB", lists="NEWS"), wide("K1", tags="b", origins="FAIR")
    )
    assert told == [("rejected", "superseded_in_file"), ("created",)]
    assert contacts(connection, "attributes") == [({"tags": ["b"]},)]
    assert links(connection) == [("K1", "FAIR", 1, 2)]


# Rule 4: addresses and numbers ---------------------------------------------------------------------------------


def test_rule_4_email_is_compared_without_case_and_kept_as_given(
    apply: Apply, connection: Connection
) -> None:
    apply("Email,Last name", "Ada@Example.com,Ångström")
    assert apply("Email,Last name", "ADA@EXAMPLE.COM,Lovelace") == [("updated",)]
    assert len(contacts(connection, "email")) == 1


def test_rule_4_an_address_that_differs_in_case_only_is_an_update(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    assert apply(SHORT, "K1,Ada@example.com,Ångström") == [("updated",)]
    assert contacts(connection, "email") == [("Ada@example.com",)]


def test_rule_4_phone_numbers_are_stored_in_one_form(apply: Apply, connection: Connection) -> None:
    header = "Customer number,Last name,Phone"
    apply(header, "K1,Ångström,030 23125-117")
    assert apply(header, "K1,Ångström,+49 (0)30 23125117") == [("unchanged",)]
    assert contacts(connection, "phone") == [("+493023125117",)]


def test_rule_4_an_address_without_a_mailbox_is_rejected(apply: Apply) -> None:
    told = apply(SHORT, "K1,a..b@example.com,Wrong", "K2,ada@example,Wrong", "K3,ü@exämple.de,Right")
    assert told == [("rejected", "format"), ("rejected", "format"), ("created",)]


def test_rule_4_a_number_that_nobody_can_dial_is_rejected(apply: Apply) -> None:
    header = "Customer number,Last name,Phone"
    assert apply(header, "K1,Ångström,12", "K2,Ångström,030 CALL-ME") == [("rejected", "format")] * 2


# Rule 5: origins -----------------------------------------------------------------------------------------------


def test_rule_5_origins_named_at_upload_are_added_and_the_first_stays_the_first(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", origins=["WEB"])
    assert apply(SHORT, "K1,ada@example.com,Ångström", origins=["FAIR", "WEB"]) == [("updated",)]
    assert apply(SHORT, "K1,ada@example.com,Ångström", origins=["FAIR"]) == [("unchanged",)]
    query = "SELECT code, seqno FROM contact_origin JOIN origin USING (origin_id) ORDER BY added_at, seqno"
    with transaction(connection) as cursor:
        assert [(r["code"], r["seqno"]) for r in rows(cursor, query)] == [("WEB", 1), ("FAIR", 2)]


def test_rule_5_origins_in_a_column_are_added_in_its_order_before_those_of_the_upload(
    apply: Apply, connection: Connection
) -> None:
    apply(WIDE, wide("K1", origins="WEB|FAIR"), wide("K2", origins="FAIR"), wide("K3"), origins=["WEB"])
    assert apply(WIDE, wide("K2", origins="WEB|FAIR"), wide("K3", origins="FAIR|WEB")) == [
        ("unchanged",),
        ("updated",),
    ]
    assert links(connection) == [
        ("K1", "WEB", 1, 1), ("K1", "FAIR", 1, 1), ("K2", "FAIR", 1, 2), ("K2", "WEB", 1, 2),
        ("K3", "WEB", 1, 3), ("K3", "FAIR", 2, 2),
    ]  # fmt: skip


def test_rule_5_an_origin_that_is_not_active_cannot_be_named_in_a_column(apply: Apply) -> None:
    told = apply(WIDE, wide("K1", origins="WEB|OLD"), wide("K2", origins="NONE"), wide("K3", origins="FAIR"))
    assert told == [("rejected", "not_in_set"), ("rejected", "not_in_set"), ("created",)]


def test_rule_5_origins_are_those_of_the_domain(
    apply: Apply, submit: Submit, work: Work, connection: Connection
) -> None:
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO origin (domain_id, code, name) SELECT domain_id, 'WEB', 'Theirs' FROM domain WHERE code = 'OTHER'"
        )
    apply(WIDE, wide("K1", origins="WEB"), domain="OTHER")
    query = "SELECT name FROM contact_origin JOIN origin USING (origin_id)"
    with transaction(connection) as cursor:
        assert rows(cursor, query) == [{"name": "Theirs"}]


# Rule 6: subscriptions -----------------------------------------------------------------------------------------


def test_rule_6_lists_named_at_upload_are_opted_in_to_with_provenance(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", subscriptions=["NEWS", "OFFERS"])
    assert apply(SHORT, "K1,ada@example.com,Ångström", subscriptions=["NEWS"]) == [("unchanged",)]
    query = "SELECT list_id, opted_in, seqno, record_no FROM subscription_history JOIN subscription USING (subscription_id) ORDER BY 1"
    with transaction(connection) as cursor:
        assert [tuple(r.values()) for r in rows(cursor, query)] == [
            ("NEWS", True, 1, 1),
            ("OFFERS", True, 1, 1),
        ]


def test_rule_6_lists_in_a_column_are_opted_in_and_out_with_provenance(
    apply: Apply, connection: Connection
) -> None:
    apply(WIDE, wide("K1", lists="NEWS"), wide("K2", out="NEWS|GONE"), subscriptions=["OFFERS"])
    assert apply(WIDE, wide("K1", out="NEWS"), wide("K2", out="NEWS")) == [("updated",), ("unchanged",)]
    assert history(connection) == [
        ("K1", "NEWS", True, 1, 1), ("K1", "OFFERS", True, 1, 1), ("K1", "NEWS", False, 2, 1),
        ("K2", "GONE", False, 1, 2), ("K2", "NEWS", False, 1, 2), ("K2", "OFFERS", True, 1, 2),
    ]  # fmt: skip
    assert subscriptions(connection) == [
        ("K1", "NEWS", False), ("K1", "OFFERS", True),
        ("K2", "GONE", False), ("K2", "NEWS", False), ("K2", "OFFERS", True),
    ]  # fmt: skip


def test_rule_6_a_disabled_list_cannot_be_named_in_a_column(apply: Apply) -> None:
    told = apply(WIDE, wide("K1", lists="GONE"), wide("K2", out="GONE"), wide("K3", out="NONE"))
    assert told == [("rejected", "not_in_set"), ("created",), ("rejected", "not_in_set")]


def test_rule_6_an_opt_out_always_wins(
    apply: Apply, submit: Submit, work: Work, connection: Connection
) -> None:
    apply(WIDE, wide("K1", lists="NEWS"))
    apply(WIDE, wide("K1", out="NEWS"))
    batch = work(
        submit(
            f"{WIDE}\n{wide('K1', lists='OFFERS')}\n{wide('K2', lists='NEWS')}\n",
            "wide",
            subscriptions=["NEWS"],
        )
    )
    assert warnings(connection, batch) == [
        ("updated", [("opted_out_kept", None, "NEWS", 'The contact has opted out of "Newsletter" and stays out.')]),
        ("created", []),
    ]  # fmt: skip
    batch = work(submit(f"{WIDE}\n{wide('K1', lists='NEWS')}\n", "wide"))
    assert warnings(connection, batch) == [
        (
            "unchanged",
            [("opted_out_kept", "Lists", "NEWS", 'The contact has opted out of "Newsletter" and stays out.')],
        )
    ]
    assert subscriptions(connection) == [("K1", "NEWS", False), ("K1", "OFFERS", True), ("K2", "NEWS", True)]
    assert [entry for entry in history(connection) if entry[:2] == ("K1", "NEWS")] == [
        ("K1", "NEWS", True, 1, 1), ("K1", "NEWS", False, 2, 1),
    ]  # fmt: skip


def test_rule_6_an_opt_out_wins_over_the_same_record_and_its_upload(
    submit: Submit, work: Work, connection: Connection
) -> None:
    text = f"{WIDE}\n{wide('K1', lists='NEWS', out='NEWS')}\n{wide('K2', out='OFFERS')}\n"
    batch = work(submit(text, "wide", subscriptions=["OFFERS"]))
    said = 'The record opts out of "{}" too; the opt-out counts.'
    assert warnings(connection, batch) == [
        ("created", [("opted_out_kept", "Lists", "NEWS", said.format("Newsletter"))]),
        ("created", [("opted_out_kept", None, "OFFERS", said.format("Offers"))]),
    ]
    assert subscriptions(connection) == [
        ("K1", "NEWS", False),
        ("K1", "OFFERS", True),
        ("K2", "OFFERS", False),
    ]
    assert history(connection) == [
        ("K1", "NEWS", False, 1, 1), ("K1", "OFFERS", True, 1, 1), ("K2", "OFFERS", False, 1, 2),
    ]  # fmt: skip


def test_rule_6_an_opt_out_of_whoever_was_never_on_the_list_holds_against_later_files(
    apply: Apply, connection: Connection
) -> None:
    apply(WIDE, wide("K1", out="NEWS"))
    assert apply(WIDE, wide("K1"), subscriptions=["NEWS"]) == [("unchanged",)]
    assert subscriptions(connection) == [("K1", "NEWS", False)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"origins": ["OLD"]}, 'The origin "OLD" is not active and cannot be chosen.'),
        ({"origins": ["NONE"]}, 'The origin "NONE" does not exist in this domain and cannot be chosen.'),
        ({"subscriptions": ["GONE"]}, 'The subscription list "GONE" is disabled and cannot be chosen.'),
        ({"subscriptions": ["NEWS"], "domain": "OTHER"}, 'The subscription list "NEWS" does not exist in this domain'),
    ],
)  # fmt: skip
def test_rules_5_and_6_only_active_origins_and_enabled_lists_of_the_domain_can_be_chosen(
    options: dict[str, Any], sentence: str, submit: Submit, connection: Connection
) -> None:
    with pytest.raises(UnknownCode, match=sentence):
        submit(f"{SHORT}\nK1,ada@example.com,Ångström\n", **options)
    with transaction(connection) as cursor:
        assert rows(cursor, "SELECT seqno FROM import_batch") == []


def test_rules_5_and_6_a_rejected_record_gets_no_origin_and_no_subscription(
    apply: Apply, connection: Connection
) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström", "K2,bob@example.com,Brontë")
    apply(SHORT, "K1,bob@example.com,Conflict", "K3,nobody,Wrong", origins=["WEB"], subscriptions=["NEWS"])
    with transaction(connection) as cursor:
        assert rows(cursor, "SELECT 1 FROM contact_origin UNION ALL SELECT 1 FROM contact_subscription") == []


# Rule 7: the profile -------------------------------------------------------------------------------------------


def test_rule_7_every_record_that_touched_a_contact_names_it(apply: Apply, connection: Connection) -> None:
    apply(SHORT, "K1,ada@example.com,Ångström")
    apply(SHORT, "K1,ada@example.com,Lovelace")
    apply(SHORT, "K1,ada@example.com,Lovelace")
    query = "SELECT outcome, target_id = contact_id AS here FROM import_record, contact ORDER BY seqno"
    with transaction(connection) as cursor:
        found = [tuple(r.values()) for r in rows(cursor, query)]
    assert found == [("created", True), ("updated", True), ("unchanged", True)]


def test_rule_7_the_profile_shows_fields_links_history_and_every_record(
    apply: Apply, connection: Connection
) -> None:
    apply(
        WIDE,
        wide("K1", "Ada@example.com", "One", roles="buyer", card="7", origins="FAIR", lists="NEWS"),
        origins=["WEB"],
    )
    apply(WIDE, wide("K1", name="Two", card="-", out="NEWS"), wide("K2", name="Other"), by="a colleague")
    apply(WIDE, wide("K1", name="Two"), wide("K1", name="Two"))
    apply(WIDE, wide("K1", name="Three"))
    found = contacts_of.profile(connection, "DEMO", "ADA@EXAMPLE.COM", 10)
    assert found == contacts_of.profile(connection, "DEMO", "K1", 10)
    assert {field: found.fields[field] for field in ("external_id", "last_name", "roles", "lead")} == {
        "external_id": "K1", "last_name": "Three", "roles": ["buyer"], "lead": None,
    }  # fmt: skip
    assert [(one["code"], one["first"], one["uploaded_by"]) for one in found.origins] == [
        ("FAIR", True, "tester"), ("WEB", False, "tester"),
    ]  # fmt: skip
    assert [(one["list_id"], one["type"], one["opted_in"]) for one in found.subscriptions] == [
        ("NEWS", "email", False)
    ]
    assert [
        (one["list_id"], one["opted_in"], one["seqno"], one["record_no"], one["uploaded_by"])
        for one in found.subscription_history
    ] == [("NEWS", False, 2, 1, "a colleague"), ("NEWS", True, 1, 1, "tester")]
    told = [
        (
            one["seqno"],
            one["outcome"],
            one["changes"],
            one["origins_added"],
            one["opted_in"],
            one["opted_out"],
        )
        for one in found.records
    ]
    assert told == [
        (4, "updated", {"last_name": {"before": "Two", "after": "Three"}}, [], [], []),
        (3, "unchanged", {}, [], [], []),
        (2, "updated", {"last_name": {"before": "One", "after": "Two"},
                        "attributes.card": {"before": 7, "after": None}}, [], [], ["NEWS"]),
        (1, "created", {}, ["FAIR", "WEB"], ["NEWS"], []),
    ]  # fmt: skip


def test_rule_7_records_stand_in_the_order_in_which_they_were_applied(
    connection: Connection,
    database_url: str,
    settings: Settings,
    submit: Submit,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not in that in which their transactions began: one may have waited for its turn meanwhile."""
    work(submit("Customer number,Last name,City\nK1,Ada,Ulm\n"))
    slow, quick = (submit(f"Customer number,Last name,City\nK1,Ada,{city}\n") for city in ("Jena", "Bonn"))
    lock_shared = loading.lock_shared

    def overtaken(cursor: Cursor, batch: Batch) -> None:
        if batch.seqno == slow:
            with contextlib.closing(connect(database_url)) as other:
                pipeline.work(pipeline.Worker(other, settings, "other"), quick)
        lock_shared(cursor, batch)

    monkeypatch.setattr(loading, "lock_shared", overtaken)
    work(slow)
    found = contacts_of.profile(connection, "DEMO", "K1", 10)
    assert [record["changes"].get("city") for record in found.records] == [
        {"before": "Bonn", "after": "Jena"}, {"before": "Ulm", "after": "Bonn"}, None,
    ]  # fmt: skip


def test_rule_7_the_profile_of_a_much_touched_contact_is_bounded(
    apply: Apply, connection: Connection
) -> None:
    for number in range(5):
        apply(WIDE, wide("K1", name=f"Name {number}", lists="NEWS" if number else "OFFERS"))
    found = contacts_of.profile(connection, "DEMO", "K1", 2)
    assert [(one["seqno"], one["changes"]["last_name"]["after"]) for one in found.records] == [
        (5, "Name 4"), (4, "Name 3"),
    ]  # fmt: skip
    assert (len(found.subscription_history), found.totals) == (
        2,
        {"records": 5, "subscription_history": 2, "contracts": 0},
    )


def test_rule_7_a_record_that_the_mode_left_out_is_in_the_profile(
    apply: Apply, settings: Settings, connection: Connection
) -> None:
    change(settings, "title: All", "policies: {mode: create_only}\ntitle: All", "wide")
    apply(WIDE, wide("K1"))
    apply(WIDE, wide("K1"))
    found = contacts_of.profile(connection, "DEMO", "K1", 10)
    assert [one["outcome"] for one in found.records] == ["ignored", "created"]


def test_rule_7_the_external_id_counts_before_the_email(apply: Apply, connection: Connection) -> None:
    apply(WIDE, wide("K1", "ada@example.com"), wide("ada@example.com", "bob@example.com"))
    assert contacts_of.profile(connection, "DEMO", "ada@example.com", 1).fields["email"] == "bob@example.com"


@pytest.mark.parametrize(
    ("domain", "key", "sentence"),
    [
        ("NONE", "K1", 'There is no domain "NONE". Domains are: DEMO, OTHER.'),
        ("OTHER", "K1", 'Nobody in domain OTHER has the external id or the email "K1".'),
    ],
)
def test_rule_7_a_profile_of_nobody_is_a_sentence(
    domain: str, key: str, sentence: str, apply: Apply, connection: Connection
) -> None:
    apply(WIDE, wide("K1"))
    with pytest.raises(UnknownCode, match=sentence):
        contacts_of.profile(connection, domain, key, 1)


def change(settings: Settings, old: str, new: str, template: str = "contacts") -> None:
    path = settings.templates / f"{template}.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def contacts(connection: Connection, *columns: str) -> list[tuple[Any, ...]]:
    query = f"SELECT {', '.join(columns)} FROM contact ORDER BY external_id, domain_id, lower(email)"
    with transaction(connection) as cursor:
        return [tuple(r.values()) for r in rows(cursor, query)]


def wide(
    number: str = "",
    mail: str = "",
    name: str = "",
    **cells: str,
) -> str:
    """A line of the template wide."""
    cells |= {"number": number, "mail": mail, "name": name}
    line = [cells.pop(column.lower(), "") for column in WIDE.split(",")]
    assert not cells
    return ",".join(line)


def links(connection: Connection) -> list[tuple[Any, ...]]:
    """Origins in their order, and what the subscription history has."""
    query = """
        SELECT external_id, code, seqno, record_no
        FROM contact_origin JOIN origin USING (origin_id) JOIN contact USING (contact_id)
        ORDER BY external_id, entry_id"""
    with transaction(connection) as cursor:
        origins = [tuple(r.values()) for r in rows(cursor, query)]
    return origins + history(connection)


def history(connection: Connection) -> list[tuple[Any, ...]]:
    query = """
        SELECT external_id, list_id, opted_in, seqno, record_no
        FROM subscription_history JOIN subscription USING (subscription_id) JOIN contact USING (contact_id)
        ORDER BY external_id, seqno, record_no, list_id"""
    with transaction(connection) as cursor:
        return [tuple(r.values()) for r in rows(cursor, query)]


def subscriptions(connection: Connection) -> list[tuple[Any, ...]]:
    query = """
        SELECT external_id, list_id, opted_in
        FROM contact_subscription JOIN subscription USING (subscription_id) JOIN contact USING (contact_id)
        ORDER BY external_id, list_id"""
    with transaction(connection) as cursor:
        return [tuple(r.values()) for r in rows(cursor, query)]


def warnings(connection: Connection, batch: Batch) -> list[tuple[Any, ...]]:
    """Per record its outcome and its warnings."""
    return [
        (r["outcome"], [(w["rule"], w["column"], w["value"], w["message"]) for w in r["warnings"] or ()])
        for r in ledger.records(connection, batch.seqno)
    ]
