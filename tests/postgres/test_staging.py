"""Accepted values arrive in the staging table as what they mean, however they look."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

from rowledger import batches, db, pipeline, staging
from rowledger.db import Connection
from rowledger.errors import UnknownCode
from rowledger.settings import Settings

TEMPLATE = """\
kind: contact
title: Contacts with everything
origins: [FAIR, WEB]
subscriptions: []
columns:
  - {field: external_id, header: Number, type: code}
  - {field: city, header: City, clear: "-"}
  - {field: birth_date, header: Born, type: date, format: DD-MM-YYYY, clear: NULL}
  - {field: attributes.points, header: Points, type: number, decimal: ",", severity: warn}
  - {field: attributes.vip, header: VIP, type: boolean, words: {true: [yes], false: [no]}}
  - {field: attributes.tags, header: Tags, type: list, separator: "|", multiline: true, clear: "-"}
  - {field: attributes.since, header: Since, type: date, format: YYYYMMDD}
  - {field: attributes.note, header: Note}
"""
HEADER = "Number,City,Born,Points,VIP,Tags,Since,Note\n"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "everything.yml").write_text(TEMPLATE)
    return Settings(home=tmp_path / "home", templates=tmp_path / "templates", database_url=database_url)


@pytest.fixture
def staged(
    submit: Callable[..., int], connection: Connection, settings: Settings
) -> Callable[[str], dict[int, dict[str, Any]]]:
    """What the staging table holds of a file, by record number, without what is null."""

    def staged(lines: str) -> dict[int, dict[str, Any]]:
        seqno = submit(HEADER + lines, template="everything")
        batch = pipeline.validate(pipeline.Worker(connection, settings, "tester"), seqno)
        with db.transaction(connection) as cursor:
            query = sql.SQL("SELECT * FROM {}").format(staging.table(batch))
            found = db.rows(cursor, query)
        return {
            row.pop("record_no"): {k: v for k, v in row.items() if v is not None and k != "match_key"}
            for row in found
        }

    return staged


def test_numbers_words_lists_and_dates_are_staged_as_what_they_are(staged: Any) -> None:
    found = staged(
        'K1,Bonn,,"-001,50",Yes,a| b |a|,20250131,"1,5"\n'
        "K2,,,99999999999999999999,NO,,,NULL\n"
        "K3,,,12.5,,,,\n"  # a wrong number is left out and warned about
    )
    (warning,) = found[3].pop("warnings")
    assert warning["message"].startswith(
        'Points "12.5" is not a number such as 1234,5, without thousands marks'
    )
    since = found[1].pop("attributes.since")
    assert since.isoformat() == "2025-01-31"
    assert found == {
        1: {"external_id": "K1", "city": "Bonn", "attributes.points": Decimal("-1.5"), "attributes.vip": True,
            "attributes.tags": ["a", "b"], "attributes.note": "1,5"},
        2: {"external_id": "K2", "attributes.points": Decimal(10**20 - 1), "attributes.vip": False,
            "attributes.note": "NULL"},
        3: {"external_id": "K3"},
    }  # fmt: skip


def test_items_of_lists_may_hold_whatever_cells_may(staged: Any) -> None:
    items = [
        'say "x"',
        "back\\slash",
        "{a,b}",
        "NULL",
        "null",
        "a;b",
        "two\nlines",
        "é👩‍👧",
        "'",
        "\\.",
        "=1+1",
        "%s",
    ]
    cell = "|".join(items).replace('"', '""')
    assert staged(f'K1,,,,,"{cell}",,\n')[1]["attributes.tags"] == items


def test_a_clear_word_is_absent_and_names_its_field(staged: Any) -> None:
    found = staged("K1,-,NULL,,, - ,,-\nK2,,NULL,,,-|a,,\nK3,--,,,,,,\n")
    assert found == {
        1: {
            "external_id": "K1",
            "cleared": ["city", "birth_date", "attributes.tags"],
            "attributes.note": "-",
        },
        2: {"external_id": "K2", "cleared": ["birth_date"], "attributes.tags": ["-", "a"]},
        3: {"external_id": "K3", "city": "--"},
    }


def test_only_what_the_template_offers_can_be_chosen_at_upload(
    submit: Callable[..., int], connection: Connection
) -> None:
    content = HEADER + "K1,,,,,,,\n"
    with pytest.raises(UnknownCode, match=r'origin "REFERRAL" cannot be chosen with template "everything"; those that can are: FAIR, WEB\.$'):  # fmt: skip
        submit(content, template="everything", origins=["WEB", "REFERRAL"])
    with pytest.raises(
        UnknownCode, match=r'subscription list "NEWS" cannot be chosen .* those that can are: none\.$'
    ):
        submit(content, template="everything", subscriptions=["NEWS"])
    assert batches.listed(connection) == []
    submit(content, template="everything", origins=["WEB"])
