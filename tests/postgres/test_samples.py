"""The demo's data: written by its generator, listed in its manifest, and each sample shows what it is there to show."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rowledger import ledger, reference
from rowledger.db import Connection
from rowledger.model import Batch

INCLUDE = Path(__file__).parents[2] / "include"
SAMPLES, REFERENCE = INCLUDE / "samples", INCLUDE / "reference" / "demo.yml"
Submit, Work = Callable[..., int], Callable[[int], Batch]

# Sample -> the rule that fails it as a whole, or the outcomes that must occur.
EXPECTED: dict[str, str | set[str]] = {
    "result_codes_2025_05.csv": {"updated"},
    "result_codes_2025_06.csv": {"updated", "unchanged", "historic", "ignored", "rejected"},
    "partner_results_2025_06.csv": {"updated", "ignored"},
    "contacts_spring_fair.csv": {"created"},
    "kontakte_webshop.csv": {"created", "updated", "unchanged", "rejected"},
    "contacts_agency.csv": "delimiter_mismatch",
    "call_centre_2025_07.csv": "too_many_rejects",
    "result_codes_2025_07.csv": "unterminated_quote",
    "travel_leads.csv": {"created"},
    "contracts_2025_05.csv": {"created"},
    "contracts_2025_06.csv": {"created", "updated", "unchanged", "rejected"},
}


def manifest() -> list[dict[str, Any]]:
    return list(yaml.safe_load((SAMPLES / "manifest.yml").read_text(encoding="utf-8")))


def test_the_generator_reproduces_the_samples_byte_for_byte(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", SAMPLES / "generate.py")
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generate.main(tmp_path / "demo.yml", tmp_path)
    assert (tmp_path / "demo.yml").read_bytes() == REFERENCE.read_bytes()
    written = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    assert written == {path.name: path.read_bytes() for path in SAMPLES.glob("*.csv")}


def test_the_manifest_names_every_sample_once() -> None:
    assert sorted(entry["file"] for entry in manifest()) == sorted(
        path.name for path in SAMPLES.glob("*.csv")
    )
    assert set(EXPECTED) == {entry["file"] for entry in manifest()}


def test_every_sample_shows_what_it_is_there_for(connection: Connection, submit: Submit, work: Work) -> None:
    reference.load(connection, reference.read(REFERENCE))
    for entry in manifest():
        batch = work(submit(SAMPLES / entry["file"], entry["template"], domain=entry["domain"],
                            origins=entry["origins"], subscriptions=entry["subscriptions"]))  # fmt: skip
        expected = EXPECTED[entry["file"]]
        if isinstance(expected, str):
            assert (batch.failed, batch.error_rule) == (True, expected)
        else:
            assert batch.succeeded, batch.error_message
            assert {outcome for outcome, count in batch.counts.items() if count} == expected
    assert [check for check in ledger.check(connection) if check["violations"]] == []


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("result_codes_2025_06.csv", {"format", "required", "future_date", "unknown_contract", "unknown_status",
                                      "too_few_fields", "too_many_fields", "bad_quoting"}),
        ("kontakte_webshop.csv", {"format", "required", "missing_key", "not_in_set", "too_few_fields",
                                  "too_many_fields", "control_char", "superseded_in_file"}),
        ("contracts_2025_06.csv", {"format", "required", "future_date", "too_few_fields", "too_many_fields",
                                   "superseded_in_file"}),
    ],
)  # fmt: skip
def test_the_dirty_samples_have_a_fault_of_every_sort(
    file: str, rules: set[str], connection: Connection, submit: Submit, work: Work
) -> None:
    reference.load(connection, reference.read(REFERENCE))
    (entry,) = (entry for entry in manifest() if entry["file"] == file)
    batch = work(submit(SAMPLES / file, entry["template"]))
    found = ledger.common_reasons(connection, batch.seqno, ["rejected", "ignored"], 100)
    assert {reason["rule"] for reason in found} == rules
