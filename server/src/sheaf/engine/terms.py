"""On what terms a request is answered: as callers give them, and as the engine holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from sheaf.scheduling.queue import Bill


class CallOptions(TypedDict, total=False):
    """What callers may say of a request besides the request itself; `ModelRuntime` tells what each is."""

    timeout: float | None
    priority: int
    tenant: str
    bill: Bill | None


@dataclass(slots=True, eq=False)
class CallTerms:
    """On what terms a request is answered: its seconds, its urgency, who asks and who pays, in what call."""

    timeout: float | None = None
    priority: int = 0
    tenant: str = ""
    bill: Bill | None = None
    call: object = None
