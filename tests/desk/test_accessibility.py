"""axe-core in a real browser on every page, light and dark: empty, full, failed, at work, with a dialog open."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright

from rowledger import control, pipeline
from rowledger.db import Connection, transaction
from rowledger.model import Batch
from rowledger.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))
from matrix import routes
from serving import served

SEVERE = ("serious", "critical")
CONTACTS = (
    "Customer number,Email,First name,Last name,Country,Campaigns,Subscribe to,Unsubscribe from\n"
    "K1,ada@example.com,Ada,Byron,DE,FAIR,NEWS,OFFERS\nK2,ben@example.com,Ben,,XX,,,\nK3,not an address,Cy,Lee,DE,,,\n"
    "K4,dora@example.com,Dora,Ek,DE,,,\nK5,emil@example.com,Emil,Fo,DE,,,\n"
)
PARTS = ("head", "records", "errors", "expectations", "activity")  # of the page of an import
EMPTY = ["/", "/?group=status", "/?q=nothing+fits", "/contacts", "/contracts", "/templates", "/operations", "/parked", "/no/such/page",
         "/of-run?dag_id=contact_import&run_id=x"]  # fmt: skip
FULL = ["/", "/?group=day", "/?status=failed", "/new", "/batches/{done}", "/batches/{done}/mend", "/batches/{failed}", "/batches/{paused}", "/batches/{waiting}",
        "/contacts?domain=DEMO&key=nobody", "/contacts/1", "/contracts?domain=DEMO&form_id=nothing", "/contracts/1",
        "/contracts/1?on=2026-02-10", "/contracts/1?on=never", "/templates", "/templates/contacts", "/templates/result_codes",
        "/operations", "/operations?days=7&outcome=parked&feed=agency",
        "/parked", "/parked?seqno={done}",
        "/set-up", "/set-up/changes", "/set-up/list?name=countries",
        *(f"/set-up?domain=DEMO&sort={sort}" for sort in ("phase", "status", "origin", "subscription")),
        "/set-up/status/item?domain=DEMO&code=20", "/set-up/status/new?domain=DEMO", "/set-up/subscription/new?domain=DEMO",
        "/of-run?dag_id=contact_import&run_id=run", "/of-run?dag_id=contact_import&run_id=run&map_index=0"]  # fmt: skip
# What a feed and its messages may have to tell, and what waits for a code that never comes.
OPERATIONS = """
    INSERT INTO feed (name, kind, domain, looked_at, last_file_at, trouble)
    VALUES ('agency', 'contact', 'DEMO', now(), now(), '"may.csv" is a directory and is left alone.');
    INSERT INTO feed_file (feed, name, identity, bytes, sha256, seqno) VALUES ('agency', 'may.csv', 'x', 1, 'x', %(done)s);
    INSERT INTO feed_alarm (feed, due_at) VALUES ('agency', now());
    INSERT INTO notice_scope (scope) VALUES ('feed agency');
    INSERT INTO notice_message (scope, channel, recipient, body, tries) VALUES ('feed agency', 'mail', '{}', '{}', 2);
    INSERT INTO parked_record (seqno, record_no, kind, domain_id, match_key, fields, waits_for, key)
    SELECT seqno, 1, 'contract_status', domain_id, 'F1', '{}', 'status', '77' FROM import_batch WHERE seqno = %(done)s;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    with served(app) as address:
        yield address


@pytest.fixture
def furnish(
    submit: Callable[..., int], work: Callable[[int], Batch], connection: Connection,
    settings: Settings, runs: Any,
) -> Callable[[], dict[str, int]]:  # fmt: skip
    """Fills the database with something of everything; returns the numbers of batches by how they are."""

    def furnish() -> dict[str, int]:
        found = {
            "done": submit(CONTACTS, origins=["FAIR"]),
            "failed": submit("Email;Last name\na@example.com;A\n"),
        }
        work(found["done"]), work(found["failed"])
        work(submit("Form ID;Sign-up date;Customer number\nF1;02-01-2026;K1\n", "contracts"))
        work(submit("F1;05-03-2026;30;;\nF9;05-03-2026;30;;\nF1;05-03-2026;99;;\n", "result_codes"))
        found |= {"paused": submit(CONTACTS), "waiting": submit(CONTACTS)}
        pipeline.validate(pipeline.Worker(connection, settings, "tester"), found["paused"])
        control.pause(connection, found["paused"], by="anna", why="lunch")
        runs.taken["run"] = list(found.values())
        with transaction(connection) as cursor:
            cursor.execute(OPERATIONS, found)
        return found

    return furnish


