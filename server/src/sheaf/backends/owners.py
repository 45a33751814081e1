"""Whose a request is, for backends that keep something of it: what one caller sent is not another's to use.

The engine names the owner, which no caller can: it is no field of a contract.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from pydantic import PrivateAttr

from sheaf_client.contracts.base import BaseRequest

RequestT = TypeVar("RequestT", bound=BaseRequest)


def owned(request: RequestT, owner: str) -> RequestT:
    """The same request, of which `owner_of` says whose it is; its fields are shared and not checked again."""
    if not owner:
        return request
    kind = _owned(type(request))
    own = kind.model_construct(_fields_set=set(request.model_fields_set), **request.__dict__)
    own._owner = owner  # type: ignore[attr-defined] # noqa: SLF001 # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
    return cast("RequestT", own)


def owner_of(request: BaseRequest) -> str:
    """The tenant that a request came from; empty for anybody, and where all share what is kept."""
    return cast("str", getattr(request, "_owner", ""))


@cache
def _owned(kind: type[BaseRequest]) -> type[BaseRequest]:
    """The contract, with room for an owner."""
    members = {"__module__": __name__, "__doc__": kind.__doc__, "_owner": PrivateAttr(default="")}
    made: Any = type(kind)
    return cast("type[BaseRequest]", made(kind.__name__, (kind,), members))
