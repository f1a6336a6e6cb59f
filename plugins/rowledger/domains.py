"""Which domain a code means.

In: a code that a person named. Out: the domain's id, or a sentence that lists the domains there are.
"""

from __future__ import annotations

from rowledger.db import Cursor, queries, rows
from rowledger.errors import UnknownCode

_SQL = queries("domains")


def id_of(cursor: Cursor, code: str | None, *, in_use: bool = False) -> int:
    """The id of the domain of that code; a retired one is known, but is not ``in_use``. Raises UnknownCode, which lists those it may be."""
    domains = {one["code"]: one for one in rows(cursor, _SQL["all"])}
    found = domains.get(code)
    if found and not (in_use and found["retired"]):
        return int(found["domain_id"])
    fault = f'Domain "{code}" is retired and cannot be chosen.' if found else f'There is no domain "{code}".'
    known = [name for name, one in domains.items() if not (in_use and one["retired"])]
    raise UnknownCode(f"{fault} Domains are: {', '.join(known) or 'none yet; create one first'}.")