class Looking:
    """A page, and the faults that were found on what it showed."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.script = Axe().axe_script
        self.faults: list[str] = []

    def look(self, where: str) -> None:
        """All rules in light; what dark changes is colours."""
        self._look(f"light {where}", {})
        self.page.emulate_media(color_scheme="dark")
        self._look(f"dark {where}", {"runOnly": {"type": "rule", "values": ["color-contrast"]}})
        self.page.emulate_media(color_scheme="light")

    def _look(self, where: str, options: dict[str, Any]) -> None:
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(self.script)
        options = {"resultTypes": ["violations"], **options}
        found = self.page.evaluate("options => axe.run(options)", options)
        assert found["passes"] or found["violations"], where
        for fault in found["violations"]:
            if fault["impact"] in SEVERE:
                nodes = "; ".join(
                    f"{node['html'][:120]} {node['failureSummary']}" for node in fault["nodes"][:3]
                )
                self.faults.append(f"{where}: {fault['id']} ({fault['impact']}): {nodes}")

    def visit(self, address: str, path: str, whole: bool = False) -> None:
        """A page; the ``whole`` of it has what its tabs show."""
        self.page.goto(address + path)
        tabs = self.page.get_by_role("tab")
        if tabs.count():
            expect(self.page.locator("#tab.htmx-request, #tab:empty")).to_have_count(0)
        self.look(path)
        for place in range(tabs.count() if whole else 0):
            with self.page.expect_response(lambda answer: "/batches/" in answer.url):
                tabs.nth(place).click()
            expect(self.page.locator("#tab.htmx-request, #tab:empty")).to_have_count(0)
            self.look(f"{path}, {tabs.nth(place).text_content()}")
        asking = self.page.locator("[data-ask]")
        for place in range(asking.count()):
            asking.nth(place).click()
            expect(self.page.get_by_role("dialog")).to_be_visible()
            self.look(f"{path}, dialog {place}")
            self.page.keyboard.press("Escape")


def test_no_page_has_a_serious_fault_of_accessibility(
    browser: Browser, address: str, furnish: Callable[[], dict[str, int]]
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.add_cookies([{"name": "_token", "value": "op", "url": address}])
    looking = Looking(context.new_page())
    for path in EMPTY:
        looking.visit(address, path)
    found = furnish()
    for path in FULL:
        looking.visit(address, path.format_map(found), whole="{done}" in path)
    looking.page.set_viewport_size({"width": 390, "height": 900})
    for path in ("/", "/batches/{done}", "/batches/{done}/mend", "/contacts/1", "/operations", "/parked"):
        looking.visit(address, path.format_map(found))
    context.clear_cookies()
    looking.visit(address, "/")
    expect(looking.page.get_by_role("heading")).to_have_text("Your session has ended")
    context.close()
    assert looking.faults == []


def test_every_page_is_among_those_that_are_looked_at(app: FastAPI) -> None:
    pages = {
        path for method, path in routes(app) if method == "GET" and not path.startswith(("/api/", "/static/"))
    }
    pages -= {"/changes", "/operations/now", *(f"/batches/{{seqno}}/{part}" for part in PARTS)}
    visited = [path.partition("?")[0] for path in FULL]
    patterns = {path: re.sub(r"\\{.*?\\}", "[^/]+", re.escape(path)) for path in pages}
    assert {
        p for p, pattern in patterns.items() if not any(re.fullmatch(pattern, v) for v in visited)
    } == set()
