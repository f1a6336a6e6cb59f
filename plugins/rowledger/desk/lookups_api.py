"""Contracts and contacts for programs: one at a time, by the keys that files use."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

from rowledger.desk import contact_view, contract_view
from rowledger.desk.access import Needs, Right, kinds_with
from rowledger.desk.context import ConnectionDep
from rowledger.desk.examples import answers
from rowledger.desk.examples_of_data import CONTACT, CONTRACT
from rowledger.desk.problems import Refused

router = APIRouter(tags=["contracts and contacts"])
Kinds = Annotated[list[str], Depends(Needs(Right.READ, contract_view.KINDS))]
Text = Annotated[str, Path(max_length=255, pattern=r"^[^\x00]*$")]
Moment = Annotated[str, Query(max_length=64, pattern=r"^[^\x00]*$")]


@router.get("/contracts/{domain}/{form_id:path}", responses=answers(200, CONTRACT))
def one_contract(
    request: Request,
    kinds: Kinds,
    connection: ConnectionDep,
    domain: Text,
    form_id: Text,
    on: Annotated[Moment, Query(description="which status it had on that day, such as 2026-05-31")] = "",
    known_at: Annotated[Moment, Query(description="what was known then: the end of a day, or a moment")] = "",
) -> JSONResponse:
    """A contract: its current status, and its history in order. With ``on`` or ``known_at`` also ``as_of``: the status then.

    ``not_kept`` is a sentence if nobody knows any more, ``had`` the codes of the statuses before a history of which only
    the end is kept. Its contact is there for who has the right on personal data of contacts.
    """
    found = contract_view.find(connection, domain, form_id)
    shown = contract_view.shown(found, kinds, kinds_with(request, Right.PERSONAL))
    answer = contract_view.as_of(connection, found, on, known_at)
    if answer and answer.faults:
        wrong = [{"field": field, "message": fault} for field, fault in answer.faults.items()]
        raise Refused(422, " ".join(answer.faults.values()), errors=wrong)
    if answer:
        shown["as_of"] = {
            "on": answer.day, "known_at": answer.moment, "status": answer.status, "not_kept": answer.not_kept
        }  # fmt: skip
    return JSONResponse(jsonable_encoder(shown))


@router.get(
    "/contacts/{domain}/{key:path}",
    responses=answers(200, CONTACT),
    dependencies=[Depends(Needs(Right.PERSONAL, contact_view.KIND))],
)
def one_contact(
    request: Request,
    connection: ConnectionDep,
    domain: Text,
    key: Annotated[Text, Path(description="the external id or, if nobody has that, the email")],
    limit: Annotated[
        int, Query(ge=1, le=contact_view.MOST, description="at most so many records, changes and contracts")
    ] = contact_view.FIRST,
) -> JSONResponse:
    """A contact: fields, origins, subscriptions with their history, and the newest records about it; ``totals`` counts all."""
    found = contact_view.by_id(connection, contact_view.find(connection, domain, key), limit).as_dict()
    if not Needs(Right.READ, contract_view.KINDS).kinds(request):
        del found["contracts"]
    return JSONResponse(jsonable_encoder(found))
