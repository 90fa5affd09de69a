"""Both networks at the same time: two streams on CUDA, two threads on a CPU."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def one_by_one(function: Callable[..., Any], *arguments: tuple) -> list[Any]:
    """What `function` returns for the teacher's and for the student's arguments, in turn."""
    return [function(*each) for each in zip(*arguments, strict=True)]


def side_by_side(device: torch.device) -> Callable[..., list[Any]]:
    """The fastest way there is on `device` to do what `one_by_one` does."""
    if device.type == "cuda":
        return _in_streams(torch.cuda.Stream(device))
    threads = torch.get_num_threads()
    return _in_threads(threads // 2) if threads > 1 else one_by_one


def _in_streams(side: torch.cuda.Stream) -> Callable[..., list[Any]]:
    """Small kernels of one network fill the gaps that those of the other leave."""

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
    """Half of the processor for each network: fewer waits than all of it for one after another."""
    pool = ThreadPoolExecutor(2, "network", initializer=_use, initargs=(threads,))
    before = torch.get_num_threads()
    both = threading.Barrier(2)
    list(pool.map(lambda _: both.wait(), range(2)))  # starts both threads
    torch.set_num_threads(before)  # of the other threads, which `_use` has changed too

    def run(function: Callable[..., Any], *arguments: tuple) -> list[Any]:
        learning = torch.is_grad_enabled()  # each thread has its own such switch

        def call(*each: Any) -> Any:
            with torch.set_grad_enabled(learning):
                return function(*each)

        return list(pool.map(call, *arguments))

    return run


def _use(threads: int) -> None:
    torch.get_num_threads()  # the first such question of a thread would undo the next line
    torch.set_num_threads(threads)
