"""Counts what each key has asked for: a rate with a burst, calls at once, and quotas of the day.

State exists for configured keys alone, so strangers cannot make it grow. Each process counts for itself.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sheaf.http.keys import ApiKey
from sheaf_client.errors import RateLimitError

_DAY = 86400


@dataclass(frozen=True)
class Clocks:
    """Seconds of a steady clock, and of the calendar; tests set their own."""

    steady: Callable[[], float] = time.monotonic
    calendar: Callable[[], float] = time.time


class Account:
    """What one key has used. All on one event loop, so without locks, but for the time of models."""

    def __init__(self, key: ApiKey, clocks: Clocks | None = None) -> None:
        self.key = key
        self._clocks = clocks or Clocks()
        per_minute = key.requests_per_minute
        self._rate = None if per_minute is None else per_minute / 60
        self._burst = float(key.burst or max(1, math.ceil((per_minute or 0) / 6)))
        self._tokens = self._burst
        self._filled = self._clocks.steady()
        self._open = 0
        self._today: int = 0
        self._requests = 0
        self._device_seconds = 0.0
        self._booking = threading.RLock()

    def take(self) -> None:
        """Count one request; raises `RateLimitError` with the seconds to wait."""
        self._fill()
        if self._rate is not None and self._tokens < 1:
            raise RateLimitError(
                f"This key may send {self.key.requests_per_minute:g} requests per minute.",
                retry_after=(1 - self._tokens) / self._rate,
            )
        self._check_day(1)
        self._tokens -= 1
        self._requests += 1

    def take_more(self, count: int) -> None:
        """Count the other items of a batch. They may use up minutes to come, but not other days."""
        self._check_day(count)
        self._tokens -= count
        self._requests += count

    def begin(self) -> None:
        """A call begins; raises `RateLimitError` where too many are open."""
        if self.key.concurrent is not None and self._open >= self.key.concurrent:
            text = f"This key may have {self.key.concurrent} calls open at once."
            raise RateLimitError(text, retry_after=1)
        self._open += 1

    def end(self) -> None:
        """A call is over, answered or not."""
        self._open -= 1

    def charge(self, device_seconds: float) -> None:
        """Book time of a model that calls used; models' threads say so."""
        with self._booking:
            self._new_day()
            self._device_seconds += device_seconds

    def headers(self) -> dict[str, str]:
        """What is left, as the IETF's draft has `RateLimit` headers; nothing where nothing is limited."""
        policies: list[str] = []
        left: list[str] = []

        def tell(name: str, quota: float, window: int, rest: float, reset: float) -> None:
            policies.append(f'"{name}";q={math.floor(quota)};w={window}')
            left.append(f'"{name}";r={max(0, math.floor(rest))};t={max(0, math.ceil(reset))}')

        if self._rate is not None:
            self._fill()
            full = (self._burst - self._tokens) / self._rate
            tell("minute", 60 * self._rate, 60, self._tokens, full)
        if self.key.requests_per_day is not None or self.key.device_seconds_per_day is not None:
            self._new_day()
        if (most := self.key.requests_per_day) is not None:
            tell("day", most, _DAY, most - self._requests, self._until_tomorrow())
        if (time_ := self.key.device_seconds_per_day) is not None:
            tell("device", time_, _DAY, time_ - self._device_seconds, self._until_tomorrow())
        return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(left)} if policies else {}

    def _fill(self) -> None:
        if self._rate is not None:
            now = self._clocks.steady()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
            self._filled = now

    def _check_day(self, count: int) -> None:
        self._new_day()
        requests, seconds = self.key.requests_per_day, self.key.device_seconds_per_day
        if requests is not None and self._requests + count > requests:
            text = f"This key may send {requests} requests per day."
            raise RateLimitError(text, retry_after=self._until_tomorrow())
        if seconds is not None and self._device_seconds >= seconds:
            text = f"This key may use {seconds:g} seconds of the models per day."
            raise RateLimitError(text, retry_after=self._until_tomorrow())

    def _new_day(self) -> None:
        today = int(self._clocks.calendar() // _DAY)
        if today != self._today:
            with self._booking:
                self._today, self._requests, self._device_seconds = today, 0, 0.0

    def _until_tomorrow(self) -> float:
        return _DAY - self._clocks.calendar() % _DAY


def open_accounts(keys: tuple[ApiKey, ...], clocks: Clocks | None = None) -> Mapping[str, Account]:
    """An account for each key, by its name."""
    return {key.name: Account(key, clocks) for key in keys}
