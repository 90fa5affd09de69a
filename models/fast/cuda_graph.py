"""CUDA graphs: a training step recorded once and replayed for every batch of its size."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Replay:
    """A recorded step, for any batch of the size it was recorded with."""

    def __init__(
        self,
        work: Callable[..., Any],
        batch: Sequence[Tensor],
        weights: Sequence[Tensor],
    ):
        """`work` leaves gradients at the `weights`; it must have run before, see `on_side_stream`.

        Raises RuntimeError where it cannot be captured.
        """
        self.batch, self.weights = [each.clone() for each in batch], weights
        self.start, self.result = capture(lambda: work(*self.batch))
        # Each graph writes to gradients of its own, which the optimizer must be given.
        self.gradients = [weight.grad for weight in weights]

    def __call__(self, *batch: Tensor) -> Any:
        """The result for this batch, valid until the next call."""
        for own, new in zip(self.batch, batch, strict=True):
            own.copy_(new)
        self.start()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        return self.result


def capture(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """A function that replays the work, and the tensors it writes to. Runs nothing yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph.replay, results


def on_side_stream(work: Callable[[], Any], side: torch.cuda.Stream) -> Any:
    """Run it in another stream, as torch requires for the warm-up before a capture."""
    current = torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        results = work()
    current.wait_stream(side)
    return results
