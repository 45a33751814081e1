"""Shares a model's time between tenants, and a tenant's between its calls: deficit round robin over seconds.

Tenants take turns; each turn is worth `quantum` seconds times the tenant's weight. What a batch really took
is charged afterwards, so a tenant may fall into debt by one batch at most, the longest it was in, and
repays it by waiting.
After M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", SIGCOMM 1995.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeAlias, TypeVar

TenantT = TypeVar("TenantT", bound=Hashable)
#: What takes turns: a tenant and its call of many requests; None stands for those that came one by one.
Flow: TypeAlias = tuple[str, Hashable]


class FairShare(Generic[TenantT]):
    """Says whose turn it is among the tenants that have work waiting.

    Args:
        quantum: Seconds of the device that one turn is worth.
        weights: Share of a tenant relative to the others, as it is at the time; 1 where one is not named.
    """

    def __init__(self, quantum: float = 0.02, weights: Mapping[TenantT, float] | None = None) -> None:
        self._quantum = quantum
        self._weights: Mapping[TenantT, float] = {} if weights is None else weights
        self._ring: deque[TenantT] = deque()
        self._deficits: dict[TenantT, float] = {}
        self._debts: dict[TenantT, float] = {}  # of tenants that have nothing waiting

    def enter(self, tenant: TenantT) -> None:
        """A tenant has work waiting; it takes its place at the end of the round, with the debt it left."""
        if tenant not in self._deficits:
            self._ring.append(tenant)
            self._deficits[tenant] = self._debts.pop(tenant, 0.0)

    def leave(self, tenant: TenantT) -> None:
        """A tenant has nothing waiting any more. Turns not used are lost, debts are kept."""
        deficit = self._deficits.pop(tenant, 0.0)
        if tenant in self._ring:
            self._ring.remove(tenant)
        if deficit < 0:
            self._debts[tenant] = deficit

    def next_tenant(self) -> TenantT:
        """The tenant to serve now; raises `LookupError` where nobody waits."""
        if not self._ring:
            raise LookupError("nobody waits")
        if len(self._ring) == 1:
            return self._ring[0]
        for _ in range(len(self._ring)):
            if self._deficits[self._ring[0]] > 0:
                return self._ring[0]
            self._ring.rotate(-1)
        # All have used up their turns: as many rounds pass as it takes until one may go on.
        rounds = min(self._rounds_until_positive(tenant) for tenant in self._ring)
        for tenant in self._ring:
            self._deficits[tenant] += rounds * self._turn_of(tenant)
        self._forgive(rounds * self._quantum)
        return self.next_tenant()

    def has_turn(self, tenant: TenantT) -> bool:
        """Whether a tenant that waits has time left of its turn."""
        return self._deficits[tenant] > 0

    def charge(self, used: Mapping[TenantT, float]) -> None:
        """Subtract the seconds that a batch worked for each tenant, if others are waiting meanwhile."""
        batch = sum(used.values())
        for tenant, seconds in used.items():
            if tenant not in self._deficits:
                if self._ring:
                    self._debts[tenant] = _less(self._debts.get(tenant, 0.0), seconds, batch)
            elif len(self._ring) > 1:
                self._deficits[tenant] = _less(self._deficits[tenant], seconds, batch)
            else:
                self._deficits[tenant] = 0.0
                self._forgive(seconds)

    def _forgive(self, seconds: float) -> None:
        """Time that went to others repays what those who wait for nothing owe."""
        if self._debts:
            repaid = {tenant: debt + seconds for tenant, debt in self._debts.items()}
            self._debts = {tenant: debt for tenant, debt in repaid.items() if debt < 0}

    def _turn_of(self, tenant: TenantT) -> float:
        return self._quantum * self._weights.get(tenant, 1.0)

    def _rounds_until_positive(self, tenant: TenantT) -> int:
        return math.floor(-self._deficits[tenant] / self._turn_of(tenant)) + 1


def _less(deficit: float, seconds: float, batch: float) -> float:
    """A deficit after a charge. Who rides in the room of others falls no deeper than by one such batch."""
    return max(deficit - seconds, min(deficit, -batch))


class Turns:
    """Says which flow's turn it is: tenants share the model's time, and the calls of a tenant share its own.

    A call of a thousand requests is one call, as is each request that came by itself: nobody waits for the
    end of another's.

    Args:
        weights: Share of a tenant relative to the others.
        waiting: How many requests of a flow wait.
    """

    def __init__(self, weights: Mapping[str, float], waiting: Callable[[Flow], int]) -> None:
        self._tenants = FairShare(weights=weights)
        self._waiting = waiting
        self._flows: dict[str, set[Hashable]] = {}
        # Of tenants with a call of many in line; what comes one by one needs no turns among itself.
        self._calls: dict[str, FairShare[Hashable]] = {}
        self._weights: dict[str, dict[Hashable, float]] = {}

    def enter(self, flow: Flow) -> None:
        """A flow has work waiting."""
        tenant, call = flow
        if tenant not in self._flows:
            self._flows[tenant] = set()
            self._tenants.enter(tenant)
        self._flows[tenant].add(call)
        if call is not None and tenant not in self._calls:
            weights = self._weights[tenant] = {}
            self._calls[tenant] = FairShare(weights=weights)
            for other in self._flows[tenant]:
                self._calls[tenant].enter(other)
        elif tenant in self._calls:
            self._calls[tenant].enter(call)

    def leave(self, flow: Flow) -> None:
        """A flow has nothing waiting any more."""
        tenant, call = flow
        flows = self._flows[tenant]
        flows.discard(call)
        if not flows:
            del self._flows[tenant]
            self._calls.pop(tenant, None)
            self._weights.pop(tenant, None)
            self._tenants.leave(tenant)
        elif flows == {None}:
            self._calls.pop(tenant, None)
        elif tenant in self._calls:
            self._calls[tenant].leave(call)

    def next_flow(self) -> Flow:
        """The flow to serve now; raises `LookupError` where nobody waits."""
        tenant = self._tenants.next_tenant()
        calls = self._calls.get(tenant)
        if calls is None:
            return tenant, None
        # Each request that came by itself is a call of its own.
        self._weights[tenant][None] = max(1, self._waiting((tenant, None)))
        return tenant, calls.next_tenant()

    def has_turn(self, flow: Flow) -> bool:
        """Whether a flow that waits has time left of its turn."""
        tenant, call = flow
        if len(self._flows) > 1 and not self._tenants.has_turn(tenant):
            return False
        calls = self._calls.get(tenant)
        return calls is None or calls.has_turn(call)

    def charge(self, used: Mapping[Flow, float]) -> None:
        """Subtract the seconds that a batch worked for each flow."""
        tenants: dict[str, float] = {}
        calls: dict[str, dict[Hashable, float]] = {}
        for (tenant, call), seconds in used.items():
            tenants[tenant] = tenants.get(tenant, 0.0) + seconds
            calls.setdefault(tenant, {})[call] = seconds
        self._tenants.charge(tenants)
        for tenant, seconds_of in calls.items():
            if tenant in self._calls:
                self._calls[tenant].charge(seconds_of)
