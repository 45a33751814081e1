"""Who sends a request, and what they may ask for: the bearer of a key, or anybody where there are no keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sheaf.http.quotas import Account
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError

#: Bounds of `X-Sheaf-Priority`.
LOWEST, HIGHEST = -10, 10


@dataclass(frozen=True)
class Caller:
    """Who sends a request: the bearer of a key, or anybody where there are no keys."""

    max_priority: int = 0
    account: Account | None = None

    @cached_property
    def tenant(self) -> str:
        """The name of the key; empty for anybody."""
        return self.account.key.name if self.account else ""

    @property
    def confined(self) -> bool:
        """Whether the key is for some models alone."""
        return self.account is not None and self.account.key.models is not None

    def may_call(self, model: str) -> bool:
        """Whether the key allows that model."""
        return self.account is None or self.account.key.models is None or model in self.account.key.models

    def priority(self, given: str) -> int:
        """The urgency that `X-Sheaf-Priority` asks for, if anything, lowered to what is allowed."""
        if not given:
            return min(0, self.max_priority)
        digits = given.removeprefix("-")
        asked = int(given) if digits.isascii() and digits.isdigit() and len(digits) < 4 else HIGHEST + 1
        if not LOWEST <= asked <= HIGHEST:
            text = f"X-Sheaf-Priority must be a whole number from {LOWEST} to {HIGHEST}."
            fault = Fault(code="out_of_range", path="", message=text)
            raise InvalidRequestError("The priority header is invalid.", errors=[fault])
        return min(asked, self.max_priority)

    @cached_property
    def bill(self) -> Callable[[float], None] | None:
        """Takes the seconds of models that the caller's requests use, where these are limited."""
        account = self.account
        return account.charge if account and account.key.device_seconds_per_day is not None else None

    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """What the caller may still ask for, for the answer's head."""
        left = self.account.headers() if self.account else {}
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in left.items()]
