"""The pages of contacts: look one up; its fields, origins, subscriptions, contracts, and every record about it.

All of it is personal data. An address has the number of a contact, never its name or its email.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from rowledger import reference
from rowledger.desk import contact_view, contract_view, pages
from rowledger.desk.access import MAX_SEQNO, Needs, Right
from rowledger.desk.context import ConnectionDep
from rowledger.desk.pages import root
from rowledger.desk.problems import Refused

router = APIRouter(prefix="/contacts", dependencies=[Depends(Needs(Right.PERSONAL, contact_view.KIND))])
Text = Annotated[str, Query(max_length=255, pattern=r"^[^\x00]*$")]


@router.get("")
def look_up(request: Request, connection: ConnectionDep, domain: Text = "", key: Text = "") -> Response:
    """Look a contact up by its domain and external id or email."""
    fault = ""
    if key.strip():
        try:
            found = contact_view.find(connection, domain, key)
            return RedirectResponse(f"{root(request)}/contacts/{found}", 303)
        except Refused as refused:
            fault = refused.sentence
    domains = reference.listed(connection, reference.Domain)
    return pages.page(
        request, "contacts.html", 404 if fault else 200, domains=domains, domain=domain, key=key, fault=fault
    )


@router.get("/{contact_id}")
def one_contact(
    request: Request,
    connection: ConnectionDep,
    contact_id: Annotated[int, Path(ge=1, le=MAX_SEQNO)],
    limit: Annotated[int, Query(ge=1, le=contact_view.MOST)] = contact_view.FIRST,
) -> Response:
    """The profile of a contact."""
    profile = contact_view.by_id(connection, contact_id, limit)
    may_read_contracts = Needs(Right.READ, contract_view.KINDS).kinds(request)
    return pages.page(
        request, "contact.html", contact=profile, called=contact_view.name(profile), known=contact_view.known(profile),
        changed=contact_view.changed, limit=limit, most=contact_view.MOST,
        contracts=profile.contracts if may_read_contracts else None,
    )  # fmt: skip
