"""The pages of contracts: look one up, its status and phase, its history, which status it had when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from rowledger import contracts, reference
from rowledger.contracts import Contract
from rowledger.desk import contract_view, pages
from rowledger.desk.access import MAX_SEQNO, Needs, Right, kinds_with
from rowledger.desk.context import ConnectionDep
from rowledger.desk.problems import Refused
from rowledger.errors import UnknownCode

router = APIRouter(prefix="/contracts")
Kinds = Annotated[list[str], Depends(Needs(Right.READ, contract_view.KINDS))]
Text = Annotated[str, Query(max_length=255, pattern=r"^[^\x00]*$")]


@router.get("")
def look_up(
    request: Request, kinds: Kinds, connection: ConnectionDep, domain: Text = "", form_id: Text = ""
) -> Response:
    """Look a contract up by its domain and form id."""
    found, fault = None, ""
    if form_id.strip():
        try:
            found = contract_view.find(connection, domain, form_id)
        except Refused as refused:
            fault = refused.sentence
    return _page(request, kinds, connection, found, domain=domain, form_id=form_id, fault=fault)


@router.get("/{contract_id}")
def one_contract(
    request: Request,
    kinds: Kinds,
    connection: ConnectionDep,
    contract_id: Annotated[int, Path(ge=1, le=MAX_SEQNO)],
    on: Text = "",
    known_at: Text = "",
) -> Response:
    """One contract, and the answer to which status it had on a day, as it was known at a moment."""
    try:
        found = contracts.profile_by_id(connection, contract_id)
    except UnknownCode as unknown:
        raise Refused(404, str(unknown)) from None
    return _page(request, kinds, connection, found, on=on, known_at=known_at)


def _page(
    request: Request, kinds: list[str], connection: ConnectionDep, found: Contract | None, *,
    domain: str = "", form_id: str = "", fault: str = "", on: str = "", known_at: str = "",
) -> Response:  # fmt: skip
    personal = kinds_with(request, Right.PERSONAL)
    answer = contract_view.as_of(connection, found, on, known_at) if found else None
    status = 404 if fault else 422 if answer and answer.faults else 200
    return pages.page(
        request, "contract.html", status,
        domains=reference.listed(connection, reference.Domain),
        domain=found.domain if found else domain, form_id=found.form_id if found else form_id, fault=fault,
        contract=contract_view.shown(found, kinds, personal) if found else None,
        spans=contract_view.spans(found.history, datetime.now(UTC).date()) if found else [],
        answer=answer, readable=kinds, personal=personal,
    )  # fmt: skip
