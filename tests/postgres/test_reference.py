"""Reference data: what may be created and changed, what stays, who changed what; by operations, by file, by hand."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from rowledger import db, reference
from rowledger.db import Connection
from rowledger.errors import ChangedMeanwhile, RecordRefused, SetupError, UnknownCode, WrongValue
from rowledger.reference import (
    DOMAIN_LISTS,
    Change,
    Domain,
    Item,
    Loaded,
    Origin,
    Phase,
    Reference,
    Status,
    Subscription,
)

DATA = Path(__file__).parents[1] / "data"
NFD, NFC = "Cafe\u0301", "Café"

A_PHASE = {"code": "MID", "description": "In between"}
A_STATUS = {"code": "40", "phase": "NEW", "description": "Waiting"}
AN_ORIGIN = {"code": "MAIL", "name": "A mailing"}
A_LIST = {"list_id": "DEALS", "name": "Deals", "type": "email"}
A_DOMAIN = {"code": "NEW", "name": "A new one"}
OF_EACH_SORT = [(Phase, A_PHASE), (Status, A_STATUS), (Origin, AN_ORIGIN), (Subscription, A_LIST)]


@pytest.fixture(scope="module")
def shared(fresh_database: Callable[..., contextlib.AbstractContextManager[str]]) -> Iterator[Connection]:
    """A database for tests that change nothing."""
    with fresh_database() as url, contextlib.closing(db.connect(url)) as opened:
        yield opened


@pytest.fixture
def another(database_url: str) -> Iterator[Connection]:
    """A second connection to the test's database."""
    with contextlib.closing(db.connect(database_url)) as opened:
        yield opened


def run(connection: Connection, statement: str) -> list[Any]:
    with db.transaction(connection) as cursor:
        cursor.execute(statement)
        return [list(r.values()) for r in cursor.fetchall()] if cursor.description else []


def seen(changes: list[Change]) -> list[tuple[Any, ...]]:
    return [(change.sort, change.code, change.fields()) for change in changes]


def latest(connection: Connection) -> int:
    """The number of the last change; changes are listed above it."""
    return max((change.change_id for change in reference.changes(connection, limit=1)), default=0)


def since(connection: Connection, number: int) -> list[Change]:
    return [change for change in reversed(reference.changes(connection)) if change.change_id > number]


def demo(**contents: Any) -> Reference:
    return reference.make(Reference, {"domains": [{"code": "DEMO", "name": "Demo", **contents}]})


# Create, change, retire, restore ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("sort", "values"), OF_EACH_SORT)
def test_an_item_is_created_changed_retired_and_restored(
    sort: type[Item], values: dict[str, Any], connection: Connection
) -> None:
    item = reference.make(sort, values)
    text = "name" if "name" in values else "description"
    switch, out_of_use = sort.switch
    before = latest(connection)
    reference.create(connection, item, "DEMO", by="ada")
    assert reference.get(connection, sort, item.id, "DEMO") == item
    changed = item.model_copy(update={text: "Something else"})
    assert reference.change(connection, changed, "DEMO", by="bob") is True
    assert reference.set_in_use(connection, sort, item.id, False, "DEMO", by="cleo") is True
    retired = reference.get(connection, sort, item.id, "DEMO")
    assert (retired.in_use, getattr(retired, switch)) == (False, out_of_use)
    assert item.id in [one.id for one in reference.listed(connection, sort, "DEMO")], "it stays"
    assert reference.set_in_use(connection, sort, item.id, False, "DEMO") is False
    assert reference.set_in_use(connection, sort, item.id, True, "DEMO", by="dora") is True
    assert reference.get(connection, sort, item.id, "DEMO") == changed
    created, *later = since(connection, before)
    assert (created.by, created.domain, created.sort, created.code) == ("ada", "DEMO", sort.sort, item.id)
    assert (created.before, created.after) == (None, item.model_dump(exclude={sort.key}))
    assert [(change.by, change.fields()) for change in later] == [
        ("bob", [(text, values[text], "Something else")]),
        ("cleo", [(switch, not out_of_use, out_of_use)]),
        ("dora", [(switch, out_of_use, not out_of_use)]),
    ]


def test_a_domain_is_created_changed_and_retired_and_then_no_upload_may_choose_it(
    connection: Connection, submit: Callable[..., int]
) -> None:
    before = latest(connection)
    reference.create(connection, reference.make(Domain, A_DOMAIN), by="ada")
    reference.change(connection, reference.make(Domain, A_DOMAIN | {"name": "Renamed"}), by="ada")
    assert reference.set_in_use(connection, Domain, "NEW", False, by="ada")
    with pytest.raises(
        UnknownCode, match=r'Domain "NEW" is retired and cannot be chosen. Domains are: DEMO, OTHER'
    ):
        submit("Customer number,Last name\nK1,A\n", domain="NEW")
    assert reference.set_in_use(connection, Domain, "NEW", True, by="ada")
    assert submit("Customer number,Last name\nK1,A\n", domain="NEW") == 1
    assert seen(since(connection, before)) == [
        ("domain", "NEW", [("name", None, "A new one"), ("retired", None, False)]),
        ("domain", "NEW", [("name", "A new one", "Renamed")]),
        ("domain", "NEW", [("retired", False, True)]),
        ("domain", "NEW", [("retired", True, False)]),
    ]


