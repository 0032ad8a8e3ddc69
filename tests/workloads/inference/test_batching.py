"""When inputs are put together, and when one goes alone."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.workloads.inference.batching import Batches, gather_of
from baseai.workloads.service import Batching


class Counted:
    """What computes batches, and how large they were."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.takes_s = takes_s
        self.at_once = 0

    async def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        self.at_once += 1
        assert self.at_once == 1, "one batch at a time"
        self.sizes.append(len(items))
        await asyncio.sleep(self.takes_s)
        self.at_once -= 1
        if "bad" in items:
            raise ValueError("bad")
        return [(item, len(items)) for item in items]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def batches(
    compute: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]], most: int, wait_s: float
) -> Batches:
    return Batches(compute, lambda item: item if isinstance(item, int) else 1, most=most, wait_s=wait_s)


def test_a_lone_item_on_an_idle_engine_does_not_wait() -> None:
    async def alone() -> float:
        together = batches(Counted(), most=8, wait_s=5.0)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await together.answer("a")
        await together.answer("b")
        return loop.time() - began_s

    assert run(alone()) < 1.0


def test_what_comes_while_one_is_computed_goes_together() -> None:
    async def busy() -> list[int]:
        compute = Counted(0.05)
        together = batches(compute, most=8, wait_s=0.01)
        first = asyncio.create_task(together.answer("first"))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, *(together.answer(str(number)) for number in range(5)))
        return compute.sizes

    assert run(busy()) == [1, 5]


def test_a_full_batch_does_not_wait() -> None:
    async def full() -> float:
        together = batches(Counted(), most=4, wait_s=5.0)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await asyncio.gather(*(together.answer(str(number)) for number in range(4)))
        return loop.time() - began_s

    assert run(full()) < 1.0


def test_an_item_larger_than_a_batch_is_one_by_itself() -> None:
    async def large() -> list[int]:
        compute = Counted()
        together = batches(compute, most=4, wait_s=0.02)
        await asyncio.gather(together.answer(1), together.answer(9), together.answer(1))
        return compute.sizes

    assert run(large()) == [1, 1, 1]


def test_who_goes_takes_its_item_along() -> None:
    async def gone() -> list[int]:
        compute = Counted(0.05)
        together = batches(compute, most=8, wait_s=0.0)
        first = asyncio.create_task(together.answer("first"))
        await asyncio.sleep(0.01)
        left, stays = (asyncio.create_task(together.answer(name)) for name in ("left", "stays"))
        await asyncio.sleep(0)
        left.cancel()
        assert await stays == ("stays", 1)
        await first
        return compute.sizes

    assert run(gone()) == [1, 1]


def test_the_terms_are_those_of_the_spec() -> None:
    async def three() -> list[Any]:
        together = gather_of(Batching(most=2, wait_ms=20.0))(Counted(), lambda item: 1)
        return await asyncio.gather(*(together(name) for name in "abc"))

    assert run(three()) == [("a", 2), ("b", 2), ("c", 1)]


@settings(max_examples=30, deadline=None)
@given(
    items=st.lists(st.sampled_from(["good", "bad", 2, 3]), min_size=1, max_size=20),
    most=st.integers(2, 6),
    gap_s=st.sampled_from([0.0, 0.0005]),
)
def test_each_item_gets_its_own_answer_or_its_own_error(items: list[Any], most: int, gap_s: float) -> None:
    async def all_of_them() -> tuple[list[Any], list[int]]:
        compute = Counted()
        together = batches(compute, most=most, wait_s=0.001)

        async def later(number: int, item: Any) -> Any:
            await asyncio.sleep(number * gap_s)
            return await together.answer(item)

        tasks = (later(number, item) for number, item in enumerate(items))
        return await asyncio.gather(*tasks, return_exceptions=True), compute.sizes

    answers, sizes = run(all_of_them())
    assert max(sizes) <= most
    for item, answer in zip(items, answers, strict=True):
        if item == "bad":
            assert isinstance(answer, ValueError)
        else:
            assert answer[0] == item


def test_a_wrong_batch_of_one_is_computed_once() -> None:
    async def once() -> list[int]:
        compute = Counted()
        with pytest.raises(ValueError, match="bad"):
            await batches(compute, most=4, wait_s=0.0).answer("bad")
        return compute.sizes

    assert run(once()) == [1]
