"""What people do at the desk from beginning to end, in a browser, and what each role sees of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from browsing import desk, shown
from engine import Engine, Run
from playwright.sync_api import Error, FrameLocator, Page, expect

from rowledger import db, ledger
from rowledger.db import rows, transaction

SignIn = Callable[..., Page]
CONTRACTS = 12_000
MAKE_CONTRACTS = """
WITH made AS (
    INSERT INTO contract (domain_id, form_id, sign_up_date, status_id, date_result)
    SELECT domain_id, 'WALK' || lpad(n::text, 5, '0'), '2026-01-01', status_id, '2026-01-01'
    FROM contract_status JOIN domain USING (domain_id), generate_series(0, %(contracts)s - 1) AS n
    WHERE domain.code = 'DEMO' AND initial
    RETURNING contract_id, domain_id, status_id, date_result
)
INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
SELECT contract_id, domain_id, status_id, date_result, 'initial' FROM made
"""
DIRTY = (
    "Customer number,Email,Last name,City,Country\n"
    "DIRTY1,dirty1@example.com,Smith,London,DE\n"
    "DIRTY2,dirty2@example.com,,Bonn,DE\n"
    "DIRTY1,dirty1@example.com,Smith,Vienna,XX\n"
    "DIRTY3,dirty3@example.com,Jones,Ulm,DE\n"
)
NAV = ["Imports", "New import", "Contracts", "Contacts", "Templates", "Operations", "Set-up"]


def upload(frame: FrameLocator, kind: str, template: str, name: str, content: str) -> int:
    """Uploads a file by the page New import; returns the number of the batch on whose page that ends."""
    frame.get_by_role("link", name="New import").first.click()
    shown(frame, "New import")
    frame.get_by_label("Kind").select_option(kind)
    expect(frame.get_by_label("Template").locator(f"option[value={template}]")).to_have_count(1)
    frame.get_by_label("Template").select_option(template)
    frame.locator("#file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content.encode()})
    frame.get_by_role("button", name="Upload").click()
    shown(frame, name)
    return int(str(frame.get_by_role("heading", level=1).text_content()).split()[0].removeprefix("#"))


def say(frame: FrameLocator, button: str, why: str = "") -> None:
    """Presses a button of a batch and says yes to what it asks."""
    frame.get_by_role("button", name=button, exact=True).click()
    dialog = frame.get_by_role("dialog")
    if why:
        dialog.get_by_label("Why?").fill(why)
    dialog.get_by_role("button", name=button, exact=True).click()


def run_now(frame: FrameLocator, engine: Engine, seqno: int) -> None:
    """Lets a batch be worked off; a scheduled run that is faster is as good."""
    before = engine.batch(seqno).run_id
    try:
        say(frame, "Run now")
    except Error:
        assert engine.batch(seqno).run_id != before
    engine.until(lambda: engine.batch(seqno).run_id != before)


@pytest.fixture
def held(engine: Engine) -> Iterator[Callable[[str], Callable[[], None]]]:
    """Holds a contract, so that whoever writes to it waits; gives what lets it go."""
    assert engine.settings.database_url
    with contextlib.closing(db.connect(engine.settings.database_url)) as holder:

        def held(form_id: str) -> Callable[[], None]:
            with holder.cursor() as cursor:
                cursor.execute("SET idle_in_transaction_session_timeout = 0")
                cursor.execute("SELECT FROM contract WHERE form_id = %s FOR UPDATE", [form_id])
            return holder.rollback

        yield held


def waiting(engine: Engine, sort: str) -> bool:
    """Whether somebody waits for a lock of this sort in Rowledger's database."""
    asked = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND wait_event = %(sort)s"
    )
    with transaction(engine.connection) as cursor:
        return bool(rows(cursor, asked, {"sort": sort}))


