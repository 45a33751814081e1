"""Shares a model's time between tenants: deficit round robin over the seconds that the device worked.

Tenants take turns; each turn is worth `quantum` seconds times the tenant's weight. What a batch really took
is charged afterwards, so a tenant may fall into debt by one batch at most, the longest it was in, and
repays it by waiting.
After M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", SIGCOMM 1995.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping


class FairShare:
    """Says whose turn it is among the tenants that have work waiting.

    Args:
        quantum: Seconds of the device that one turn is worth.
        weights: Share of a tenant relative to the others; 1 where a tenant is not named.
    """

    def __init__(self, quantum: float = 0.02, weights: Mapping[str, float] | None = None) -> None:
        self._quantum = quantum
        self._weights = weights or {}
        self._ring: deque[str] = deque()
        self._deficits: dict[str, float] = {}
        self._debts: dict[str, float] = {}  # of tenants that have nothing waiting

    def enter(self, tenant: str) -> None:
        """A tenant has work waiting; it takes its place at the end of the round, with the debt it left."""
        if tenant not in self._deficits:
            self._ring.append(tenant)
            self._deficits[tenant] = self._debts.pop(tenant, 0.0)

    def leave(self, tenant: str) -> None:
        """A tenant has nothing waiting any more. Turns not used are lost, debts are kept."""
        deficit = self._deficits.pop(tenant, 0.0)
        if tenant in self._ring:
            self._ring.remove(tenant)
        if deficit < 0:
            self._debts[tenant] = deficit

    def turn(self) -> str:
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
        return self.turn()

    def has_turn(self, tenant: str) -> bool:
        """Whether a tenant that waits has time left of its turn."""
        return self._deficits[tenant] > 0

    def charge(self, used: Mapping[str, float]) -> None:
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

    def _turn_of(self, tenant: str) -> float:
        return self._quantum * self._weights.get(tenant, 1.0)

    def _rounds_until_positive(self, tenant: str) -> int:
        return math.floor(-self._deficits[tenant] / self._turn_of(tenant)) + 1


def _less(deficit: float, seconds: float, batch: float) -> float:
    """A deficit after a charge. Who rides in the room of others falls no deeper than by one such batch."""
    return max(deficit - seconds, min(deficit, -batch))
