"""The desk inside the real Airflow: its users, its roles, its cookie, its pages, its runs."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt

from rowledger.airflow import local

sys.path.insert(0, str(Path(__file__).parents[1] / "desk"))
from matrix import METHODS, address, expected, routes

CONTACTS = (
    "Customer number,Email,Last name,Country\nDESK1,DESK1@example.com,A,DE\nDESK2,DESK2@example.com,,DE\n"
)


class Asking:
    """Requests to the desk of a running Airflow, with whatever credentials."""

    def __init__(self, place: local.Place, headers: dict[str, str]) -> None:
        self._place, self._headers = place, headers

    def __call__(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._place.port, timeout=60)
        told = self._headers | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, f"/imports{path}", body, told)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def bearer(engine: Any, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {local.Api(engine.place, user).token()}"}


def credentials(engine: Any) -> dict[str | None, dict[str, str]]:
    """Headers of every role of the matrix, tokens for the ones that Airflow would not give."""
    token = local.Api(engine.place, "user").token()
    claims = jwt.decode(token, options={"verify_signature": False})
    key = engine_secret(engine)
    sign = jwt.encode

    def forged(**changed: Any) -> str:
        told = {k: v for k, v in (claims | changed).items() if v is not None}
        return sign(told, key, algorithm=jwt.get_unverified_header(token)["alg"])

    return {
        None: {},
        "expired": {"Authorization": f"Bearer {forged(iat=1, nbf=1, exp=2)}"},
        "garbage": {"Authorization": "Bearer garbage"},
        "": {"Authorization": f"Bearer {forged(role='')}"},
        "unknown role": {"Authorization": f"Bearer {forged(role='emperor')}"},
        "not yet": {"Authorization": f"Bearer {forged(nbf=4102444800)}"},
        "other audience": {"Authorization": f"Bearer {forged(aud='somebody else')}"},
        "without end": {"Authorization": f"Bearer {forged(exp=None)}"},
        "other key": {"Authorization": f"Bearer {sign(claims, 'x' * 64, algorithm='HS512')}"},
        "unsigned": {"Authorization": f"Bearer {sign(claims, '', algorithm='none')}"},
        **{user: bearer(engine, user) for user in local.USERS},
    }


def engine_secret(engine: Any) -> str:
    """The key that this Airflow signs its tokens with, from the environment of its processes."""
    return next(
        value
        for process in engine.processes()
        if (value := process.environ().get("AIRFLOW__API_AUTH__JWT_SECRET"))
    )


def test_every_route_lets_in_whom_it_should_on_the_real_airflow(engine: Any) -> None:
    engine.submit(CONTACTS)
    known = routes()
    wrong = []
    for role, headers in credentials(engine).items():
        ask = Asking(engine.place, headers | {"Sec-Fetch-Site": "same-origin"})
        for path in [*sorted({path for _, path in known}), "/docs", "/openapi.json", "/no/such/page"]:
            for method in METHODS:
                wanted = expected(role, known.get((method, path)), known=(method, path) in known)
                status, _, _ = ask(method, address(path))
                right = status not in (401, 403, 405) if wanted == "in" else status in wanted
                if not right or status >= 500:
                    wrong.append(f"{role}: {method} {path}: {status}, not {wanted}")
    assert wrong == []


def test_a_cookie_of_the_session_is_taken_and_its_requests_are_guarded(engine: Any) -> None:
    token = local.Api(engine.place, "user").token()
    ask = Asking(engine.place, {"Cookie": f"_token={token}"})
    assert ask("GET", "/")[0] == 200
    assert ask("GET", "/", Authorization="Basic dTpw")[0] == 200
    pause = ("POST", "/api/v1/batches/1/pause")
    assert ask(*pause, X_Rowledger="page")[0] == 403
    assert ask(*pause, Sec_Fetch_Site="same-origin")[0] == 403
    for site in ("same-site", "cross-site", "none"):
        assert ask(*pause, X_Rowledger="page", Sec_Fetch_Site=site)[0] == 403
    assert ask(*pause, X_Rowledger="page", Sec_Fetch_Site="same-origin")[0] == 428


def test_a_body_of_nobody_is_not_read(engine: Any) -> None:
    """Ten gigabytes are announced; the answer comes without any of them, and the connection is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", engine.place.port, timeout=30)
    try:
        connection.putrequest("POST", "/imports/api/v1/batches?kind=contact")
        for name, value in (("Content-Length", "10000000000"), ("Content-Type", "text/csv")):
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (401, "close")
    finally:
        connection.close()


