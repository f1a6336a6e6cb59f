"""Reference data: load a file of it, create, change, retire and restore its parts, see who changed what."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rowledger import reference
from rowledger.cli.terminal import (
    AsJson,
    app,
    check_box,
    database,
    from_environment,
    new_table,
    out,
    plain,
    print_json,
)
from rowledger.errors import UnknownCode
from rowledger.reference import Change, Domain, Item, Loaded, Origin, Phase, Status, Subscription

PANEL = "Set-up"


def _group(name: str, help: str, of: typer.Typer) -> typer.Typer:
    group = typer.Typer(help=help, no_args_is_help=True)
    of.add_typer(group, name=name, rich_help_panel=PANEL if of is app else None)
    return group


data = _group("reference", "Domains and what belongs to them: list, create, change, retire, restore.", app)

Code = Annotated[
    str, typer.Argument(help="Its code: printable ASCII without blanks. It never changes.", metavar="CODE")
]
ListId = Annotated[
    str,
    typer.Argument(help="Its list id: printable ASCII without blanks. It never changes.", metavar="LIST_ID"),
]
DomainCode = Annotated[str, typer.Option("--domain", help="The code of its domain.", metavar="CODE")]
Name = Annotated[str, typer.Option(help="What people call it.", metavar="TEXT")]
NewName = Annotated[str | None, typer.Option("--name", help="What people call it.", metavar="TEXT")]
Description = Annotated[str, typer.Option(help="What it means.", metavar="TEXT")]
NewDescription = Annotated[str | None, typer.Option("--description", help="What it means.", metavar="TEXT")]
ListName = Annotated[str, typer.Argument(help="The name of the list.", metavar="LIST")]
Values = Annotated[list[str], typer.Argument(help="One value or more.", metavar="VALUES...")]

_ONE = {
    "domains": "domain", "phases": "phase", "statuses": "status", "contracts": "contract", "origins": "origin",
    "subscriptions": "subscription", "list values": "list value",
}  # fmt: skip


# The whole -------------------------------------------------------------------------------------------------------


@app.command("load-reference", rich_help_panel=PANEL)
def load_reference(
    file: Annotated[Path, typer.Argument(help="A YAML file.", metavar="FILE")], as_json: AsJson = False
) -> None:
    """Load domains, phases, statuses, contracts, origins, subscriptions and value lists from a file.

    What the file names is created or brought up to date; what it leaves out stays. A second time changes nothing.
    """
    read = reference.read(file)
    with database(from_environment()) as connection:
        done = reference.load(connection, read, by=getpass.getuser(), file=file.name)
    if as_json:
        print_json({name: vars(loaded) for name, loaded in done.items()})
        return
    out.print(_sentence(done))


def _sentence(done: dict[str, Loaded]) -> str:
    parts = []
    for verb, word in (("Created", "created"), ("Changed", "changed"), ("Unchanged:", "unchanged")):
        counts = [(getattr(loaded, word), name) for name, loaded in done.items()]
        told = [f"{n:,} {_ONE[name] if n == 1 else name}" for n, name in counts if n]
        parts += [f"{verb} {', '.join(told)}."] if told else []
    return " ".join(parts) or "The file names nothing."


@data.command("list")
def list_reference(
    domain: Annotated[str | None, typer.Option(help="Only this domain, in full.", metavar="CODE")] = None,
    as_json: AsJson = False,
) -> None:
    """Show all domains and value lists, or one domain in full; --json has the shape of a reference file."""
    with database(from_environment()) as connection:
        found = reference.contents(connection, domain)
    if as_json:
        print_json(found.model_dump(exclude={"domains": {"__all__": {"contracts"}}}))
    elif domain is None:
        _print_overview(found)
    else:
        _print_domain(found.domains[0])


def _print_overview(found: reference.Reference) -> None:
    table = new_table(
        "Domain", "Name", "In use", "Phases", "Statuses", "Origins", "Subscriptions", names=("Domain",)
    )
    for one in found.domains:
        counts = (one.phases, one.statuses, one.origins, one.subscriptions)
        table.add_row(
            plain(one.code), plain(one.name), check_box(one.in_use), *(f"{len(items):,}" for items in counts)
        )
    out.print(
        table if found.domains else "There is no domain yet; make one: rowledger reference domain create"
    )
    if found.lists:
        table = new_table("Value list", "Values", "", names=("Value list",))
        for name, values in found.lists.items():
            shown = ", ".join(values[:20]) + (", …" if len(values) > 20 else "")
            table.add_row(plain(name), f"{len(values):,}", plain(shown))
        out.print(table)


def _print_domain(domain: Domain) -> None:
    out.print(
        f"[bold]{plain(domain.code)}[/bold]  {plain(domain.name)}" + ("" if domain.in_use else "  (retired)")
    )
    for items, headings in (
        (domain.phases, {"code": "Phase", "description": "Description"}),
        (
            domain.statuses,
            {"code": "Status", "phase": "Phase", "description": "Description", "initial": "Initial",
             "definitive": "Definitive", "churn": "Churn", "automatic_after_days": "After days"},
        ),
        (domain.origins, {"code": "Origin", "name": "Name"}),
        (
            domain.subscriptions,
            {"list_id": "Subscription", "name": "Name", "type": "Type", "display_sequence": "Sequence"},
        ),
    ):  # fmt: skip
        table = new_table(*headings.values(), "In use", names=tuple(headings.values())[:1])
        for item in items:
            table.add_row(*(_shown(getattr(item, field)) for field in headings), check_box(item.in_use))
        out.print(table if items else f"\n{next(iter(headings.values()))}: none yet")


@data.command("changes")
def list_changes(
    domain: Annotated[str | None, typer.Option(help="Only of this domain.", metavar="CODE")] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            help="Only domain, phase, status, contract, origin, subscription or value.", metavar="SORT"
        ),
    ] = None,
    code: Annotated[str | None, typer.Option(help="Only of this code.", metavar="CODE")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=100_000)] = 50,
    before: Annotated[
        int | None, typer.Option(help="Go on with what is older than this number.", metavar="NUMBER")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what and when, the newest first."""
    with database(from_environment()) as connection:
        found = reference.changes(connection, domain, sort=sort, code=code, before=before, limit=limit)
    if as_json:
        print_json([vars(one) for one in found])
        return
    if not found:
        out.print("No change is recorded.")
        return
    table = new_table("Number", "When (UTC)", "Who", "Domain", "What", "Change", names=("When (UTC)",))
    for one in found:
        who = one.by + (f", with {one.file}" if one.file else "")
        table.add_row(
            str(one.change_id), f"{one.changed_at:%Y-%m-%d %H:%M:%S}", plain(who),
            "" if one.sort == "domain" else plain(one.domain or ""), plain(f"{'list' if one.sort == 'value' else one.sort} {one.code}"), _told(one),
        )  # fmt: skip
    out.print(table)
    if len(found) == limit:
        out.print(f"Older ones: --before {found[-1].change_id}")


