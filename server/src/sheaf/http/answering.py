"""Answers to calls of models: written as their outcomes come, by who has them, on a thread where large."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio.to_thread

from sheaf.engine.delivery import Outcome, unwrap
from sheaf.engine.pending import PendingRequest
from sheaf.http.bodies import OFFLOAD
from sheaf.http.connections import while_connected
from sheaf.http.encodings import MIN_COMPRESSED, compressed, encode_response
from sheaf.http.exchange import Exchange
from sheaf.http.memory import Memory
from sheaf.http.writing import size_of
from sheaf_client.contracts.base import BaseResponse


class Answering(Awaitable[None]):
    """A call that was put to its model. Awaited by a task, it answers once there is an outcome."""

    __slots__ = ("_asked", "_exchange", "_memory")

    def __init__(self, exchange: Exchange, asked: PendingRequest, memory: Memory) -> None:
        self._exchange, self._memory = exchange, memory
        self._asked: PendingRequest | None = asked

    def outcome(self) -> Outcome | None:
        """What came by now, to `answer` with."""
        return None if self._asked is None else self._asked.outcome

    def call_back(self, tell: Callable[[], None] | None, within: float) -> bool:
        """`PendingRequest.call_back`."""
        return self._asked is not None and self._asked.call_back(tell, within)

    def cancel(self) -> None:
        """The caller goes away before there is an outcome."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()

    def answer(self, outcome: Outcome) -> Awaitable[None] | None:
        """Answer with the outcome that came; an error is raised. What has to wait is given back."""
        self._asked = None  # it holds the request and its answer: nobody else has it while the client reads
        return self._answer(unwrap(outcome))

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait_and_answer().__await__()

    async def _wait_and_answer(self) -> None:
        asked, self._asked = self._asked, None
        assert asked is not None  # noqa: S101 - answered once
        answering = asked.answer()
        del asked
        rest = self._answer(await while_connected(self._exchange.receive, answering))
        if rest is not None:
            await rest

    def _answer(self, answer: BaseResponse) -> Awaitable[None] | None:
        if (size := size_of(answer)) > OFFLOAD:
            return self._write_and_answer([answer], size)
        return self._send(*encode_response(answer, self._exchange.header(b"accept"), short=True))

    async def _write_and_answer(self, answers: list[BaseResponse], size: int) -> None:
        accept, share = self._exchange.header(b"accept"), self._exchange.share
        # Nobody else has the answer, which is let go of once it is written.
        written = await self._memory.run(lambda: encode_response(answers.pop(), accept), size, share)
        rest = self._send(*written)
        if rest is not None:
            await rest

    def _send(self, content: bytes, media: bytes) -> Awaitable[None] | None:
        exchange = self._exchange
        if len(content) >= MIN_COMPRESSED:
            return answer_compressed(exchange, content, media)
        return None if exchange.answer_now(content, media) else exchange.answer(content, media)


async def answer_compressed(exchange: Exchange, content: bytes, media: bytes) -> None:
    """Send an encoded answer, compressed on a worker thread where it is large and the caller takes that."""
    if len(content) >= MIN_COMPRESSED:
        share = exchange.share
        assert share is not None  # noqa: S101 - every call has one
        share.hold(len(content))  # what it was made of is gone
        accepted = exchange.header(b"accept-encoding")
        packed = await anyio.to_thread.run_sync(compressed, content, accepted)
        if packed is not None:
            del content
            share.hold(len(packed))
            await exchange.answer(packed, media, b"zstd")
            return
    await exchange.answer(content, media)