def test_a_file_goes_through_the_desk_and_a_run_that_it_starts(engine: Any) -> None:
    ask = Asking(engine.place, bearer(engine, "user"))
    query = urlencode({"kind": "contact", "domain": "DEMO", "template": "contacts", "file_name": "desk.csv"})
    status, headers, body = ask(
        "POST",
        f"/api/v1/batches?{query}",
        CONTACTS.replace("DESK", "THROUGH"),
        Content_Type="text/csv",
        Idempotency_Key="desk-1",
    )
    assert status == 201, body
    assert headers["location"].startswith("/imports/api/v1/batches/")
    seqno = json.loads(body)["seqno"]
    status, _, body = ask("POST", f"/api/v1/batches/{seqno}/run-now", If_Match="*")
    assert status in (202, 409), body  # a scheduled run may have been faster
    engine.until(lambda: engine.batch(seqno).status.terminal)
    assert engine.batch(seqno).counts == engine.batch(seqno).counts | {"created": 1, "rejected": 1}
    _, _, page = ask("GET", f"/batches/{seqno}/activity")
    assert (
        f"/dags/contact_import/runs/{engine.batch(seqno).run_id.replace(':', '%3A').replace('+', '%2B')}"
        in page.decode()
    )


def test_the_example_of_the_readme_and_the_command_line_speak_to_it(engine: Any, tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", (local.ROOT / "README.md").read_text(), re.DOTALL)
    assert example
    (tmp_path / "contacts.csv").write_text(CONTACTS.replace("DESK", "README"))
    who = {"ROWLEDGER_URL": engine.place.url, "ROWLEDGER_USER": "user",
           "ROWLEDGER_PASSWORD": engine.place.password_of("user")}  # fmt: skip

    def python(code: str, *arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        told = subprocess.run(
            command, cwd=tmp_path, env=os.environ | who, capture_output=True, text=True, timeout=300
        )
        assert (told.returncode, told.stderr) == (0, "")
        return told.stdout

    assert "executed" in python(example[1])
    assert "README2" in (tmp_path / "to_mend.csv").read_text()
    listed = json.loads(python("from rowledger.cli import main; main()", "list", "--limit", "2", "--json"))
    assert [(b["kind"], b["uploaded_by"], b["uploaded_through"]) for b in listed] == [
        ("contract_status", "user", "api"), ("contact", "user", "api"),
    ]  # fmt: skip
    seqno = listed[0]["seqno"]
    worked = python("from rowledger.cli import main; main()", "work", str(seqno), "--json")
    assert json.loads(worked)["records_in_file"] == 1
    assert engine.batch(seqno).succeeded


def test_the_list_says_when_what_waits_is_worked_off_and_when_a_dag_is_paused(engine: Any) -> None:
    ask = Asking(engine.place, bearer(engine, "viewer"))
    engine.api.call("PATCH", "/dags/contract_import", {"is_paused": True})
    try:
        seqno = engine.submit("Form ID,Sign-up date\nDESK,2026-01-01\n", "contracts")
        assert b"the DAG is paused" in ask("GET", "/")[2]
        refused, _, told = Asking(engine.place, bearer(engine, "op"))(
            "POST", f"/api/v1/batches/{seqno}/run-now", If_Match="*"
        )
        assert (refused, b"paused" in told) == (409, True)
    finally:
        engine.api.call("PATCH", "/dags/contract_import", {"is_paused": False})
    engine.until(
        lambda: engine.batch(seqno).status.terminal or b"is worked off in the next run" in ask("GET", "/")[2]
    )


def test_the_page_is_an_entry_of_airflows_navigation_and_runs_and_tasks_have_a_tab(engine: Any) -> None:
    plugins = engine.api.call("GET", "/plugins")["plugins"]
    ours = next(plugin for plugin in plugins if plugin["name"] == "rowledger")
    views = {view["destination"]: (view["name"], view["href"]) for view in ours["external_views"]}
    of_run = "imports/of-run?dag_id={DAG_ID}&run_id={RUN_ID}"
    assert views == {
        "nav": ("Imports", "imports/"),
        "dag_run": ("Import records", of_run),
        "task_instance": ("Import records", of_run + "&map_index={MAP_INDEX}"),
    }
    assert engine.api.call("GET", "/plugins/importErrors")["total_entries"] == 0


def test_a_file_is_checked_beside_the_api_server(engine: Any) -> None:
    ask = Asking(engine.place, bearer(engine, "user"))
    query = urlencode(
        {"kind": "contact", "domain": "DEMO", "template": "contacts", "file_name": "c.csv", "first": 5}
    )
    status, _, body = ask(
        "POST", f"/api/v1/checks?{query}", CONTACTS.replace("DESK", "CHECK"), Content_Type="text/csv"
    )
    assert status == 200, body
    told = json.loads(body)
    assert told["counts"] == {"created": 1, "rejected": 1}
    assert told["records"][1]["reasons"][0]["rule"] == "required"
    (judge,) = (p for p in engine.processes() if "rowledger.judge" in p.cmdline())
    assert not any(name.startswith("AIRFLOW__") for name in judge.environ())


def test_the_api_server_does_not_load_what_judges(engine: Any) -> None:
    """Great Expectations is loaded nowhere without pandas."""
    Asking(engine.place, bearer(engine, "user"))("GET", "/")
    names = ("api_server", "api-server")
    servers = [p for p in engine.processes() if any(name in " ".join(p.cmdline()) for name in names)]
    assert servers
    for process in servers:
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
        assert "pandas/_libs" not in loaded
        assert "duckdb" not in loaded