def _told(change: Change) -> str:
    if change.before is not None and change.after is not None:
        return "\n".join(f"{field}: {_shown(was)} → {_shown(now)}" for field, was, now in change.fields())
    verb = ("added" if change.sort == "value" else "created") if change.after else "removed"
    said = {
        field: value for field, value in (change.after or change.before or {}).items() if value is not None
    }
    if change.sort == "value":
        return f"{verb}: {_shown(said['value'])}"
    words = [
        field if value is True else f"{field} {_shown(value)}"
        for field, value in said.items()
        if value is not False
    ]
    return f"{verb}: " + ", ".join(words)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return check_box(value)
    return "–" if value is None else plain(str(value))


# One by one ------------------------------------------------------------------------------------------------------

domains = _group("domain", "Organisations; everything else belongs to one.", data)
phases = _group("phase", "Contract phases: group statuses for reporting.", data)
statuses = _group("status", "Contract statuses, also called result codes.", data)
origins = _group("origin", "Origins: campaigns that contacts come from.", data)
subscriptions = _group("subscription", "Subscriptions: mailing lists.", data)
values = _group("value", "Value lists that templates refer to.", data)


@domains.command("create")
def create_domain(code: Code, name: Name) -> None:
    """Create a domain."""
    _create(Domain, None, code=code, name=name)


@domains.command("change")
def change_domain(code: Code, name: NewName = None) -> None:
    """Change a domain."""
    _change(Domain, code, None, _given(name=name))


@phases.command("create")
def create_phase(code: Code, domain: DomainCode, description: Description) -> None:
    """Create a contract phase."""
    _create(Phase, domain, code=code, description=description)


@phases.command("change")
def change_phase(code: Code, domain: DomainCode, description: NewDescription = None) -> None:
    """Change a contract phase."""
    _change(Phase, code, domain, _given(description=description))


@statuses.command("create")
def create_status(
    code: Code,
    domain: DomainCode,
    phase: Annotated[str, typer.Option(help="The code of its phase.", metavar="CODE")],
    description: Description,
    initial: Annotated[bool, typer.Option("--initial", help="New contracts start with it.")] = False,
    definitive: Annotated[bool, typer.Option("--definitive", help="Nothing overwrites it.")] = False,
    churn: Annotated[bool, typer.Option("--churn", help="It counts as a customer lost.")] = False,
    after_days: Annotated[
        int | None, typer.Option(help="Given automatically so many days after sign-up.", metavar="N")
    ] = None,
) -> None:
    """Create a contract status."""
    _create(
        Status, domain, code=code, phase=phase, description=description, initial=initial, definitive=definitive,
        churn=churn, automatic_after_days=after_days,
    )  # fmt: skip


@statuses.command("change")
def change_status(
    code: Code,
    domain: DomainCode,
    phase: Annotated[str | None, typer.Option(help="The code of its phase.", metavar="CODE")] = None,
    description: NewDescription = None,
    initial: Annotated[
        bool | None,
        typer.Option(
            "--initial/--not-initial", help="New contracts start with it; see also: status initial."
        ),
    ] = None,
    definitive: Annotated[
        bool | None, typer.Option("--definitive/--not-definitive", help="Nothing overwrites it.")
    ] = None,
    churn: Annotated[
        bool | None, typer.Option("--churn/--not-churn", help="It counts as a customer lost.")
    ] = None,
    after_days: Annotated[
        int | None,
        typer.Option(help="Given automatically so many days after sign-up; 0: not any more.", metavar="N"),
    ] = None,
) -> None:
    """Change a contract status. History stays as it was."""
    given = _given(phase=phase, description=description, initial=initial, definitive=definitive, churn=churn)
    if after_days is not None:
        given["automatic_after_days"] = after_days or None
    _change(Status, code, domain, given)


