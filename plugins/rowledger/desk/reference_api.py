"""Reference data for programs: domains, phases, statuses, origins, subscriptions, value lists; read, create, change, retire.

Codes stand in the query, because they may hold any visible ASCII character. A change needs the right to set up, and
If-Match with the ETag of what was seen.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from rowledger import reference
from rowledger.desk import set_up_view
from rowledger.desk.access import Needs, Right, user_of
from rowledger.desk.bodies import body, described
from rowledger.desk.context import ConnectionDep
from rowledger.desk.examples import answers
from rowledger.desk.examples_of_data import CHANGES, LISTS, STATUS, STATUSES, TOLD, VALUES, VALUES_TOLD
from rowledger.desk.problems import Refused
from rowledger.desk.set_up_view import Sort
from rowledger.errors import UnknownCode, WrongValue
from rowledger.reference import Item

router = APIRouter(prefix="/reference", tags=["reference data"])
Reader = Depends(Needs(Right.READ))
Keeper = Depends(Needs(Right.SET_UP))
Text = Annotated[str, Query(max_length=255, pattern=r"^[^\x00]*$")]
Code = Annotated[
    str, Query(min_length=1, max_length=255, pattern=r"^[^\x00]*$", description="its code, or list id")
]


def where(
    sort: Sort,
    domain: Annotated[Text, Query(description="the code of the domain; domains themselves have none")] = "",
) -> str | None:
    """The domain in which items are meant. Raises Refused."""
    return set_up_view.place(sort, domain)


Where = Annotated[str | None, Depends(where)]


class Fields(BaseModel):
    """Fields of an item by name; what is left out is as it is, or what new items have."""

    model_config = ConfigDict(extra="allow")


class Some(BaseModel):
    """Values of a list."""

    model_config = ConfigDict(extra="forbid")

    values: list[str] = Field(default=[], max_length=10_000)


def version(
    if_match: Annotated[
        str | None, Header(description="the ETag of the item as you have seen it, or *")
    ] = None,
) -> str | None:
    """The version that the caller has seen; None for any. Raises Refused."""
    if if_match is None:
        raise Refused(428, "Say with If-Match which version you have seen: the ETag of GET, or *.")
    return None if if_match.strip() == "*" else if_match.strip().removeprefix("W/").strip('"')


Version = Annotated[str | None, Depends(version)]


@router.get("/changes", dependencies=[Reader], responses=answers(200, CHANGES))
def changes(
    connection: ConnectionDep,
    domain: Text = "",
    sort: Text = "",
    code: Text = "",
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="``next`` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = set_up_view.CHANGES_A_PAGE,
) -> JSONResponse:
    """Who changed what and when, the newest first."""
    found = _or_404(
        reference.changes,
        connection,
        domain or None,
        sort=sort or None,
        code=code or None,
        before=before,
        limit=limit,
    )
    following = found[-1].change_id if len(found) == limit else None
    return _json({"changes": found, "next": following})


@router.get("/lists", dependencies=[Reader], responses=answers(200, LISTS))
def value_lists(connection: ConnectionDep) -> JSONResponse:
    """The value lists that templates refer to, with the number of their values."""
    return _json({"lists": set_up_view.lists(connection)})


@router.get("/lists/values", dependencies=[Reader], responses=answers(200, VALUES))
def values(
    connection: ConnectionDep,
    name: Code,
    after: Text = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> JSONResponse:
    """The values of a list, in order; go on with ``next``."""
    found = set_up_view.values(connection, name, after, limit=limit)
    return _json({"list": name, "values": found.values, "next": found.next})


@router.post(
    "/lists/add", dependencies=[Keeper], responses=answers(200, VALUES_TOLD), openapi_extra=described(Some)
)
def add_values(
    request: Request, connection: ConnectionDep, name: Code, told: Annotated[Some, Depends(body(Some))]
) -> JSONResponse:
    """Add values to a list, which is made if need be; those that are there already stay."""
    done = reference.add_values(connection, name, _given(told), by=user_of(request).name)
    there = f", {done.unchanged:,} there already" if done.unchanged else ""
    return _json({"message": f'Added {done.created:,} to the list "{name}"{there}.', "changed": done.created})


@router.post(
    "/lists/remove", dependencies=[Keeper], responses=answers(200, VALUES_TOLD), openapi_extra=described(Some)
)
def remove_values(
    request: Request, connection: ConnectionDep, name: Code, told: Annotated[Some, Depends(body(Some))]
) -> JSONResponse:
    """Take values off a list, all of them or none."""
    done = reference.remove_values(connection, name, _given(told), by=user_of(request).name)
    return _json({"message": f'Removed {done:,} from the list "{name}".', "changed": done})


def _given(told: Some) -> list[str]:
    if not told.values:
        raise WrongValue("values", "Name one value or more.")
    return told.values


@router.get("/{sort}", dependencies=[Reader], responses=answers(200, STATUSES))
def list_items(connection: ConnectionDep, sort: Sort, domain: Where) -> JSONResponse:
    """All items of a sort in a domain, retired ones too."""
    found = set_up_view.listed(connection, sort, domain)
    return _json({"items": [set_up_view.shown(sort, item, domain) for item in found]})


@router.post(
    "/{sort}/item",
    dependencies=[Keeper],
    status_code=201,
    responses=answers(201, TOLD),
    openapi_extra=described(Fields),
)
def create(
    request: Request,
    connection: ConnectionDep,
    sort: Sort,
    domain: Where,
    told: Annotated[Fields, Depends(body(Fields))],
) -> JSONResponse:
    """Create an item. Wrong fields are told one at a time, in ``errors``."""
    item = set_up_view.create(connection, sort, told.model_extra or {}, domain, user_of(request).name)
    return _told(sort, item, domain, "is created", 201)


@router.get("/{sort}/item", dependencies=[Reader], responses=answers(200, STATUS))
def one_item(connection: ConnectionDep, sort: Sort, domain: Where, code: Code) -> JSONResponse:
    """One item. Its ETag is what a change needs as If-Match."""
    item = set_up_view.one(connection, sort, code, domain)
    return _json(set_up_view.shown(sort, item, domain), {"ETag": set_up_view.etag(item)})


@router.patch(
    "/{sort}/item", dependencies=[Keeper], responses=answers(200, TOLD), openapi_extra=described(Fields)
)
def change(
    request: Request, connection: ConnectionDep, sort: Sort, domain: Where, code: Code, seen: Version,
    told: Annotated[Fields, Depends(body(Fields))],
) -> JSONResponse:  # fmt: skip
    """Change the fields that are sent. It counts from now on; history stays as it was."""
    item, changed = set_up_view.change(
        connection, sort, code, told.model_extra or {}, domain, user_of(request).name, seen
    )
    return _told(sort, item, domain, "is changed" if changed else "was so already; nothing is changed")


@router.post("/{sort}/item/retire", dependencies=[Keeper], responses=answers(200, TOLD))
def retire(
    request: Request, connection: ConnectionDep, sort: Sort, domain: Where, code: Code, seen: Version
) -> JSONResponse:
    """Take an item out of use: it stays for history and cannot be chosen any more."""
    return _switch(request, connection, sort, domain, code, seen, in_use=False)


@router.post("/{sort}/item/restore", dependencies=[Keeper], responses=answers(200, TOLD))
def restore(
    request: Request, connection: ConnectionDep, sort: Sort, domain: Where, code: Code, seen: Version
) -> JSONResponse:
    """Bring an item back into use."""
    return _switch(request, connection, sort, domain, code, seen, in_use=True)


@router.post("/status/item/make-initial", dependencies=[Keeper], responses=answers(200, TOLD))
def make_initial(
    request: Request, connection: ConnectionDep, domain: Code, code: Code, seen: Version
) -> JSONResponse:
    """Make a status the one that new contracts begin with, in the place of the one before."""
    _or_404(reference.make_initial, connection, code, domain, by=user_of(request).name, seen=seen)
    item = set_up_view.one(connection, Sort.STATUS, code, domain)
    return _told(Sort.STATUS, item, domain, "is the initial status now")


def _switch(
    request: Request,
    connection: ConnectionDep,
    sort: Sort,
    domain: str | None,
    code: str,
    seen: str | None,
    *,
    in_use: bool,
) -> JSONResponse:
    of = set_up_view.ABOUT[sort].sort
    _or_404(reference.set_in_use, connection, of, code, in_use, domain, by=user_of(request).name, seen=seen)
    item = set_up_view.one(connection, sort, code, domain)
    return _told(
        sort, item, domain, "is in use" if in_use else "is retired: it stays for history and cannot be chosen"
    )


def _or_404(do: Any, *args: Any, **options: Any) -> Any:
    try:
        return do(*args, **options)
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None


def _told(sort: Sort, item: Item, domain: str | None, what: str, status: int = 200) -> JSONResponse:
    sentence = f"{set_up_view.called(sort, item.id, domain)} {what}."
    shown = set_up_view.shown(sort, item, domain) | {"message": sentence}
    return JSONResponse(jsonable_encoder(shown), status, {"ETag": set_up_view.etag(item)})


def _json(content: Any, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(jsonable_encoder(content), headers=headers)