def test_result_codes_are_uploaded_paused_mid_way_and_resumed_until_the_contract_has_its_history(
    engine: Engine, sign_in: SignIn, held: Any
) -> None:
    with transaction(engine.connection) as cursor:
        cursor.execute(MAKE_CONTRACTS, {"contracts": CONTRACTS})
    let_go = held("WALK08000")  # in the middle of the second half
    frame = desk(sign_in("user"), engine)
    content = "".join(f"WALK{n:05};05-02-2026;20;;\n" for n in range(CONTRACTS))
    seqno = upload(frame, "contract_status", "result_codes", "codes.csv", content)
    run_now(frame, engine, seqno)
    expect(frame.locator("#head")).to_contain_text(re.compile(r"Loading: [\d,]+ of 12,000 records"))
    engine.until(lambda: engine.batch(seqno).loaded_records and waiting(engine, "transactionid"))
    say(frame, "Pause", why="is this the right month?")
    engine.until(lambda: waiting(engine, "advisory"))
    let_go()
    expect(frame.locator("#notice")).to_contain_text("is paused")
    assert 0 < engine.batch(seqno).loaded_records < CONTRACTS
    expect(frame.get_by_label("Processed: no")).to_be_visible()
    say(frame, "Resume")
    expect(frame.locator("#notice")).not_to_contain_text("is paused")
    run_now(frame, engine, seqno)
    for box in ("Import completed: yes", "Processed: yes"):
        expect(frame.locator(".facts").get_by_label(box)).to_be_visible(timeout=120_000)
    expect(frame.locator("#head .legend")).to_have_text("12,000 updated")
    assert [check for check in ledger.check(engine.connection) if check["violations"]] == []
    frame.get_by_role("tab", name="Activity").click()
    expect(frame.get_by_role("tabpanel")).to_contain_text("is this the right month?")

    frame.get_by_role("navigation").get_by_role("link", name="Contracts").click()
    frame.get_by_label("Form ID").fill("WALK11999")
    frame.get_by_role("button", name="Look up").click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text("Contract WALK11999")
    expect(frame.locator(".history .current")).to_contain_text("20 Called")
    frame.locator(".history").get_by_role("link", name=f"#{seqno}").click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text(f"#{seqno} codes.csv")


def test_a_dirty_file_is_mended_in_the_page_and_the_contact_knows_both_imports(
    engine: Engine, sign_in: SignIn
) -> None:
    frame = desk(sign_in("user"), engine)
    seqno = upload(frame, "contact", "contacts", "dirty.csv", DIRTY)
    run_now(frame, engine, seqno)
    expect(frame.locator("#head .legend")).to_contain_text("2 rejected")  # without a reload
    frame.get_by_role("tab", name="Errors").click()
    for sentence in ("Last name is empty", 'Country "XX" is not allowed'):
        expect(frame.get_by_role("tabpanel")).to_contain_text(sentence)

    frame.get_by_role("link", name="Mend here").click()
    shown(frame, "Mend the rejected records")
    frame.get_by_label("Last name, record 2").fill("Field")
    frame.get_by_label("Last name, record 2").press("Enter")  # goes nowhere
    frame.get_by_role("link", name="Imports").first.click()
    expect(frame.get_by_role("dialog")).to_contain_text("was not sent and would be lost")
    frame.get_by_role("button", name="Stay here").click()
    expect(frame.locator("fieldset.record")).to_have_count(2)
    frame.get_by_label("Country, record 3").fill("YY")
    frame.get_by_role("button", name="Check").click()
    expect(frame.locator("[data-record='2'] .verdict")).to_contain_text("created")
    expect(frame.locator("[data-record='3'] .fault:visible")).to_contain_text('Country "YY" is not allowed')
    frame.get_by_label("Country, record 3").fill("AT")
    frame.get_by_role("button", name="Check").click()
    expect(frame.locator("[data-record='3'] .verdict")).to_contain_text("updated")
    frame.get_by_role("button", name="Send as a new import").click()
    frame.get_by_role("link", name="Open import").click()
    expect(frame.locator(".facts")).to_contain_text("2 mended records of")
    expect(frame.locator(".facts").get_by_role("link", name=f"#{seqno}")).to_be_visible()
    shown(frame, "#")
    child = int(str(frame.get_by_role("heading", level=1).text_content()).split()[0].removeprefix("#"))
    run_now(frame, engine, child)
    expect(frame.locator("#head .legend")).to_contain_text("1 updated")
    expect(frame.locator(".facts").get_by_label("Processed: yes")).to_be_visible()

    frame.get_by_role("navigation").get_by_role("link", name="Contacts").click()
    frame.get_by_label("External ID or email").fill("DIRTY1")
    frame.get_by_role("button", name="Look up").click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text("Smith")
    imports = frame.locator("table.ledger tbody")
    for number, outcome in ((seqno, "created"), (child, "updated")):
        expect(
            imports.locator("tr", has=frame.get_by_role("link", name=f"#{number}", exact=True))
        ).to_contain_text(outcome)


def test_each_role_sees_what_it_may_and_is_told_what_it_may_not(engine: Engine, sign_in: SignIn) -> None:
    engine.api.call("PATCH", "/dags/contact_import", {"is_paused": True})
    try:
        seqno = engine.submit("Email,Last name\nsecret@example.com,A\n")
        for user in ("viewer", "user", "op", "admin"):
            page = sign_in(user)
            frame = desk(page, engine, f"batches/{seqno}")
            writes, sets_up = user != "viewer", user in ("op", "admin")
            expect(frame.locator(".who")).to_have_text(f"Signed in as {user}")
            nav = [name for name in NAV if writes or name not in ("New import", "Contacts")]
            expect(frame.get_by_role("navigation", name="Imports").get_by_role("link")).to_have_text(nav)
            for button in ("Pause", "Cancel"):
                expect(frame.get_by_role("button", name=button, exact=True)).to_have_count(int(writes))
            expect(frame.get_by_role("button", name="Run now", exact=True)).to_have_count(
                0
            )  # would be refused
            expect(frame.get_by_text("Download", exact=True)).to_have_count(int(writes))
            frame.get_by_role("link", name="Operations").click()
            expect(frame.get_by_role("heading", level=1)).to_have_text("Operations")
            expect(frame.locator("#now")).to_contain_text("The DAG is paused")
            frame.get_by_role("link", name="Set-up").click()
            expect(frame.get_by_role("heading", level=1)).to_have_text("Set-up")
            expect(frame.get_by_role("link", name="+ New domain")).to_have_count(int(sets_up))
            if not writes:
                refused = desk(page, engine, "new")
                expect(refused.locator("body")).to_contain_text("may see imports but not upload")
    finally:
        engine.api.call("PATCH", "/dags/contact_import", {"is_paused": False})


