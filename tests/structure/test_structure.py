"""The shape of the code: who may import whom, what must stay light, what must fit together."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowledger import db

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "plugins" / "rowledger"

LOADERS = [f"loading.{path.stem}" for path in sorted((PACKAGE / "loading").glob("[a-z]*.py"))]

# Who imports whom, from the bottom up; a new arrow is a decision and is written here.
ARROWS = {
    # foundations: nouns and errors know nobody
    "errors": "",
    "model": "",
    # what a file should look like, and what values mean
    "stores": "",
    "settings": "errors stores",
    "db": "errors",
    "templates.model": "",
    "templates.faults": "model templates.model",
    "yaml_in": "",
    "templates": "errors model templates.faults templates.model yaml_in",
    "templates.schema": "model templates.faults templates.model",
    "domains": "db errors",
    "templates.in_words": "templates.model",
    "values": "",
    "expectations": "values",
    "suites": "errors expectations templates values",
    # the stations, in the way of the data; they meet in the pipeline
    "uploads": "errors stores",
    "staging": "db model templates",
    "batches": "db domains errors model staging stores templates uploads",
    "structure": "errors model templates",
    "text_in": "errors model structure templates",
    "heads": "structure templates text_in",
    "layouts": "errors heads model structure templates text_in",
    "records_in": "errors layouts model structure templates text_in",
    "validation": "model records_in suites templates values",
    "client": "errors model uploads",
    "parked": "db domains model",
    "loading": "db errors model parked staging templates",
    # what a loader needs; one that needs more has a line of its own
    **dict.fromkeys(LOADERS, "db loading model staging templates"),
    "loading.contract_status": "db loading model parked staging templates",
    "lanes": "db model staging",
    "ledger": "db layouts model parked templates text_in",
    "contracts": "db domains errors",
    "contacts": "db domains errors",
    "timers": "db domains",
    "reference_data": "errors yaml_in",
    "reference": "db domains errors reference_data",
    "blank_files": "db errors reference templates.in_words templates",
    # proposals for templates
    "infer.field_words": "model templates",
    "infer.sniff": "errors infer.field_words templates.model",
    "infer.column_facts": "values",
    "infer": "infer.column_facts errors infer.field_words model records_in infer.sniff templates.model templates validation",
    # files that come by themselves
    "feeds.model": "",
    "feeds": "errors feeds.model model templates yaml_in",
    "feeds.places": "errors uploads",
    "feeds.stores": "errors feeds.places uploads",
    "feeds.arrivals": "batches db errors feeds feeds.model feeds.places loading settings stores suites templates uploads",
    "feeds.cadence": "db feeds.model",
    "feeds.notices": "db feeds.model",
    "feeds.unusual": "control db model staging",
    "pipeline": "batches db errors feeds.unusual lanes ledger loading model records_in reference settings staging templates uploads validation",
    "control": "batches db errors lanes ledger model staging",
    "reruns": "batches db errors layouts ledger model settings templates uploads",
    "mending": "batches db errors layouts model settings templates text_in uploads",
    "replay": "batches db errors loading model parked pipeline templates",
    "roll_back": "batches db errors loading model pipeline",
    "giving_up": "batches db domains errors loading model parked roll_back",
    "retention": "errors yaml_in",
    "histories": "db errors",
    "housekeeping": "batches db errors giving_up histories pipeline retention staging uploads",
    "metrics": "db model",
    "erasure": "batches db domains errors pipeline staging stores uploads",
    "dry_run": "batches db errors ledger loading model pipeline staging templates uploads",
    # who asks for a judgement is light, who gives it runs in a process of its own
    "judges": "errors",
    "judge": "db dry_run errors heads judges loading pipeline records_in settings suites templates",
    # beside them: the database from a wheel
    "server": "errors settings",
}
# Who stands on top may use whatever is below; nothing below knows of them.
TOPS = ("airflow", "cli", "demo", "desk")
HEAVY = {"great_expectations", "pandas", "pyarrow", "duckdb", "phonenumbers", "email_validator", "openpyxl"}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found[""]
    return found


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(node: ast.AST) -> Iterator[str]:
    """Dotted names that the code below a node imports, inside functions too."""
    for one in ast.walk(node):
        if isinstance(one, ast.Import):
            yield from (alias.name for alias in one.names)
        elif isinstance(one, ast.ImportFrom):
            assert one.level == 0, "imports are absolute"
            yield from (f"{one.module}.{alias.name}" for alias in one.names)


def ours(path: Path) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for name in imports(tree(path)):
        if name.partition(".")[0] == "rowledger":
            inner = name.partition(".")[2]
            while inner and inner not in modules():
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found - {""}


def is_top(module: str) -> bool:
    return module.partition(".")[0] in TOPS


def test_every_module_has_its_place_in_the_table_of_arrows() -> None:
    assert {module for module in modules() if not is_top(module)} == set(ARROWS)


@pytest.mark.parametrize("module", ARROWS)
def test_arrows_are_those_of_the_table(module: str) -> None:
    assert ours(modules()[module]) == set(ARROWS[module].split())


def test_arrows_never_close_a_circle() -> None:
    order: list[str] = []
    rest = {module: set(arrows.split()) for module, arrows in ARROWS.items()}
    while rest:
        free = [module for module, arrows in rest.items() if arrows <= set(order)]
        assert free, f"a circle among {sorted(rest)}"
        order += free
        rest = {module: arrows for module, arrows in rest.items() if module not in free}


JUDGING = {"validation", "suites", "expectations", "pipeline", "records_in", "dry_run", "judge"}


def test_a_page_never_judges() -> None:
    for module, path in modules().items():
        if module.partition(".")[0] == "desk":
            assert ours(path).isdisjoint(JUDGING), module


def test_airflow_is_imported_in_one_place_of_the_package() -> None:
    for module, path in modules().items():
        if module.partition(".")[0] not in ("airflow", "desk"):
            assert not any(name.partition(".")[0] == "airflow" for name in imports(tree(path))), module


def at_import(body: list[ast.stmt]) -> Iterator[str]:
    """What a module imports when it is imported: not inside functions, not for the type checker."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from at_import(statement.orelse)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from imports(statement)
        else:
            inner = [one for one in ast.iter_child_nodes(statement) if isinstance(one, ast.stmt)]
            yield from at_import(inner)


