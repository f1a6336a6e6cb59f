"""Errors of the driver become ours, by class and name and never by text."""

from __future__ import annotations

import traceback
from typing import Any

import psycopg2
import psycopg2.errors
import pytest

from rowledger import db
from rowledger.errors import RecordRefused, RowledgerError, SetupError, TryAgain


class Diagnostics:
    constraint_name = "contact_email_unique"
    column_name = "email"
    message_primary = "a sentence of the server"


def refused(state: str | None, kind: type[psycopg2.Error] = psycopg2.DatabaseError) -> psycopg2.Error:
    """An error as the driver raises it: its state and diagnostics are read-only in the real class."""

    class Refused(kind):  # type: ignore[valid-type,misc]
        pgcode: Any = state
        diag: Any = Diagnostics()

    return Refused("Key (email)=(anna@example.com) already exists.")


def translated(error: psycopg2.Error) -> RowledgerError:
    with pytest.raises(RowledgerError) as caught, db._translated():
        raise error
    assert "anna@example.com" not in str(caught.value)
    assert "anna@example.com" not in "".join(traceback.format_exception(caught.value))
    return caught.value


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("08006", "connection failure"),
        ("40001", "serialization failure"),
        ("40P01", "deadlock"),
        ("53100", "disk full"),
        ("53300", "too many connections"),
        ("55P03", "lock not available"),
        ("57014", "statement cancelled"),
        ("57P01", "server is stopped"),
        ("25006", "read only"),
        ("25P03", "idle in transaction"),
        ("58030", "input or output"),
    ],
)
def test_what_time_mends_is_tried_again(state: str, name: str) -> None:
    error = translated(refused(state))
    assert isinstance(error, TryAgain), name
    assert state in str(error)


@pytest.mark.parametrize("state", ["22P05", "22008", "23502", "23505", "23514"])
def test_a_refused_value_belongs_to_a_record_and_keeps_only_names(state: str) -> None:
    error = translated(refused(state, psycopg2.IntegrityError))
    assert isinstance(error, RecordRefused)
    assert (error.sqlstate, error.constraint, error.column) == (state, "contact_email_unique", "email")


@pytest.mark.parametrize("state", ["42601", "42501", "0A000", "25001", "28P01", "3D000", "54000", "XX000"])
def test_anything_else_is_the_set_up(state: str) -> None:
    error = translated(refused(state))
    assert type(error) is SetupError
    assert state in str(error)


def test_missing_tables_are_answered_with_the_command_that_makes_them() -> None:
    assert "rowledger migrate" in str(translated(refused("42P01")))


@pytest.mark.parametrize(
    "kind",
    [
        psycopg2.OperationalError,
        psycopg2.InterfaceError,
        psycopg2.DatabaseError,
    ],  # the last in the middle of an answer
)
def test_no_answer_from_a_server_is_tried_again(kind: type[psycopg2.Error]) -> None:
    assert isinstance(translated(refused(None, kind)), TryAgain)


@pytest.mark.parametrize("kind", [psycopg2.ProgrammingError, psycopg2.DataError])
def test_a_call_that_the_driver_refuses_is_the_set_up(kind: type[psycopg2.Error]) -> None:
    assert type(translated(refused(None, kind))) is SetupError


def test_a_server_that_is_not_there_is_tried_again() -> None:
    with pytest.raises(TryAgain, match="cannot be reached"):
        db.connect("postgresql://localhost:1/nothing?connect_timeout=2")


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), db._translated():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "code"), [(TryAgain(), 75), (SetupError(), 2), (RecordRefused("23505", None, None), 1)]
)
def test_an_error_without_words_says_what_its_class_is(error: RowledgerError, code: int) -> None:
    assert str(error)
    assert error.exit_code == code


def test_named_queries_are_read_by_name() -> None:
    queries = db.queries("ledger")
    assert queries["without_raw"].startswith("SELECT record_no FROM import_record")
    assert not any("-- name:" in query for query in queries.values())
