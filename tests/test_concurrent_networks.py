"""Both networks at the same time, each in a thread of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from models.fast.concurrent_networks import concurrently, in_turn


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@threads(2)
def test_each_network_has_a_thread_and_half_of_the_cores():
    run_both = concurrently(torch.device("cpu"))
    meet = threading.Barrier(2, timeout=60)  # passed only if both run at the same time

    def work(number: int) -> tuple[int, int, bool]:
        meet.wait()
        return number, torch.get_num_threads(), torch.is_grad_enabled()

    assert run_both(work, (4, 5)) == [(4, 1, True), (5, 1, True)]
    with torch.no_grad():
        assert run_both(work, (4, 5)) == [(4, 1, False), (5, 1, False)]
    assert torch.get_num_threads() == 2

    def fail(number: int) -> None:
        raise ValueError(f"network {number}")

    with pytest.raises(ValueError, match="network 4"):
        run_both(fail, (4, 5))


@threads(1)
def test_with_one_thread_the_networks_take_turns():
    assert concurrently(torch.device("cpu")) is in_turn
    assert in_turn(lambda a, b: a + b, (1, 2), (10, 20)) == [11, 22]