@pytest.mark.parametrize(("sort", "values"), OF_EACH_SORT)
def test_codes_are_unique_within_a_domain_and_not_beyond_it(
    sort: type[Item], values: dict[str, Any], connection: Connection
) -> None:
    reference.create(connection, reference.make(Phase, {"code": "NEW", "description": "x"}), "OTHER")
    item = reference.make(sort, values)
    reference.create(connection, item, "DEMO")
    reference.create(connection, item, "OTHER")
    with pytest.raises(
        WrongValue, match=f'{sort.key} "{item.id}" exists already in domain DEMO; change it'
    ) as error:
        reference.create(connection, item, "DEMO")
    assert error.value.field == sort.key
    reference.set_in_use(connection, sort, item.id, False, "DEMO")
    with pytest.raises(WrongValue, match=r"restore it instead"):
        reference.create(connection, item, "DEMO")


def test_what_is_unchanged_is_neither_written_nor_recorded(connection: Connection) -> None:
    versions = "SELECT xmin::text FROM {} ORDER BY 1"
    tables = (
        "domain",
        "contract_phase",
        "contract_status",
        "origin",
        "subscription",
        "contract",
        "reference_value",
    )
    before = [run(connection, versions.format(table)) for table in tables], latest(connection)
    for sort in (Phase, Status, Origin, Subscription):
        for item in reference.listed(connection, sort, "DEMO"):
            assert reference.change(connection, item, "DEMO") is False
    assert reference.change(connection, reference.make(Domain, {"code": "DEMO", "name": "Demo"})) is False
    assert reference.add_values(connection, "countries", ["DE", " FR "]) == Loaded(unchanged=2)
    again = reference.load(connection, reference.read(DATA / "reference.yml"), by="ada")
    assert {
        name: (one.created, one.changed) for name, one in again.items() if one.created or one.changed
    } == {}
    assert again["statuses"].unchanged == 4
    assert again["list values"].unchanged == 6
    assert ([run(connection, versions.format(table)) for table in tables], latest(connection)) == before


# What a single item must obey ------------------------------------------------------------------------------------

LONG = "x" * 256


