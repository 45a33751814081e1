"""Work that takes turns: small before large, few of a caller's before many, and nobody for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from sheaf.http import turns
from sheaf.http.turns import Turns


async def served(line: Turns, *asked: tuple[str, int, Hashable]) -> list[str]:
    """The names of who had a turn, in that order; all came while another was at work."""
    order: list[str] = []

    async def work(name: str, size: int, caller: Hashable) -> None:
        async with line.turn(size, caller):
            order.append(name)

    async with line.turn(1, "at work"):
        tasks = [asyncio.create_task(work(*each)) for each in asked]
        await asyncio.sleep(0)
        assert line.waiting
    await asyncio.gather(*tasks)
    assert not line.waiting
    return order


def test_small_work_is_not_kept_waiting_by_large() -> None:
    large = [(f"large {i}", 1_000_000, "ann") for i in range(50)]
    order = asyncio.run(served(Turns(), *large, ("small", 10_000, "bob"), ("small too", 1000, "ann")))
    assert order == ["small", "small too", *(name for name, _, _ in large)]


def test_who_has_one_in_line_goes_before_another_s_second() -> None:
    many = [(f"ann {i}", 1_000_000, "ann") for i in range(5)]
    order = asyncio.run(served(Turns(), *many, ("bob", 1_000_000, "bob")))
    assert order == ["ann 0", "bob", "ann 1", "ann 2", "ann 3", "ann 4"]


def test_nobody_waits_for_ever() -> None:
    async def run() -> list[str]:
        line, order = Turns(), list[str]()

        async def work(name: str, size: int) -> None:
            async with line.turn(size, name):
                order.append(name)

        async with line.turn(1, "at work"):
            huge = asyncio.create_task(work("huge", 10**12))
            await asyncio.sleep(0)
            # As if it had come so much earlier as the largest counts.
            ahead, number, turn = line._line.pop()
            line._line.append((ahead - turns._LARGEST / turns._SECOND, number, turn))
            small = asyncio.create_task(work("small", 1))
            await asyncio.sleep(0)
        await asyncio.gather(huge, small)
        return order

    assert asyncio.run(run()) == ["huge", "small"]


def test_who_leaves_the_line_holds_nobody_up() -> None:
    async def run() -> None:
        line = Turns(2)

        async def work() -> str:
            async with line.turn(1, None):
                return "done"

        async with line.turn(1, None), line.turn(1, None):
            leaves, stays = asyncio.create_task(work()), asyncio.create_task(work())
            await asyncio.sleep(0)
            leaves.cancel()
            await asyncio.sleep(0)
            late = asyncio.create_task(work())
            await asyncio.sleep(0)
        late.cancel()  # its turn has come, and it has not begun
        assert await asyncio.wait_for(stays, 10) == "done"
        async with asyncio.timeout(10), line.turn(1, None), line.turn(1, None):
            assert not line.waiting
        assert not line._of

    asyncio.run(run())