@pytest.mark.parametrize("module", [module for module in modules() if module != "expectations"])
def test_heavy_libraries_are_imported_where_they_are_used(module: str) -> None:
    assert {name.partition(".")[0] for name in at_import(tree(modules()[module]).body)}.isdisjoint(HEAVY)


def python(script: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_command_line_starts_without_heavy_libraries(tmp_path: Path) -> None:
    script = f"import sys, rowledger.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    assert python(script, tmp_path) == "[]"


def test_nothing_happens_at_import(tmp_path: Path) -> None:
    """No connection, no process, no file written, by any module that can be imported without Airflow."""
    script = f"""
        import importlib, os, sys
        import psycopg2, yaml, pydantic, typer, rich.logging, rich.table  # what libraries do is theirs

        seen = []
        def watch(event, args):
            written = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if written or event in ("socket.connect", "subprocess.Popen", "os.mkdir", "os.rename", "os.remove"):
                seen.append((event, str(args[0])))
        sys.addaudithook(watch)
        psycopg2.connect = lambda *args, **kwargs: seen.append("psycopg2.connect")
        for module in {[module for module in [*ARROWS, "cli"] if module != "expectations"]!r}:
            importlib.import_module("rowledger." + module)
        print(seen, os.listdir())
    """
    assert python(script, tmp_path) == "[] []"


def strings(path: Path) -> tuple[set[str], list[str]]:
    """String constants of a module, and its f-strings as regular expressions."""
    constants, patterns = set(), []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            constants.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"\w+" for p in node.values)
            patterns.append("".join(parts))
    return constants, patterns