@pytest.mark.parametrize(
    ("sort", "values", "field", "sentence"),
    [
        (Phase, {"code": ""}, "code", "must be one line of 1 to 255 characters"),
        (Phase, {"code": "A B"}, "code", "must be 1 to 64 printable ASCII characters without blanks"),
        (Phase, {"code": "Ä"}, "code", "must be 1 to 64 printable ASCII characters without blanks"),
        (Phase, {"code": "\u0410"}, "code", "must be 1 to 64 printable ASCII"),
        (Phase, {"code": "A\u200b"}, "code", "must be 1 to 64 printable ASCII"),
        (Phase, {"code": "A" * 65}, "code", "must be 1 to 64 printable ASCII"),
        (Phase, {"code": 10}, "code", 'must be text; in YAML, put it in quotes ("10", "NO"), not 10.'),
        (Phase, {"description": " \t "}, "description", "must be one line of 1 to 255 characters, not ' \\t '."),
        (Phase, {"description": LONG}, "description", "must be one line of 1 to 255 characters"),
        (Phase, {"description": "two\nlines"}, "description", "must be one line"),
        (Phase, {"description": "nul\x00"}, "description", "must be one line"),
        (Phase, {"description": "esc\x1b[2J"}, "description", "must be one line"),
        (Phase, {"description": "half \ud800"}, "description", "must be one line"),
        (Phase, {"description": "line\u2028separator"}, "description", "must be one line"),
        (Phase, {"shoe_size": 1}, "shoe_size", "is not a key that is known here"),
        (Status, {"phase": None}, "phase", "must be text"),
        (Status, {"initial": "perhaps"}, "initial", "must be true or false, not 'perhaps'."),
        (Status, {"automatic_after_days": 0}, "automatic_after_days", "must be greater than or equal to 1, not 0."),
        (Status, {"automatic_after_days": 36501}, "automatic_after_days", "must be less than or equal to 36500"),
        (Status, {"automatic_after_days": "soon"}, "automatic_after_days", "must be a whole number, not 'soon'."),
        (Status, {"automatic_after_days": 1.5}, "automatic_after_days", "must be a whole number"),
        (Status, {"initial": True, "definitive": True}, "definitive", "must be false: this is the initial status, and no contract"),
        (Status, {"initial": True, "automatic_after_days": 3}, "automatic_after_days", "must be left out: this is the initial status"),
        (Status, {"initial": True, "retired": True}, "retired", "must be false: this is the initial status; make another"),
        (Origin, {"active": "maybe"}, "active", "must be true or false"),
        (Subscription, {"list_id": "A B"}, "list_id", "must be 1 to 64 printable ASCII"),
        (Subscription, {"type": "smoke"}, "type", "must be one of 'email', 'mail', 'fax', 'phone' or 'mobile', not 'smoke'."),
        (Subscription, {"type": None}, "type", "must be one of 'email'"),
        (Subscription, {"display_sequence": -1}, "display_sequence", "must be greater than or equal to 0"),
        (Subscription, {"display_sequence": 10**9}, "display_sequence", "must be less than or equal to 1000000"),
        (Domain, {"name": ""}, "name", "must be one line"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_its_field_and_what_would_be_right(
    sort: type[Item], values: dict[str, Any], field: str, sentence: str
) -> None:
    right = {Phase: A_PHASE, Status: A_STATUS, Origin: AN_ORIGIN, Subscription: A_LIST, Domain: A_DOMAIN}[
        sort
    ]
    with pytest.raises(WrongValue) as error:
        reference.make(sort, right | values)
    assert error.value.field == field
    assert f"{field} {sentence}" in str(error.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(WrongValue, match=r"^phase is missing.$"):
        reference.make(Status, {"code": "1", "description": "x"})


def test_text_is_kept_in_one_form_without_outer_blanks(connection: Connection) -> None:
    reference.create(
        connection, reference.make(Phase, {"code": " P ", "description": f"\u00a0{NFD}\t\n"}), "DEMO"
    )
    assert reference.get(connection, Phase, "P", "DEMO").description == NFC
    family = "👩‍👩‍👧 " + "x" * 249
    reference.change(connection, reference.make(Phase, {"code": "P", "description": family}), "DEMO")
    assert reference.get(connection, Phase, "P", "DEMO").description == family
    reference.add_values(connection, "places", [NFD, f" {NFC} "])
    assert reference.value_lists(connection, ["places"], 1) == {"places": [NFC]}


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO domain (code, name) VALUES ('DEMO', 'x')", "domain_code_unique"),
        ("INSERT INTO domain (code, name) VALUES ('A B', 'x')", "domain_code_form"),
        ("INSERT INTO domain (code, name) VALUES ('Ä', 'x')", "domain_code_form"),
        ("INSERT INTO domain (code, name) VALUES (repeat('x', 65), 'x')", "domain_code_form"),
        ("UPDATE domain SET name = ' x'", "domain_name_form"),
        (f"UPDATE domain SET name = '{NFD}'", "domain_name_form"),
        ("UPDATE domain SET name = E'x\\u0085'", "domain_name_form"),
        ("UPDATE domain SET name = E'a\\nb'", "domain_name_form"),
        ("UPDATE contract_phase SET description = repeat('x', 256)", "contract_phase_description_form"),
        ("INSERT INTO contract_phase (domain_id, code, description) VALUES (1, '', 'x')", "contract_phase_code_form"),
        ("INSERT INTO contract_phase (domain_id, code, description) VALUES (1, 'NEW', 'x')", "contract_phase_code_unique"),
        ("UPDATE contract_status SET description = ''", "contract_status_description_form"),
        ("INSERT INTO contract_status (domain_id, phase_id, code, description) VALUES (1, 1, 'a b', 'x')", "contract_status_code_form"),
        ("INSERT INTO contract_status (domain_id, phase_id, code, description) VALUES (1, 1, '10', 'x')", "contract_status_code_unique"),
        ("INSERT INTO contract_status (domain_id, phase_id, code, description) VALUES (2, 1, '10', 'x')", "contract_status_phase_of_domain"),
        ("UPDATE contract_status SET initial = true WHERE code = '20'", "contract_status_one_initial"),
        ("UPDATE contract_status SET definitive = true WHERE initial", "contract_status_initial_not_definitive"),
        ("UPDATE contract_status SET automatic_after_days = 1 WHERE initial", "contract_status_initial_not_automatic"),
        ("UPDATE contract_status SET retired = true WHERE initial", "contract_status_initial_not_retired"),
        ("UPDATE contract_status SET automatic_after_days = 0 WHERE code = '20'", "contract_status_days_positive"),
        ("UPDATE contract_status SET automatic_after_days = 36501 WHERE code = '20'", "contract_status_days_in_a_century"),
        ("UPDATE contract_phase SET retired = true WHERE code = 'END'", "contract_phase_in_use"),
        ("INSERT INTO origin (domain_id, code, name) VALUES (1, 'a b', 'x')", "origin_code_form"),
        ("UPDATE origin SET name = ''", "origin_name_form"),
        ("UPDATE subscription SET name = ''", "subscription_name_form"),
        ("UPDATE subscription SET type = 'smoke'", "subscription_type"),
        ("UPDATE subscription SET display_sequence = -1", "subscription_display_sequence_sane"),
        ("INSERT INTO subscription (domain_id, list_id, name, type) VALUES (1, 'a b', 'x', 'fax')", "subscription_list_id_form"),
        ("INSERT INTO subscription (domain_id, list_id, name, type) VALUES (1, 'NEWS', 'x', 'fax')", "subscription_list_id_unique"),
        ("INSERT INTO reference_value VALUES ('@x', 'x')", "reference_value_list_name_form"),
        ("INSERT INTO reference_value VALUES ('x', '')", "reference_value_form"),
        ("UPDATE domain SET code = 'X' WHERE code = 'OTHER'", "reference_code_immutable"),
        ("UPDATE contract_phase SET code = 'X' WHERE code = 'NEW'", "reference_code_immutable"),
        ("UPDATE contract_status SET code = 'X' WHERE code = '20'", "reference_code_immutable"),
        ("UPDATE origin SET domain_id = 2 WHERE code = 'WEB'", "reference_code_immutable"),
        ("UPDATE origin SET code = 'X' WHERE code = 'WEB'", "reference_code_immutable"),
        ("UPDATE subscription SET list_id = 'X' WHERE list_id = 'NEWS'", "reference_code_immutable"),
        ("DELETE FROM domain WHERE code = 'OTHER'", "reference_kept"),
        ("DELETE FROM contract_phase WHERE code = 'X'", "reference_kept"),
        ("DELETE FROM contract_status WHERE code = '20'", "reference_kept"),
        ("DELETE FROM origin", "reference_kept"),
        ("TRUNCATE origin CASCADE", "reference_kept"),
        ("DELETE FROM subscription", "reference_kept"),
        ("UPDATE reference_change SET by = 'nobody'", "reference_change_kept"),
        ("DELETE FROM reference_change", "reference_change_kept"),
        ("TRUNCATE reference_change", "reference_change_kept"),
        ("INSERT INTO reference_change (by, sort, code) VALUES ('x', 'domain', 'x')", "reference_change_is_one"),
        ("INSERT INTO reference_change (by, sort, code, after) VALUES ('x', 'moon', 'x', '{}')", "reference_change_sort"),
    ],
)  # fmt: skip
def test_the_database_refuses_the_same_by_hand(statement: str, constraint: str, shared: Connection) -> None:
    with pytest.raises(RecordRefused) as error:
        run(shared, statement)
    assert error.value.constraint == constraint


# What items must obey together -----------------------------------------------------------------------------------


def test_a_domain_has_one_initial_status_and_another_is_put_in_its_place(connection: Connection) -> None:
    another = reference.make(Status, A_STATUS | {"initial": True})
    with pytest.raises(
        WrongValue, match=r'initial must be false for status "40": the initial status is "10"'
    ) as error:
        reference.create(connection, another, "DEMO")
    assert error.value.field == "initial"
    before = latest(connection)
    assert reference.make_initial(connection, "20", "DEMO", by="ada") is True
    assert reference.make_initial(connection, "20", "DEMO", by="ada") is False
    assert [status.code for status in reference.listed(connection, Status, "DEMO") if status.initial] == [
        "20"
    ]
    assert seen(since(connection, before)) == [
        ("status", "10", [("initial", True, False)]),
        ("status", "20", [("initial", False, True)]),
    ]
    assert reference.make_initial(connection, "10", "DEMO") is True
    with pytest.raises(WrongValue, match=r"definitive must be false"):
        reference.make_initial(connection, "90", "DEMO")
    with pytest.raises(
        UnknownCode, match=r'There is no status "99" in domain DEMO. There are: 10, 20, 30, 90.'
    ):
        reference.make_initial(connection, "99", "DEMO")


def test_the_initial_status_is_retired_once_another_is_initial(connection: Connection) -> None:
    with pytest.raises(WrongValue, match=r"make another status initial first") as error:
        reference.set_in_use(connection, Status, "10", False, "DEMO")
    assert error.value.field == "retired"
    reference.make_initial(connection, "20", "DEMO")
    assert reference.set_in_use(connection, Status, "10", False, "DEMO") is True


def test_a_definitive_status_may_be_given_automatically(connection: Connection) -> None:
    expired = {
        "code": "95",
        "phase": "END",
        "description": "Expired",
        "definitive": True,
        "automatic_after_days": 365,
    }
    reference.create(connection, reference.make(Status, expired), "DEMO")
    assert reference.get(connection, Status, "95", "DEMO").automatic_after_days == 365


def test_a_phase_that_statuses_in_use_belong_to_cannot_be_retired(connection: Connection) -> None:
    with pytest.raises(WrongValue, match=r'statuses in use belong to phase "END".*first: 90') as error:
        reference.set_in_use(connection, Phase, "END", False, "DEMO")
    assert error.value.field == "retired"
    reference.set_in_use(connection, Status, "90", False, "DEMO")
    assert reference.set_in_use(connection, Phase, "END", False, "DEMO") is True
    for wrong in (
        lambda: reference.set_in_use(connection, Status, "90", True, "DEMO"),
        lambda: reference.create(connection, reference.make(Status, A_STATUS | {"phase": "END"}), "DEMO"),
    ):
        with pytest.raises(
            WrongValue, match=r'phase "END" of status .* is retired; restore it, or.*in use are: NEW'
        ) as error:
            wrong()
        assert error.value.field == "phase"
    with pytest.raises(RecordRefused) as refused:
        run(connection, "UPDATE contract_status SET retired = false WHERE code = '90'")
    assert refused.value.constraint == "contract_status_phase_in_use"
    assert reference.set_in_use(connection, Phase, "END", True, "DEMO")
    assert reference.set_in_use(connection, Status, "90", True, "DEMO")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda c: reference.create(c, reference.make(Status, A_STATUS | {"phase": "X"}), "DEMO"), 'phase "X" of status "40" does not exist. Phases in use are: END, NEW.'),
        (lambda c: reference.create(c, reference.make(Status, A_STATUS), "OTHER"), 'phase "NEW" of status "40" does not exist. Phases in use are: none yet.'),
        (lambda c: reference.create(c, reference.make(Phase, A_PHASE), "X"), 'There is no domain "X". Domains are: DEMO, OTHER.'),
        (lambda c: reference.create(c, reference.make(Phase, A_PHASE)), 'There is no domain "None". Domains are: DEMO, OTHER.'),
        (lambda c: reference.create(c, reference.make(Domain, {"code": "DEMO", "name": "x"})), 'code "DEMO" exists already; change it instead.'),
        (lambda c: reference.change(c, reference.make(Phase, A_PHASE), "DEMO"), 'There is no phase "MID" in domain DEMO. There are: END, NEW.'),
        (lambda c: reference.change(c, reference.make(Domain, A_DOMAIN)), 'There is no domain "NEW". Domains are: DEMO, OTHER.'),
        (lambda c: reference.set_in_use(c, Origin, "X", False, "OTHER"), 'There is no origin "X" in domain OTHER. There are: none.'),
        (lambda c: reference.changes(c, "X"), 'There is no domain "X". Domains are: DEMO, OTHER.'),
        (lambda c: reference.contents(c, "X"), 'There is no domain "X". Domains are: DEMO, OTHER.'),
        (lambda c: reference.listed(c, Phase, "X"), 'There is no domain "X". Domains are: DEMO, OTHER.'),
        (lambda c: reference.add_values(c, "@origins", ["X"]), "the name of a list must not begin with @, as the domains' own lists do, not '@origins'."),
        (lambda c: reference.add_values(c, "x y", ["X"]), "the name of a list must be 1 to 64 printable ASCII"),
        (lambda c: reference.add_values(c, "sizes", ["S", "a\nb"]), "sizes no. 2 must be one line of 1 to 255 characters, not 'a\\nb'."),
        (lambda c: reference.remove_values(c, "countries", ["DE", "XX"]), 'The list "countries" has no value "XX".'),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_and_nothing_is_written(
    call: Callable[[Connection], Any], sentence: str, shared: Connection
) -> None:
    before = reference.contents(shared), latest(shared)
    with pytest.raises(SetupError) as error:
        call(shared)
    assert str(error.value).startswith(sentence)
    assert (reference.contents(shared), latest(shared)) == before


def test_what_the_operations_do_not_foresee_is_still_a_sentence(connection: Connection) -> None:
    run(connection, "ALTER TABLE origin ADD CONSTRAINT origin_house_rule CHECK (name <> 'x')")
    with pytest.raises(WrongValue, match=r"origin_house_rule"):
        reference.create(connection, reference.make(Origin, {"code": "X", "name": "x"}), "DEMO")


# Retired codes and imports ---------------------------------------------------------------------------------------


@pytest.fixture
def apply(
    submit: Callable[..., int], work: Callable[[int], Any], became: Callable[[int], Any]
) -> Callable[[str], Any]:
    """Import one result code, and tell what became of it."""

    def apply(line: str) -> Any:
        seqno = submit(line + ";;\n", "result_codes")
        work(seqno)
        return became(seqno)

    return apply


def test_a_retired_status_is_unknown_for_new_records_and_stays_in_history(
    connection: Connection, apply: Callable[[str], Any]
) -> None:
    assert apply("F1;02-02-2026;20") == [(1, "updated")]
    history = run(connection, "SELECT * FROM status_chain ORDER BY history_id")
    reference.set_in_use(connection, Status, "20", False, "DEMO")
    assert apply("F2;02-02-2026;20") == [(1, "ignored", "unknown_status")]
    assert run(connection, "SELECT * FROM status_chain ORDER BY history_id") == history
    reference.set_in_use(connection, Status, "20", True, "DEMO")
    assert apply("F2;02-02-2026;20") == [(1, "updated")]


def test_a_flag_of_a_status_in_use_changes_what_comes_and_not_what_was(
    connection: Connection, apply: Callable[[str], Any]
) -> None:
    apply("F1;02-02-2026;20")
    history = run(connection, "SELECT * FROM status_chain ORDER BY history_id")
    status = reference.get(connection, Status, "20", "DEMO")
    before = latest(connection)
    reference.change(connection, status.model_copy(update={"definitive": True}), "DEMO", by="ada")
    assert seen(since(connection, before)) == [("status", "20", [("definitive", False, True)])]
    assert run(connection, "SELECT * FROM status_chain ORDER BY history_id") == history
    assert apply("F1;03-02-2026;30") == [(1, "rejected", "definitive_status")]


# The record of changes -------------------------------------------------------------------------------------------


def test_a_change_by_hand_is_recorded_under_the_role(connection: Connection) -> None:
    before = latest(connection)
    reference.change(connection, reference.make(Domain, {"code": "DEMO", "name": "By Ada"}), by="ada")
    run(connection, "UPDATE domain SET name = 'By hand' WHERE code = 'DEMO'")
    run(connection, "UPDATE contract_status SET phase_id = 2, churn = true WHERE code = '30'")
    run(connection, "DELETE FROM reference_value WHERE value = 'DE'")
    (role,) = run(connection, "SELECT session_user::text")[0]
    changes = since(connection, before)
    assert [change.by for change in changes] == ["ada", role, role, role]
    assert sorted(changes[2].fields()) == [("churn", False, True), ("phase", "NEW", "END")]
    assert (changes[3].sort, changes[3].code, changes[3].before, changes[3].after) == (
        "value", "countries", {"value": "DE"}, None,
    )  # fmt: skip


def test_a_refused_change_records_nothing(connection: Connection) -> None:
    before = latest(connection), run(connection, "SELECT count(*) FROM reference_change")
    wrong = demo(phases=[A_PHASE], statuses=[A_STATUS, A_STATUS | {"code": "50", "phase": "X"}])
    with pytest.raises(
        WrongValue, match=r'^Domain DEMO: phase "X" of status "50" does not exist. .*: END, MID, NEW.'
    ):
        reference.load(connection, wrong, by="ada", file="wrong.yml")
    assert (latest(connection), run(connection, "SELECT count(*) FROM reference_change")) == before
    assert len(reference.listed(connection, Phase, "DEMO")) == 2


def test_changes_are_listed_by_domain_sort_and_code_a_page_at_a_time(connection: Connection) -> None:
    everything = reference.changes(connection)
    assert [change.change_id for change in everything] == sorted(
        (c.change_id for c in everything), reverse=True
    )
    first = reference.changes(connection, limit=3)
    assert first + reference.changes(connection, before=first[-1].change_id) == everything
    assert {change.domain for change in reference.changes(connection, "OTHER")} == {"OTHER"}
    assert [c.code for c in reference.changes(connection, "DEMO", sort="origin")] == ["OLD", "FAIR", "WEB"]
    (one,) = reference.changes(connection, code="WEB")
    assert (one.before, one.after) == (None, {"name": "Web site", "active": True})


# Two at once -----------------------------------------------------------------------------------------------------


def test_whoever_comes_second_is_told_what_the_first_changed(
    connection: Connection, another: Connection
) -> None:
    mine = reference.get(connection, Status, "20", "DEMO")
    theirs = reference.get(another, Status, "20", "DEMO")
    reference.change(
        another, theirs.model_copy(update={"description": "Phoned"}), "DEMO", by="bob", seen=theirs.version
    )
    churn = mine.model_copy(update={"churn": True})
    with pytest.raises(ChangedMeanwhile) as error:
        reference.change(connection, churn, "DEMO", by="ada", seen=mine.version)
    assert str(error.value).startswith('The status "20" was changed by bob at ')
    assert str(error.value).endswith(
        "since you looked at it (description: Called → Phoned). Look at it again."
    )
    with pytest.raises(ChangedMeanwhile):
        reference.set_in_use(connection, Status, "20", False, "DEMO", seen=mine.version)
    now = reference.get(connection, Status, "20", "DEMO")
    assert now.model_dump() == theirs.model_dump() | {"description": "Phoned"}
    assert reference.change(connection, now.model_copy(update={"churn": True}), "DEMO", seen=now.version)


def waits(connection: Connection, watcher: Connection) -> None:
    """Until the connection's statement waits for a lock."""
    pid = connection.info.backend_pid
    for _ in range(500):
        if run(watcher, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"):
            return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def second(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a call beside this one; its result or error comes into the list."""
    results: list[Any] = []

    def beside() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - handed to the test
            results.append(error)

    thread = threading.Thread(target=beside)
    thread.start()
    return thread, results


@pytest.mark.parametrize(("sort", "values"), [*OF_EACH_SORT, (Domain, A_DOMAIN)])
def test_two_who_create_the_same_at_once_do_it_once(
    sort: type[Item], values: dict[str, Any], connection: Connection, another: Connection, database_url: str
) -> None:
    item = reference.make(sort, values)
    domain = None if sort is Domain else "DEMO"
    with contextlib.closing(db.connect(database_url)) as watcher:
        with connection.cursor() as cursor:  # the first, in the middle of its work
            cursor.execute(db.queries("reference")["begin"], {"by": "first", "file": ""})
            thread, results = second(lambda: reference.create(another, item, domain, by="second"))
            waits(another, watcher)
            lines = {"lines": psycopg2.extras.Json([item.row()]), "domain_id": 1}
            cursor.execute(db.queries("reference")[f"save_{sort.sort}"], lines)
            connection.commit()
        thread.join()
    assert isinstance(results[0], WrongValue)
    assert "exists already" in str(results[0])
    assert [change.by for change in reference.changes(connection, sort=sort.sort, code=item.id)] == ["first"]


def test_a_phase_is_not_retired_while_another_puts_a_status_into_it_by_hand(
    connection: Connection, another: Connection, database_url: str
) -> None:
    reference.create(connection, reference.make(Phase, A_PHASE), "DEMO")
    put = "UPDATE contract_status SET phase_id = (SELECT phase_id FROM contract_phase WHERE code = 'MID') WHERE code = '20'"
    with contextlib.closing(db.connect(database_url)) as watcher:
        for first, then, constraint in (
            (put, "UPDATE contract_phase SET retired = true WHERE code = 'MID'", "contract_phase_in_use"),
            (
                "UPDATE contract_phase SET retired = true WHERE code = 'MID'",
                put,
                "contract_status_phase_in_use",
            ),
        ):
            with connection.cursor() as cursor:
                cursor.execute(first)
                thread, results = second(lambda then=then: run(another, then))  # type: ignore[misc]
                waits(another, watcher)
                connection.commit()
            thread.join()
            assert isinstance(results[0], RecordRefused)
            assert results[0].constraint == constraint
            run(connection, "UPDATE contract_status SET phase_id = 1 WHERE code = '20'")


def test_a_reference_load_does_not_hold_up_imports(
    connection: Connection, another: Connection, submit: Callable[..., int], work: Callable[[int], Any]
) -> None:
    """Whoever loads reference data locks rows that imports refer to, in a way that lets them refer to them."""
    with another.cursor() as cursor:
        cursor.execute("UPDATE domain SET name = 'Being changed'")
        cursor.execute("UPDATE contract_status SET description = 'Being changed'")
        cursor.execute("UPDATE origin SET name = 'Being changed'")
        run(connection, "SET lock_timeout = '2s'")
        assert work(submit("F1;02-02-2026;20;;\n", "result_codes")).succeeded
        assert work(submit("Customer number,Last name\nK1,A\n", origins=["WEB"])).succeeded
    another.rollback()


def test_contracts_of_a_reference_load_and_of_an_import_at_the_same_moment_know_of_each_other(
    connection: Connection,
    another: Connection,
    database_url: str,
    submit: Callable[..., int],
    work: Callable[[int], Any],
    became: Callable[[int], Any],
) -> None:
    """An import that did not wait would miss the load's new contract, and the database would refuse its own."""
    given = demo(contracts=[{"form_id": "F9", "sign_up_date": "2026-02-01"}], origins=[AN_ORIGIN])
    seqno = submit("Form ID;Sign-up date\nF9;02-02-2026\n", "contracts")
    with (
        contextlib.closing(db.connect(database_url)) as watcher,
        contextlib.closing(db.connect(database_url)) as holder,
    ):
        with holder.cursor() as cursor:  # the load stops after its contracts, before its origins
            cursor.execute("LOCK TABLE origin IN EXCLUSIVE MODE")
        loading, loaded = second(lambda: reference.load(another, given))
        waits(another, watcher)
        importing, imported = second(lambda: work(seqno))
        waits(connection, watcher)
        holder.rollback()
        loading.join()
        importing.join()
    assert loaded[0]["contracts"] == Loaded(created=1)
    assert imported[0].succeeded
    assert became(seqno) == [(1, "updated")]


# A reference file ------------------------------------------------------------------------------------------------


def test_a_file_says_what_it_did_and_who_loaded_it_is_recorded(connection: Connection) -> None:
    before = latest(connection)
    given = demo(
        phases=[A_PHASE, {"code": "NEW", "description": "Renamed"}],
        statuses=[A_STATUS | {"phase": "MID"}],
        contracts=[
            {"form_id": "F1", "sign_up_date": "2025-12-31"},
            {"form_id": "F9", "sign_up_date": "2026-02-01"},
        ],
    )
    done = reference.load(connection, given, by="ada", file="spring.yml")
    assert {name: (one.created, one.changed, one.unchanged) for name, one in done.items()} == {
        "domains": (0, 0, 1), "phases": (1, 1, 0), "statuses": (1, 0, 0), "contracts": (1, 1, 0),
        "origins": (0, 0, 0), "subscriptions": (0, 0, 0), "list values": (0, 0, 0),
    }  # fmt: skip
    changes = since(connection, before)
    assert {(change.by, change.file, change.domain) for change in changes} == {("ada", "spring.yml", "DEMO")}
    assert [(change.sort, change.code, change.before is None) for change in changes] == [
        ("phase", "MID", True), ("phase", "NEW", False), ("status", "40", True),
        ("contract", "F1", False), ("contract", "F9", True),
    ]  # fmt: skip
    assert changes[3].fields() == [("sign_up_date", "2026-01-01", "2025-12-31")]
    assert run(connection, "SELECT s.code, date_result::text FROM contract JOIN contract_status AS s USING (status_id) WHERE form_id = 'F9'") == [["10", "2026-02-01"]]  # fmt: skip


def test_a_contract_gets_the_initial_status_that_the_same_file_brings(connection: Connection) -> None:
    given = {"code": "OTHER", "name": "Other", "phases": [{"code": "P", "description": "P"}],
             "statuses": [{"code": "1", "phase": "P", "description": "One", "initial": True}],
             "contracts": [{"form_id": "G1", "sign_up_date": "2026-01-01"}]}  # fmt: skip
    reference.load(connection, reference.make(Reference, {"domains": [given]}))
    assert run(connection, "SELECT cause, status_chain.date_result::text, is_current FROM status_chain JOIN contract USING (contract_id) WHERE form_id = 'G1'") == [["initial", "2026-01-01", True]]  # fmt: skip


def test_the_initial_status_moves_within_a_file_in_either_order(connection: Connection) -> None:
    first, then = ({"code": code, "phase": "NEW", "description": "x"} for code in ("10", "20"))
    for initial, other in ((then, first), (first, then)):
        for order in ([initial | {"initial": True}, other], [other, initial | {"initial": True}]):
            reference.load(connection, demo(statuses=order))
            found = reference.listed(connection, Status, "DEMO")
            assert [status.code for status in found if status.initial] == [initial["code"]]
    with pytest.raises(
        WrongValue, match=r'^Domain DEMO: initial must be false for status "20": the initial status is "10"'
    ):
        reference.load(connection, demo(statuses=[then | {"initial": True}]))


def test_a_phase_and_its_statuses_are_retired_and_restored_by_one_file(connection: Connection) -> None:
    ended = {"code": "90", "phase": "END", "description": "Churned", "definitive": True, "churn": True}
    phase = {"code": "END", "description": "Ended contracts"}
    late = {"code": "OLD", "description": "Long ago", "retired": True}
    for retired in (True, False):
        statuses = [
            ended | {"retired": retired},
            {"code": "1", "phase": "OLD", "description": "x", "retired": True},
        ]
        reference.load(connection, demo(phases=[phase | {"retired": retired}, late], statuses=statuses))
        assert reference.get(connection, Phase, "END", "DEMO").retired is retired
        assert reference.get(connection, Status, "90", "DEMO").retired is retired
    with pytest.raises(WrongValue, match=r'statuses in use belong to phase "END"'):
        reference.load(connection, demo(phases=[phase | {"retired": True}]))


def test_a_file_that_does_not_say_whether_something_is_in_use_leaves_that_as_it_is(
    connection: Connection,
) -> None:
    for sort, code in ((Status, "20"), (Origin, "WEB"), (Subscription, "NEWS")):
        reference.set_in_use(connection, sort, code, False, "DEMO")
    done = reference.load(connection, reference.read(DATA / "reference.yml"))
    assert sum(one.changed for one in done.values()) == 0
    assert not reference.get(connection, Origin, "WEB", "DEMO").active
    restored = {"code": "WEB", "name": "Web site", "active": True}
    assert reference.load(connection, demo(origins=[restored]))["origins"] == Loaded(changed=1)


def test_thousands_of_contracts_and_values_are_loaded_by_one_statement_each(connection: Connection) -> None:
    given = reference.make(Reference, {
        "domains": [{"code": "DEMO", "name": "Demo", "contracts": [{"form_id": f"N{n}", "sign_up_date": "2026-01-01"} for n in range(3000)]}],
        "lists": {"numbers": [f"{n}" for n in range(3000)]},
    })  # fmt: skip
    for expected in (Loaded(created=3000), Loaded(unchanged=3000)):
        done = reference.load(connection, given, by="ada", file="many.yml")
        assert (done["contracts"], done["list values"]) == (expected, expected)
    counted = "SELECT sort, count(*), count(DISTINCT code) AS codes FROM reference_change WHERE file = 'many.yml' GROUP BY sort ORDER BY sort"
    assert run(connection, counted) == [["contract", 3000, 3000], ["value", 3000, 1]]


def test_what_is_listed_can_be_loaded_again(connection: Connection, tmp_path: Path) -> None:
    everything = reference.contents(connection)
    (tmp_path / "all.yml").write_text(everything.model_dump_json())
    done = reference.load(connection, reference.read(tmp_path / "all.yml"))
    assert sum(one.created + one.changed for one in done.values()) == 0
    assert (done["domains"].unchanged, done["statuses"].unchanged, done["list values"].unchanged) == (2, 4, 6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a", ": the file must be keys with values"),
        ("domains: 3", ": domains must be a list, not 3."),
        ("domains: [{code: A}]", ': domains "A", name is missing.'),
        ("domains: [{code: A, name: x}, {name: x}]", ": domains no. 2, code is missing."),
        ("domains: [{code: A, name: x, phases: [{code: P, description: 7}]}]", ': domains "A", phases "P", description must be text; in YAML, put it in quotes'),
        ("domains: [{code: A, name: x, statuses: [{code: 10, phase: P, description: x}]}]", ': domains "A", statuses "10", code must be text; in YAML, put it in quotes ("10", "NO"), not 10.'),
        ("domains: [{code: A, name: x, origins: [{code: W, name: x}, {code: V, name: x}, {code: W, name: y}]}]", ': domains "A", origins must not name W 2 times.'),
        ("domains: [{code: A, name: x, contracts: [{form_id: F, sign_up_date: 2026-01-01}, {form_id: F, sign_up_date: 2026-01-02}]}]", ': domains "A", contracts must not name F 2 times.'),
        ("domains: [{code: A, name: x, contracts: [{form_id: F, sign_up_date: 2101-01-01}]}]", ': domains "A", contracts "F", sign_up_date must be less than or equal to 2100-12-31'),
        ("domains: [{code: A, name: x, contracts: [{form_id: F, sign_up_date: soon}]}]", ': domains "A", contracts "F", sign_up_date must be a date from 1900 to 2100'),
        ("domains: [{code: A, name: x}, {code: A, name: y}]", ": domains must not name A 2 times."),
        ("domains: [{code: A, name: x, statuses: [{code: a, phase: P, description: x, initial: true}, {code: b, phase: P, description: x, initial: true}]}]", ': domains "A", initial must be true for one status only, not for a and b.'),
        ("lists: {countries: [DE, NO]}", ': lists, countries no. 2 must be text; in YAML, put it in quotes ("10", "NO"), not False.'),
        ("lists: {'@mine': [x]}", ": lists, the name of a list must not begin with @"),
        ("lists: {a: [x], a: [y]}", ', line 1: "a" is given twice; keep one.'),
        ("lists: {a: 2026-99-99}", ": is not valid YAML (month must be in 1..12"),
    ],
)  # fmt: skip
def test_a_wrong_reference_file_is_refused_with_its_place(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.yml"
    path.write_text(text)
    with pytest.raises(SetupError) as error:
        reference.read(path)
    assert str(error.value).startswith(f"{path}{sentence}")


# Lists for templates ---------------------------------------------------------------------------------------------


def test_a_domain_has_lists_of_its_own_for_templates(connection: Connection) -> None:
    demo_id, other_id = (
        run(connection, f"SELECT domain_id FROM domain WHERE code = '{code}'")[0][0]
        for code in ("DEMO", "OTHER")
    )
    names = [*DOMAIN_LISTS, "countries"]
    assert reference.value_lists(connection, names, demo_id) == {
        "@origins": ["FAIR", "WEB"],
        "@subscriptions": ["NEWS", "OFFERS"],
        "@lists": ["GONE", "NEWS", "OFFERS"],
        "countries": ["AT", "BE", "CH", "DE", "FR", "NL"],
    }
    assert reference.value_lists(connection, ["@origins", "@lists"], other_id) == {
        "@origins": [],
        "@lists": [],
    }
    assert reference.value_lists(connection, [], demo_id) == {}
    with pytest.raises(SetupError, match=r'refers to the list "sizes", which is empty'):
        reference.value_lists(connection, ["sizes"], demo_id)


def test_values_are_added_to_a_list_and_taken_off(connection: Connection) -> None:
    before = latest(connection)
    assert reference.add_values(connection, "countries", ["DE", "DK", "DK"], by="ada") == Loaded(1, 0, 1)
    assert reference.remove_values(connection, "countries", ["DK", "AT"], by="bob") == 2
    assert reference.value_lists(connection, ["countries"], 1) == {
        "countries": ["BE", "CH", "DE", "FR", "NL"]
    }
    assert [(c.by, c.code, c.before, c.after) for c in since(connection, before)] == [
        ("ada", "countries", None, {"value": "DK"}),
        ("bob", "countries", {"value": "AT"}, None),
        ("bob", "countries", {"value": "DK"}, None),
    ]
