"""Both networks at the same time: two streams on CUDA, two threads on a CPU."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def in_turn(function: Callable[..., Any], *arguments: tuple) -> list[Any]:
    """The results of `function` for the teacher's and for the student's arguments."""
    return [function(*each) for each in zip(*arguments, strict=True)]


def concurrently(device: torch.device) -> Callable[..., list[Any]]:
    """The fastest function on `device` that does what `in_turn` does."""
    if device.type == "cuda":
        return _in_streams(torch.cuda.Stream(device))
    threads = torch.get_num_threads()
    return _in_threads(threads // 2) if threads > 1 and device.type == "cpu" else in_turn


def _in_streams(side: torch.cuda.Stream) -> Callable[..., list[Any]]:
    """Small kernels of one network fill the gaps between those of the other."""

    def run(function: Callable[..., Any], *arguments: tuple) -> list[Any]:
        for_teacher, for_student = zip(*arguments, strict=True)
        current = torch.cuda.current_stream(side.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            of_student = function(*for_student)
        of_teacher = function(*for_teacher)
        current.wait_stream(side)
        return [of_teacher, of_student]

    return run


def _in_threads(threads: int) -> Callable[..., list[Any]]:
    """Half of the cores for each network: less waiting than all of them for one after another."""
    pool = ThreadPoolExecutor(2, "network", initializer=_use, initargs=(threads,))
    before = torch.get_num_threads()
    both = threading.Barrier(2)
    list(pool.map(lambda _: both.wait(), range(2)))  # starts both threads
    torch.set_num_threads(before)  # in the other threads: `_use` has changed theirs too

    def run(function: Callable[..., Any], *arguments: tuple) -> list[Any]:
        with_gradients = torch.is_grad_enabled()  # which each thread sets for itself

        def call(*each: Any) -> Any:
            with torch.set_grad_enabled(with_gradients):
                return function(*each)

        return list(pool.map(call, *arguments))

    return run


def _use(threads: int) -> None:
    torch.get_num_threads()  # the first such call in a thread would undo the next line
    torch.set_num_threads(threads)
