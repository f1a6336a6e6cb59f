"""What reference data is: its parts, the rules each part obeys by itself, and the YAML file they come in.

Text is kept in Unicode form NFC without outer blanks, on one line. Codes are printable ASCII without blanks, because
files refer to them. Errors name the field and say what would be right.
"""

from __future__ import annotations

import datetime
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from rowledger import yaml_in
from rowledger.errors import SetupError, WrongValue

CODE_LENGTH, TEXT_LENGTH = 64, 255


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('must be text; in YAML, put it in quotes ("10", "NO")')
    text = unicodedata.normalize("NFC", value.strip())
    unseen = any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
    if unseen or not 1 <= len(text) <= TEXT_LENGTH:
        raise ValueError(f"must be one line of 1 to {TEXT_LENGTH} characters")
    return text


def _code(text: str) -> str:
    if len(text) > CODE_LENGTH or not all("!" <= c <= "~" for c in text):
        allowed = f"1 to {CODE_LENGTH} printable ASCII characters without blanks"
        raise ValueError(f"must be {allowed}, because files refer to it")
    return text


def _list_name(code: str) -> str:
    if code.startswith("@"):
        raise ValueError("must not begin with @, as the domains' own lists do")
    return code


Text = Annotated[str, BeforeValidator(_text)]
Code = Annotated[Text, AfterValidator(_code)]
ListName = Annotated[Code, AfterValidator(_list_name)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Item(_Part):
    """What has a code of its own in a domain, and a switch that takes it out of use.

    ``sort`` is its word in the record of changes, ``key`` the field that holds the code, ``switch`` the field and
    its value when the item is out of use.
    """

    sort: ClassVar[str]
    key: ClassVar[str] = "code"
    switch: ClassVar[tuple[str, bool]] = ("retired", True)

    @property
    def id(self) -> str:
        return str(getattr(self, self.key))

    @property
    def in_use(self) -> bool:
        name, out_of_use = self.switch
        return bool(getattr(self, name) is not out_of_use)

    @property
    def version(self) -> str:
        """Changes with the item: whoever changes it says which one they have seen."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def row(self) -> dict[str, Any]:
        """Its own fields; the switch is None if it was not mentioned, and then stays as it is."""
        name, _ = self.switch
        mentioned = {} if name in self.model_fields_set else {name: None}
        return self.model_dump(exclude=_INSIDE_A_DOMAIN) | mentioned


class Phase(Item):
    """Groups contract statuses for reporting."""

    sort = "phase"

    code: Code
    description: Text
    retired: bool = False


class Status(Item):
    """A result code of the domain, in one of its phases.

    A definitive status may be given automatically (a contract that expires after a year); it is never taken away
    automatically. The initial status is where every contract starts: not definitive, not automatic, not retired.
    """

    sort = "status"

    code: Code
    phase: Code
    description: Text
    initial: bool = False
    definitive: bool = False
    churn: bool = False
    automatic_after_days: int | None = Field(default=None, ge=1, le=36500)
    retired: bool = False

    @model_validator(mode="after")
    def _initial_is_a_start(self) -> Status:
        if self.initial and self.retired:
            _refuse("retired", "must be false: this is the initial status; make another status initial first")
        if self.initial and self.definitive:
            _refuse(
                "definitive", "must be false: this is the initial status, and no contract could ever leave it"
            )
        if self.initial and self.automatic_after_days is not None:
            _refuse(
                "automatic_after_days",
                "must be left out: this is the initial status, which is given at sign-up",
            )
        return self


class Origin(Item):
    """A campaign that contacts come from."""

    sort = "origin"
    switch = ("active", False)

    code: Code
    name: Text
    active: bool = True


class Subscription(Item):
    """A mailing list."""

    sort = "subscription"
    key = "list_id"
    switch = ("disabled", True)

    list_id: Code
    name: Text
    type: Literal["email", "mail", "fax", "phone", "mobile"]
    display_sequence: int = Field(default=0, ge=0, le=1_000_000)
    disabled: bool = False


class Contract(_Part):
    """A contract, known by its form id within the domain."""

    form_id: Text
    sign_up_date: datetime.date = Field(ge=datetime.date(1900, 1, 1), le=datetime.date(2100, 12, 31))


class Domain(Item):
    """An organisation and what belongs to it; codes are unique within it."""

    sort = "domain"

    code: Code
    name: Text
    retired: bool = False
    phases: tuple[Phase, ...] = ()
    statuses: tuple[Status, ...] = ()
    contracts: tuple[Contract, ...] = ()
    origins: tuple[Origin, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()

    @model_validator(mode="after")
    def _codes_are_unique(self) -> Domain:
        for name in ("phases", "statuses", "origins", "subscriptions"):
            _refuse_twice(name, (item.id for item in getattr(self, name)))
        _refuse_twice("contracts", (contract.form_id for contract in self.contracts))
        initial = [status.code for status in self.statuses if status.initial]
        if len(initial) > 1:
            _refuse("initial", f"must be true for one status only, not for {' and '.join(initial)}")
        return self


class Reference(_Part):
    """A whole reference file: domains with what belongs to them, and named lists of values for templates."""

    domains: tuple[Domain, ...] = ()
    lists: dict[ListName, tuple[Text, ...]] = {}

    @model_validator(mode="after")
    def _domains_are_unique(self) -> Reference:
        _refuse_twice("domains", (domain.code for domain in self.domains))
        return self


_INSIDE_A_DOMAIN = {"phases", "statuses", "contracts", "origins", "subscriptions"}
AnItem = TypeVar("AnItem", bound=Item)
APart = TypeVar("APart", bound=_Part)


class _WrongTogether(ValueError):
    """Fields that are right each and wrong together; the one that should change."""

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(fault)
        self.field = field


def _refuse(field: str, fault: str) -> None:
    raise _WrongTogether(field, fault)


def _refuse_twice(field: str, codes: Iterable[str]) -> None:
    code, times = next(iter(Counter(codes).most_common(1)), ("", 0))
    if times > 1:
        _refuse(field, f"must not name {code} {times} times")


def make(sort: type[APart], values: Mapping[str, Any]) -> APart:
    """An item of that sort, checked. Raises WrongValue, which names the field."""
    try:
        return sort.model_validate(values)
    except ValidationError as error:
        place, fault = _place_and_fault(error.errors()[0], values)
        raise WrongValue(place[-1], f"{place[-1]} {fault}.") from None


def read(path: Path) -> Reference:
    """Read and check a reference file. Raises SetupError with file and place."""
    try:
        data = yaml_in.data(yaml_in.tree(yaml_in.text_of(path)))
    except yaml_in.WrongYaml as error:
        raise SetupError(f"{path}{error}") from None
    try:
        return Reference.model_validate(data)
    except ValidationError as error:
        place, fault = _place_and_fault(error.errors()[0], data)
        raise SetupError(f"{path}: {', '.join(place)} {fault}.") from None


_FAULTS = {
    "missing": "is missing",
    "extra_forbidden": "is not a key that is known here",
    "bool": "must be true or false",
    "int": "must be a whole number",
    "date": "must be a date from 1900 to 2100, such as 2026-01-31",
    "tuple": "must be a list",
    "dict": "must be keys with values",
    "model": "must be keys with values",
}


def _place_and_fault(problem: Any, data: Any) -> tuple[list[str], str]:
    """Where it is wrong, in the reader's words (domains "DEMO", statuses "20", phase), and what would be right."""
    place: list[str] = []
    for part in problem["loc"]:
        data = _inside(data, part)
        if isinstance(part, int) and place:
            named = data if isinstance(data, dict) else {}
            code = named.get("code") or named.get("list_id") or named.get("form_id")
            place[-1] += f' "{code}"' if code else f" no. {part + 1}"
        elif part == "[key]":
            place[-1] = "the name of a list"
        else:
            place.append(str(part))
    fault = (problem.get("ctx") or {}).get("error")
    if isinstance(fault, _WrongTogether):
        return [*place, fault.field], str(fault)
    shown = f", not {problem['input']!r:.80}" if not isinstance(problem["input"], dict) else ""
    return place or ["the file"], _fault(problem) + shown


def _inside(data: Any, part: int | str) -> Any:
    if isinstance(data, dict):
        return data.get(part)
    return data[part] if isinstance(data, list | tuple) and isinstance(part, int) else None


def _fault(problem: Any) -> str:
    sort, context = problem["type"], problem.get("ctx") or {}
    if sort == "value_error":
        return str(context["error"])
    if sort == "literal_error":
        return f"must be one of {context['expected']}"
    if sort.startswith(("greater_than", "less_than")):
        return str(problem["msg"]).replace("Input should be", "must be")
    return _FAULTS.get(sort) or _FAULTS.get(sort.partition("_")[0]) or str(problem["msg"])