def named(path: Path) -> Iterator[tuple[str, str | None]]:
    """(station, query) for every ``queries(station)[query]`` and ``_SQL[query]``; None for all of a station."""
    stations = re.findall(r'^_SQL = queries\("(\w+)"\)$', path.read_text(encoding="utf-8"), re.MULTILINE)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("queries", "db.queries"):
            assert isinstance(node.args[0], ast.Constant)
            yield str(node.args[0].value), None
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            of = ast.unparse(node.value)
            call = re.fullmatch(r"(?:db\.)?queries\('(\w+)'\)", of)
            if of == "_SQL" or call:
                yield call[1] if call else stations[0], str(node.slice.value)


def test_every_query_that_is_named_exists() -> None:
    for module, path in modules().items():
        for station, query in named(path):
            assert query is None or query in db.queries(station), f"{module}: {station}.{query}"


def test_every_query_is_used() -> None:
    unused = set()
    for file in sorted((PACKAGE / "sql").glob("*.sql")):
        users = [path for path in modules().values() if file.stem in {station for station, _ in named(path)}]
        assert users, f"nobody reads {file.name}"
        constants = set[str]().union(*(strings(path)[0] for path in users))
        patterns = [pattern for path in users for pattern in strings(path)[1]]
        for query in db.queries(file.stem) if file.stem != "check" else ():  # checks are run all
            if query not in constants and not any(re.fullmatch(pattern, query) for pattern in patterns):
                unused.add(f"{file.name}: {query}")
    assert unused == set()


def test_no_query_is_named_twice() -> None:
    for file in sorted((PACKAGE / "sql").glob("*.sql")):
        names = re.findall(r"^-- name: (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(names) == len(set(names)), file.name


def test_every_module_and_every_public_function_and_class_says_what_it_is() -> None:
    silent = []
    for module, path in modules().items():
        if not ast.get_docstring(tree(path)):
            silent.append(module)
        for node in tree(path).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{module}.{node.name}")
    assert silent == []


def names(requirements: str) -> set[str]:
    lines = [line.strip() for line in (ROOT / requirements).read_text(encoding="utf-8").splitlines()]
    found = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines if not line.startswith(("#", "-"))]
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}


def test_requirements_name_every_library_that_the_package_imports() -> None:
    imported = {name.partition(".")[0] for path in modules().values() for name in imports(tree(path))}
    foreign = imported - set(sys.stdlib_module_names) - {"rowledger"}
    given = dict(importlib.metadata.packages_distributions())
    given["airflow"] = ["apache-airflow"]  # a distribution without modules, that brings those which have them
    wanted = {name: {re.sub(r"[-_.]+", "-", one).lower() for one in given[name]} for name in foreign}
    required = names("requirements.txt")
    assert {name for name, distributions in wanted.items() if not distributions & required} == set()


@pytest.mark.parametrize(
    "requirements", ["requirements.txt", "requirements-scale.txt", "requirements-dev.txt"]
)
def test_the_lock_pins_every_requirement(requirements: str) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0].partition("[")[0]).lower()
        for line in lock
        if "==" in line
    }
    assert names(requirements) - pinned == set()


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    machine = re.compile(rb"/(?:root|home|work|Users)/[A-Za-z0-9_.-]+")
    found = []
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and (match := machine.search(path.read_bytes())):
            found.append(f"{name}: {match[0].decode()}")
    assert found == []


def test_the_desk_starts_without_heavy_libraries_and_without_airflow(tmp_path: Path) -> None:
    """FastAPI itself brings email_validator."""
    heavy = (HEAVY | {"airflow"}) - {"email_validator"}
    script = (
        f"import sys, rowledger.desk, rowledger.airflow.desk; print(sorted({heavy!r} & set(sys.modules)))"
    )
    assert python(script, tmp_path) == "[]"


def test_the_desk_reads_templates_without_what_judges(tmp_path: Path) -> None:
    script = f"""
        import sys
        from pathlib import Path
        from rowledger.desk.shelf import Shelf
        assert Shelf(Path({str(ROOT / "include" / "templates")!r})).all()
        print(sorted({{"great_expectations", "pandas", "duckdb"}} & set(sys.modules)))
    """
    assert python(script, tmp_path) == "[]"
