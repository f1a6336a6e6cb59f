"""Prepared batches of every kind, and the steps that work them off.

A scenario is prepared once, in a database of its own; its steps are what faults happen to. Each step is one task: it is
given a worker with a connection of its own, and when it does not end it is done again, as Airflow would.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from rowledger import (
    batches,
    control,
    db,
    giving_up,
    histories,
    loading,
    pipeline,
    reference,
    replay,
    roll_back,
    suites,
    templates,
    timers,
    uploads,
)
from rowledger.errors import Fenced, FileError, Stopped
from rowledger.pipeline import Worker


@dataclass(frozen=True)
class Step:
    """A task. ``raises`` is what it ends with each time, if it is meant to fail."""

    name: str
    do: Callable[[Worker], object]
    raises: type[Exception] | None = None


@dataclass(frozen=True)
class Scenario:
    """``prepare`` is given a worker and a folder for its files; ``settings`` are those of the worker.

    With ``after`` the database is first that of another scenario as it stands before one of its steps.
    """

    prepare: Callable[[Worker, Path], None]
    steps: tuple[Step, ...]
    after: tuple[str, int] | None = None
    settings: dict[str, Any] = field(
        default_factory=lambda: {"validate_chunk": 16, "load_chunk": 10, "load_lanes": 1}
    )


def submit(
    worker: Worker, file: Path, text: str, template: str, changes: dict[str, str] | None = None, **named: Any
) -> int:
    """Submit a file with a template of the demo, in which some words are replaced."""
    source = (worker.settings.templates / f"{template}.yml").read_text(encoding="utf-8")
    for old, new in (changes or {}).items():
        assert old in source
        source = source.replace(old, new)
    chosen = templates.parse_template(source, template, loading.kinds(), template)
    file.write_text(text, encoding="utf-8")
    upload = uploads.keep_file(file, worker.settings.uploads)
    return batches.register(worker.connection, upload, chosen, suites.suite_hash(chosen), "DEMO",
                            by="tester", through="command line", again=True, **named)  # fmt: skip


def steps_of(seqno: int) -> tuple[Step, ...]:
    return (
        Step("validate", partial(_on, pipeline.validate, seqno)),
        Step("load", partial(_on, pipeline.load, seqno)),
        Step("close", partial(_on, pipeline.close, seqno)),
    )


def _on(step: Callable[[Worker, int], object], seqno: int, worker: Worker) -> None:
    step(worker, seqno)


PARTS = 2


def prepare_in_parts(worker: Worker, folder: Path) -> None:
    """The batch of another scenario, shared out in parts."""
    batches.shared_out(worker.connection, [2], 1, PARTS, PARTS, 60)
    assert batches.get(worker.connection, 2).parts == PARTS


def steps_of_parts(seqno: int) -> tuple[Step, ...]:
    """Each part of each step is a task, and they come one after another."""
    return tuple(
        Step(f"{step.__name__} part {part}", partial(_on_part, step, seqno, part))
        for step in (pipeline.validate, pipeline.load, pipeline.close)
        for part in range(1, PARTS + 1)
    )


def _on_part(step: Callable[[Worker, int], object], seqno: int, part: int, worker: Worker) -> None:
    step(replace(worker, part=part), seqno)


def _at_once(step: Callable[[Worker, int], object], seqno: int, worker: Worker) -> None:
    """All parts of a step side by side, in one process that is killed as one."""
    with worker.another() as other, ThreadPoolExecutor(PARTS) as pool:
        tasks = [pool.submit(_on_part, step, seqno, part, one) for part, one in ((1, worker), (2, other))]
        for task in tasks:
            task.result()


def add_contracts(worker: Worker, *form_ids: str, codes: tuple[str, ...] = ()) -> None:
    demo = {
        "code": "DEMO",
        "name": "Demo",
        "contracts": [{"form_id": form_id, "sign_up_date": "2024-12-01"} for form_id in form_ids],
        "statuses": [{"code": code, "phase": "NEW", "description": f"Code {code}"} for code in codes],
    }
    reference.load(worker.connection, reference.Reference.model_validate({"domains": [demo]}))


def refuse(worker: Worker, constraint: str) -> None:
    """A rule of the house that only the database knows."""
    with db.transaction(worker.connection) as cursor:
        cursor.execute(f"ALTER TABLE {constraint}")


# Contract statuses ---------------------------------------------------------------------------------------------

PARKING = {
    "unknown_contract: reject": "unknown_contract: park",
    "unknown_status: ignore": "unknown_status: park",
}


def status_lines(draw: random.Random, records: int, contracts: int) -> str:
    """Statuses with everything that can become of one."""
    lines = []
    for number in range(records):
        form = f"C{draw.randrange(contracts)}" if draw.random() < 0.85 else f"X{draw.randrange(contracts)}"
        code = draw.choice(["10", "20", "20", "30", "30", "90", "77"])
        day = f"{draw.randint(1, 28):02}-{draw.randint(1, 3):02}-{draw.choice(['2025', '2025', '2025', '2025', '2099'])}"
        lines.append(f"{form};{day};{code};Agent;note {number}")
        if draw.random() < 0.15:
            lines.append(draw.choice(["C1;31-02-2025;20;;", "C1;1", "", lines[-1], '"C1"x;;;;']))
    return "\n".join(lines) + "\n"


def prepare_statuses(worker: Worker, folder: Path, records: int = 36) -> None:
    draw, contracts = random.Random(7), records // 2
    add_contracts(worker, *(f"C{number}" for number in range(contracts)))
    refuse(worker, "status_history ADD CONSTRAINT no_such_entry CHECK (seqno <> 2 OR record_no % 17 <> 5)")
    earlier = submit(worker, folder / "1.csv", status_lines(draw, records // 2, contracts), "result_codes")
    assert pipeline.work(worker, earlier).succeeded
    submit(worker, folder / "2.csv", status_lines(draw, records, contracts), "result_codes", PARKING)


def _arrive(worker: Worker) -> None:
    add_contracts(worker, *(f"X{number}" for number in range(0, 60, 2)), codes=("77",))


def _replay(worker: Worker) -> None:
    replay.replay(worker, "contract_status")


def _give(worker: Worker) -> None:
    timers.give(worker.connection, size=4)


# Contacts ------------------------------------------------------------------------------------------------------

CONTACT_HEADER = "Customer number,Email,Last name,Mobile,Country,City,Roles,Loyalty card,Campaigns,Subscribe to,Unsubscribe from"


def contact_lines(draw: random.Random, records: int) -> str:
    """Contacts that repeat, agree, cross, and opt in and out."""
    lines = [CONTACT_HEADER]
    for number in range(records):
        key, other = draw.randrange(records), draw.randrange(records)
        email = f"e{key if draw.random() < 0.85 else other}@example.com" if draw.random() < 0.8 else ""
        cells = [
            f"K{key}", email, f"Name {number % 5}", draw.choice(["0171 123456", "12", ""]),
            draw.choice(["DE", "DE", "", "XX"]), draw.choice(["Aachen"] * 9 + ["Bonn", "Atlantis", ""]),
            draw.choice(["customer", "press|landlord", ""]), draw.choice(["L1", "-", ""]),
            draw.choice(["FAIR", "WEB|FAIR", "", ""]), draw.choice(["OFFERS", "", ""]), draw.choice(["NEWS", "", "", ""]),
        ]  # fmt: skip
        lines.append(",".join(cells))
        if draw.random() < 0.1:
            lines.append(draw.choice(["K1", "", lines[-1], ",,Nobody,,,,,,,,", '"K1"x,,,,']))
    return "\n".join(lines) + "\n"


def prepare_contacts(worker: Worker, folder: Path, records: int = 36) -> None:
    draw = random.Random(8)
    first = submit(worker, folder / "1.csv", contact_lines(draw, records // 2), "contacts")
    assert pipeline.work(worker, first).succeeded
    refuse(worker, "contact ADD CONSTRAINT no_such_city CHECK (city <> 'Atlantis') NOT VALID")
    submit(worker, folder / "2.csv", contact_lines(draw, records), "contacts",
           origins=["WEB"], subscriptions=["NEWS"])  # fmt: skip


# Contracts -----------------------------------------------------------------------------------------------------


def contract_lines(draw: random.Random, records: int) -> str:
    lines = ["Form ID;Sign-up date;Customer number;Remark"]
    for number in range(records):
        day = f"{draw.randint(1, 28):02}-{draw.randint(1, 4):02}-{draw.choice(['2024', '2024', '2024', '2099'])}"
        contact = draw.choice([f"K{draw.randrange(records)}", "nobody", ""])
        lines.append(f"R{draw.randrange(records)};{day};{contact};note {number}")
        if draw.random() < 0.1:
            lines.append(draw.choice(["R1;31-02-2025;;", "R1;1", "", lines[-1], '"R1"x;;;']))
    return "\n".join(lines) + "\n"


def prepare_contracts(worker: Worker, folder: Path, records: int = 36) -> None:
    draw = random.Random(9)
    contacts = submit(worker, folder / "1.csv", contact_lines(draw, records), "contacts")
    assert pipeline.work(worker, contacts).succeeded
    earlier = submit(worker, folder / "2.csv", contract_lines(draw, records // 2), "contracts")
    assert pipeline.work(worker, earlier).succeeded
    refuse(worker, "contract ADD CONSTRAINT no_such_contract CHECK (form_id <> 'R7') NOT VALID")
    submit(worker, folder / "3.csv", contract_lines(draw, records), "contracts")


# Batches that fail ---------------------------------------------------------------------------------------------


def prepare_spoiled(worker: Worker, folder: Path) -> None:
    """More records are wrong than the template allows."""
    add_contracts(worker, "C1")
    lines = ["C1;01-01-2025;20;;"] * 9 + ["C1;31-02-2025;20;;"] * 25
    submit(worker, folder / "1.csv", "\n".join(lines) + "\n", "result_codes")


def prepare_nothing(worker: Worker, folder: Path) -> None:
    """What another scenario has prepared is all."""


def prepare_lost(worker: Worker, folder: Path) -> None:
    """A batch that failed because its file was not there; by now it is."""
    add_contracts(worker, *(f"C{number}" for number in range(18)))
    seqno = submit(worker, folder / "1.csv", status_lines(random.Random(7), 36, 18), "result_codes")
    path = Path(batches.get(worker.connection, seqno).file_path)
    path.rename(path.with_suffix(".away"))
    try:
        pipeline.work(worker, seqno)
    except FileError:
        path.with_suffix(".away").rename(path)
    assert batches.get(worker.connection, seqno).failed


class _Broken(Exception):
    """An error of ours in the middle of a load."""


def load_one_chunk(seqno: int, ending: Exception, worker: Worker) -> None:
    """Load the first chunk; an error ends the second."""
    load_chunk = pipeline._load_chunk

    def ends(*arguments: Any) -> Any:
        if arguments[-1].after is not None:
            raise ending
        return load_chunk(*arguments)

    with mock.patch.object(pipeline, "_load_chunk", ends):
        pipeline.load(worker, seqno)


def validate_one_chunk(seqno: int, ending: Exception, worker: Worker) -> None:
    """The same with the validation."""
    keep = pipeline._keep

    def ends(*arguments: Any) -> Any:
        if arguments[-1].chunk.first > 1:
            raise ending
        return keep(*arguments)

    with mock.patch.object(pipeline, "_keep", ends):
        pipeline.validate(worker, seqno)


def _settle(kind: str, worker: Worker) -> None:
    for seqno in batches.lacking_raw(worker.connection, kind):
        pipeline.complete_raw(worker, seqno)
    for seqno in batches.unread(worker.connection, kind):
        pipeline.count_unread(worker, seqno)


def prepare_reopened(worker: Worker, folder: Path) -> None:
    """A batch that failed in the middle of its load, with what was not reached in the ledger."""
    try:
        load_one_chunk(2, _Broken(), worker)
    except _Broken:
        assert batches.get(worker.connection, 2).counts["unprocessed"]


# A crowd of batches --------------------------------------------------------------------------------------------

KEYS = 60


def prepare_crowd(worker: Worker, folder: Path, files: int) -> None:
    """Half of the batches are contacts, half statuses; every other file is written backwards."""
    add_contracts(worker, *(f"C{key:03}" for key in range(KEYS)))
    for number in range(1, files + 1):
        keys = list(range(KEYS))[:: 1 if number % 4 < 2 else -1]
        if number % 2:
            lines = [f"C{key:03};{crowd_day(number):%d-%m-%Y};{crowd_code(number, key)};;" for key in keys]
            submit(worker, folder / f"{number}.csv", "\n".join(lines) + "\n", "result_codes")
        else:
            lines = [f"K{key:03},e{key}@example.com,Batch {number}" for key in keys]
            text = "\n".join(["Customer number,Email,Last name", *lines]) + "\n"
            submit(worker, folder / f"{number}.csv", text, "contacts")


def crowd_day(number: int) -> date:
    return date(2025, 1, 1) + timedelta(days=number)


def crowd_code(number: int, key: int) -> str:
    return ("20", "30")[(number + key) % 2]


# What people ask for -------------------------------------------------------------------------------------------


def prepare_half_validated(worker: Worker, folder: Path) -> None:
    """A batch whose worker was lost after its first chunk."""
    try:
        validate_one_chunk(2, Fenced(), worker)
    except Fenced:
        assert 0 < batches.get(worker.connection, 2).validated_records < 36


def prepare_half_loaded(worker: Worker, folder: Path) -> None:
    try:
        load_one_chunk(2, Fenced(), worker)
    except Fenced:
        batch = batches.get(worker.connection, 2)
        assert 0 < batch.loaded_records < batch.staged_records


def _ask(request: Callable[..., object], worker: Worker) -> None:
    request(worker.connection, 2, by="anna", why="lunch")


def prepare_years_ago(worker: Worker, folder: Path) -> None:
    """The subscriptions that the first batch entered, as if that was in 2025."""
    past = "'2025-05-01'::timestamptz"
    with db.transaction(worker.connection) as cursor:
        cursor.execute("SELECT open_history('subscription_history', domain_id, '{2025-05-01}') FROM domain")
        cursor.execute(f"UPDATE subscription_history SET recorded_at = {past} WHERE seqno = 1")
        cursor.execute("ALTER TABLE import_record DISABLE TRIGGER ALL")
        cursor.execute(f"UPDATE import_record SET recorded_at = {past} WHERE seqno = 1")
        cursor.execute("ALTER TABLE import_record ENABLE TRIGGER ALL")


def _ask_back(seqno: int, worker: Worker) -> None:
    roll_back.ask(worker.connection, seqno, by="anna", why="the wrong file")


def roll_back_of(seqno: int) -> tuple[Step, ...]:
    return (
        Step("ask for a roll back", partial(_ask_back, seqno)),
        Step("roll back", partial(_on, roll_back.work, seqno)),
    )


def _give_up(worker: Worker) -> None:
    """What retention does of what still waits, two records a transaction."""
    domain_id = batches.get(worker.connection, 2).domain_id
    with mock.patch.object(giving_up, "CHUNK", 2):
        giving_up.give_up_overdue(
            worker.connection, domain_id, 0, by="anna", again=partial(pipeline.again, worker)
        )


def _let_go(worker: Worker) -> None:
    """The years before 2026; who is in the way one night is not there the next."""
    domain_id, days = batches.get(worker.connection, 2).domain_id, (date.today() - date(2026, 6, 1)).days
    for _night in range(3):
        pipeline.again(worker, lambda: list(histories.let_go(worker.connection, domain_id, days)))


VALIDATE, LOAD, CLOSE = steps_of(2)
PAUSE, RESUME, CANCEL = (
    Step(request.__name__, partial(_ask, request))
    for request in (control.pause, control.resume, control.cancel)
)


def refused(step: Step) -> Step:
    """The step while the batch is paused or cancelled."""
    return Step(f"{step.name} in vain", step.do, Stopped)


def _large(prepare: Callable[..., None]) -> Callable[[Worker, Path], None]:
    return partial(prepare, records=300)


LANES = {"validate_chunk": 100, "load_chunk": 30, "load_lanes": 2, "max_attempts": 1000}
STATUSES = (
    VALIDATE,
    LOAD,
    CLOSE,
    Step("codes arrive", _arrive),
    Step("replay", _replay),
    Step("timers", _give),
)

# Small batches in one lane, whose points are the same each time: they are enumerated.
ENUMERATED = {
    "contract statuses": Scenario(prepare_statuses, STATUSES),
    "contacts": Scenario(prepare_contacts, (VALIDATE, LOAD, CLOSE)),
    "contracts": Scenario(prepare_contracts, steps_of(3)),
    "a file too wrong": Scenario(prepare_spoiled, (Step("validate", steps_of(1)[0].do, FileError),)),
    "a file that came back": Scenario(prepare_lost, steps_of(1)),
    "a load that breaks": Scenario(
        prepare_nothing,
        (
            Step("load", partial(load_one_chunk, 2, _Broken()), _Broken),
            Step("settle", partial(_settle, "contract_status")),
        ),
        after=("contract statuses", 1),
    ),
    "a batch opened again": Scenario(prepare_reopened, (LOAD, CLOSE), after=("contract statuses", 1)),
    "paused while validating": Scenario(
        prepare_half_validated,
        (PAUSE, refused(VALIDATE), RESUME, VALIDATE, LOAD, CLOSE),
        after=("contract statuses", 0),
    ),
    "paused while loading": Scenario(
        prepare_half_loaded, (PAUSE, refused(LOAD), RESUME, LOAD, CLOSE), after=("contacts", 1)
    ),
    "contract statuses in parts": Scenario(
        prepare_in_parts, steps_of_parts(2), after=("contract statuses", 0)
    ),
    "contacts in parts": Scenario(prepare_in_parts, steps_of_parts(2), after=("contacts", 0)),
    "cancelled unread": Scenario(
        prepare_nothing,
        (CANCEL, refused(VALIDATE), Step("settle", partial(_settle, "contract_status"))),
        after=("contract statuses", 0),
    ),
    "cancelled while validating": Scenario(
        prepare_half_validated,
        (CANCEL, refused(VALIDATE), Step("settle", partial(_settle, "contract_status"))),
        after=("contract statuses", 0),
    ),
    "cancelled while loading": Scenario(
        prepare_half_loaded,
        (CANCEL, refused(LOAD), Step("settle", partial(_settle, "contact"))),
        after=("contacts", 1),
    ),
    "contract statuses given up": Scenario(
        prepare_nothing, (Step("give up", _give_up),), after=("contract statuses", len(STATUSES))
    ),
    "contract statuses let go": Scenario(
        prepare_nothing, (Step("let go", _let_go),), after=("contract statuses", len(STATUSES))
    ),
    "subscriptions let go": Scenario(prepare_years_ago, (Step("let go", _let_go),), after=("contacts", 3)),
    "contract statuses rolled back": Scenario(
        prepare_nothing, roll_back_of(2), after=("contract statuses", len(STATUSES))
    ),
    "contacts rolled back": Scenario(prepare_nothing, roll_back_of(2), after=("contacts", 3)),
    "contracts rolled back": Scenario(prepare_nothing, roll_back_of(3), after=("contracts", 3)),
}

# Larger ones in two lanes, to be killed at random.
KILLED = {
    "many contract statuses": Scenario(_large(prepare_statuses), STATUSES, settings=LANES),
    "many contacts": Scenario(_large(prepare_contacts), (VALIDATE, LOAD, CLOSE), settings=LANES),
    "many contracts": Scenario(_large(prepare_contracts), steps_of(3), settings=LANES),
    "many contacts in parts": Scenario(
        prepare_in_parts,
        tuple(
            Step(step.__name__, partial(_at_once, step, 2))
            for step in (pipeline.validate, pipeline.load, pipeline.close)
        ),
        after=("many contacts", 0),
        settings=LANES,
    ),
}
# Batches over the same keys, for ``crowd``; their workers are told which of them to work off.
CROWD_SETTINGS = {"validate_chunk": 100, "load_chunk": 1, "load_lanes": 2}
CROWDED = {
    f"a crowd of {files}": Scenario(partial(prepare_crowd, files=files), (), settings=CROWD_SETTINGS)
    for files in (12, 84)
}
SCENARIOS = ENUMERATED | KILLED | CROWDED
