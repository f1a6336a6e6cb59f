"""docs/set_up.md: a newcomer who copies its commands, and nothing else, gets what the page says."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rowledger import batches, db, ledger, reference

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "set_up.md").read_text(encoding="utf-8")
NEXT = "=== the next block ==="


def blocks() -> list[tuple[str, list[str]]]:
    """Each block of commands, with the excerpts of what they print that follow it."""
    found: list[tuple[str, list[str]]] = []
    for language, content in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if language == "sh":
            found.append((content, []))
        else:
            assert language == "text"
            found[-1][1].append(content)
    return found


def shows(told: str, excerpt: str) -> bool:
    """Whether the lines of the excerpt stand in what was told, in their order; tables may go on to the right."""
    rest = iter(told.splitlines())
    return all(any(line.strip() in other for other in rest) for line in excerpt.splitlines())


@pytest.fixture(scope="module")
def copied(
    fresh_database: Callable[..., contextlib.AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[list[str], Path, str]]:
    """What each block printed, the folder it was copied into, and the address of the database, empty before."""
    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(ROOT / "include" / "templates", folder / "include" / "templates")
    script = f"\necho '{NEXT}'\n".join(commands for commands, _ in blocks())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROWLEDGER_")}
    with fresh_database("template0 ENCODING 'UTF8'") as url:
        environment |= {
            "ROWLEDGER_DATABASE_URL": url,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
            "COLUMNS": "120",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        yield done.stdout.split(NEXT), folder, url


def test_every_command_of_the_page_works_and_prints_what_the_page_shows(
    copied: tuple[list[str], Path, str],
) -> None:
    printed, _, _ = copied
    for (commands, excerpts), told in zip(blocks(), printed, strict=True):
        for excerpt in excerpts:
            assert shows(told, excerpt), f"{commands}\n{told}"
    assert sum(len(excerpts) for _, excerpts in blocks()) >= 5


def test_the_newcomer_has_a_domain_with_contracts_and_their_statuses(
    copied: tuple[list[str], Path, str],
) -> None:
    _, folder, url = copied
    with contextlib.closing(db.connect(url)) as connection:
        (acme,) = reference.contents(connection, "ACME").domains
        assert [phase.code for phase in acme.phases] == ["ACTIVE", "END", "INTAKE"]
        assert [status.code for status in acme.statuses] == ["10", "20", "45", "90", "95"]
        assert [(origin.code, origin.active) for origin in acme.origins] == [("FAIR", False), ("WEB", True)]
        assert reference.value_lists(connection, ["countries"], 1)["countries"] == [
            "AT", "BE", "CH", "DE", "FR", "LU", "NL",
        ]  # fmt: skip
        batches_ = [batches.get(connection, seqno) for seqno in (1, 2, 3)]
        assert all(batch.succeeded for batch in batches_)
        assert [batch.template for batch in batches_] == ["contracts", "acme_calls", "acme_calls"]
        with db.transaction(connection) as cursor:
            current = (
                "SELECT form_id, code FROM contract JOIN contract_status USING (status_id) ORDER BY form_id"
            )
            assert [tuple(r.values()) for r in db.rows(cursor, current)] == [
                ("A-1001", "45"), ("A-1002", "20"), ("A-1003", "90"),
            ]  # fmt: skip
        assert not [check for check in ledger.check(connection) if check["violations"]]
        assert batches.waiting(connection) == []
    assert (folder / "first" / "to_mend.csv").read_text().count('\n"A-100') == 2


def test_the_readme_leads_to_the_page() -> None:
    assert "docs/set_up.md" in (ROOT / "README.md").read_text(encoding="utf-8")