@statuses.command("initial")
def make_initial(code: Code, domain: DomainCode) -> None:
    """Make a status the one that new contracts start with, in the place of the one before."""
    with database(from_environment()) as connection:
        done = reference.make_initial(connection, code, domain, by=getpass.getuser())
    out.print(plain(f"{_name(Status, code, domain)} is {'now' if done else 'already'} the initial status."))


@origins.command("create")
def create_origin(code: Code, domain: DomainCode, name: Name) -> None:
    """Create an origin."""
    _create(Origin, domain, code=code, name=name)


@origins.command("change")
def change_origin(code: Code, domain: DomainCode, name: NewName = None) -> None:
    """Change an origin."""
    _change(Origin, code, domain, _given(name=name))


@subscriptions.command("create")
def create_subscription(
    list_id: ListId,
    domain: DomainCode,
    name: Name,
    type: Annotated[str, typer.Option(help="email, mail, fax, phone or mobile.", metavar="TYPE")],
    sequence: Annotated[int, typer.Option(help="Its place where lists are shown.", metavar="N")] = 0,
) -> None:
    """Create a mailing list."""
    _create(Subscription, domain, list_id=list_id, name=name, type=type, display_sequence=sequence)


@subscriptions.command("change")
def change_subscription(
    list_id: ListId,
    domain: DomainCode,
    name: NewName = None,
    type: Annotated[
        str | None, typer.Option(help="email, mail, fax, phone or mobile.", metavar="TYPE")
    ] = None,
    sequence: Annotated[
        int | None, typer.Option(help="Its place where lists are shown.", metavar="N")
    ] = None,
) -> None:
    """Change a mailing list."""
    _change(Subscription, list_id, domain, _given(name=name, type=type, display_sequence=sequence))


@values.command("add")
def add_values(list_name: ListName, given: Values) -> None:
    """Add values to a list, which is made if need be."""
    with database(from_environment()) as connection:
        done = reference.add_values(connection, list_name, given, by=getpass.getuser())
    there = f", {done.unchanged:,} there already" if done.unchanged else ""
    out.print(plain(f'Added {done.created:,} to the list "{list_name}"{there}.'))


@values.command("remove")
def remove_values(list_name: ListName, given: Values) -> None:
    """Take values off a list."""
    with database(from_environment()) as connection:
        done = reference.remove_values(connection, list_name, given, by=getpass.getuser())
    out.print(plain(f'Removed {done:,} from the list "{list_name}".'))


def _switch(sort: type[Item], in_use: bool) -> Callable[..., None]:
    """The command retire or restore, which are alike for all sorts."""

    def switch(code: str, domain: str | None) -> None:
        with database(from_environment()) as connection:
            done = reference.set_in_use(connection, sort, code, in_use, domain, by=getpass.getuser())
        told = "in use" if in_use else "retired: it stays for history and cannot be chosen"
        out.print(plain(f"{_name(sort, code, domain)} is {'now' if done else 'already'} {told}."))

    def of_domain(code: Code) -> None:
        switch(code, None)

    def in_domain(code: Code, domain: DomainCode) -> None:
        switch(code, domain)

    return of_domain if sort is Domain else in_domain


for _group_of, _sort in (
    (domains, Domain),
    (phases, Phase),
    (statuses, Status),
    (origins, Origin),
    (subscriptions, Subscription),
):
    _group_of.command("retire", help="Take it out of use; it stays for history.")(_switch(_sort, False))
    _group_of.command("restore", help="Bring it back into use.")(_switch(_sort, True))


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _create(sort: type[Item], domain: str | None, **values: Any) -> None:
    item = reference.make(sort, values)
    with database(from_environment()) as connection:
        reference.create(connection, item, domain, by=getpass.getuser())
    out.print(plain(f"{_name(sort, item.id, domain)} is created."))


def _change(sort: type[Item], code: str, domain: str | None, given: dict[str, Any]) -> None:
    if not given:
        raise UnknownCode("Say what to change; --help lists the options.")
    with database(from_environment()) as connection:
        was = reference.get(connection, sort, code, domain)
        now = reference.make(sort, was.row() | given)
        reference.change(connection, now, domain, by=getpass.getuser(), seen=was.version)
    told = "; ".join(
        f"{field}: {_shown(old)} → {_shown(new)}"
        for field, new in now.row().items()
        if (old := getattr(was, field)) != new
    )
    out.print(f"{plain(_name(sort, code, domain))}: {told or 'unchanged'}.")


def _name(sort: type[Item], code: str, domain: str | None) -> str:
    return f'{sort.sort.capitalize()} "{code}"' + (f" of domain {domain}" if domain else "")