def test_a_session_that_ends_says_so_in_the_frame(engine: Engine, sign_in: SignIn) -> None:
    page = sign_in("user")
    seqno = engine.submit("Email,Last name\nended@example.com,A\n")
    frame = desk(page, engine)
    expect(frame.locator(f"#batch-{seqno}")).to_be_visible()
    page.context.clear_cookies(name="_token")
    expect(frame.locator("#notice")).to_contain_text("Your session has ended")  # the live list finds out
    frame.get_by_role("link", name=str(seqno), exact=True).click()
    expect(frame.get_by_role("heading")).to_have_text("Your session has ended")


def test_the_pages_of_a_run_and_its_tasks_have_a_tab_with_their_imports(
    engine: Engine, sign_in: SignIn
) -> None:
    seqno = engine.submit("Email,Last name,Country\ntab@example.com,A,DE\nwrong@example.com,B,XX\n")
    run = engine.work_off(seqno)
    address = f"{engine.place.url}/dags/{run.dag}/runs/{quote(run.run_id, safe='')}"
    page = sign_in("viewer", color_scheme="null")
    refused: list[str] = []
    page.on("console", lambda m: refused.append(m.text) if "Content Security Policy" in m.text else None)
    page.goto(address)
    page.get_by_role("link", name="Import records").click()
    tab = page.frame_locator("iframe[title='Import records']")
    expect(tab.get_by_role("heading", name=f"#{seqno} ")).to_be_visible()
    expect(tab.locator("body")).to_contain_text("1 rejected")
    expect(tab.locator("body")).not_to_contain_text("XX")
    light = tab.locator("html").evaluate("page => getComputedStyle(page).backgroundColor")
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.goto(f"{address}/tasks/import_batch.load/mapped/{run.task('load')['map_index']}")
    page.get_by_role("link", name="Import records").click()
    expect(tab.get_by_role("heading")).to_have_text(re.compile(f"#{seqno} "))
    expect(tab.locator("tbody").last.locator("tr")).to_have_count(2)
    assert tab.locator("html").evaluate("page => getComputedStyle(page).backgroundColor") != light
    assert refused == []  # its style is taken


def test_each_mapped_task_links_to_the_page_of_its_import_and_no_other_task_does(
    engine: Engine, sign_in: SignIn
) -> None:
    seqno = engine.submit("Email,Last name\nlinked@example.com,A\n")
    run = engine.work_off(seqno)
    for step in ("validate", "load", "close"):
        assert links(engine, run, f"import_batch.{step}", run.task(step)["map_index"]) == {
            "Import batch": f"/plugin/imports/imports/batches/{seqno}"
        }
    assert links(engine, run, "sense") == {}
    page = sign_in("viewer")
    tasks = f"{engine.place.url}/dags/{run.dag}/runs/{quote(run.run_id, safe='')}/tasks"
    page.goto(f"{tasks}/import_batch.load/mapped/{run.task('load')['map_index']}/details")
    page.get_by_role("link", name="Import batch").click()
    frame = page.frame_locator("iframe[title=Imports]")
    expect(frame.get_by_role("heading", level=1)).to_contain_text(f"#{seqno} ")


def links(engine: Engine, run: Run, task: str, index: int = -1) -> Any:
    path = f"/dags/{run.dag}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/{task}/links"
    return engine.api.call("GET", f"{path}?map_index={index}")["extra_links"]


def test_the_tab_on_a_dag_that_imports_nothing_says_so(engine: Engine, sign_in: SignIn) -> None:
    dag = "/dags/contract_status_timers/dagRuns"
    run_id = engine.trigger("contract_status_timers")
    try:
        page = sign_in("viewer")
        runs = f"{engine.place.url}/dags/contract_status_timers/runs"
        page.goto(f"{runs}/{quote(run_id, safe='')}/plugin/import-records")
        tab = page.frame_locator("iframe[title='Import records']")
        expect(tab.locator("body")).to_contain_text("contract_status_timers imports no files")
    finally:
        engine.api.call("DELETE", f"{dag}/{quote(run_id, safe='')}")
