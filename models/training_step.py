"""One step of training, as fast as the device allows: the same arithmetic on every path."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.losses import PairLoss, agreement
from models.teacher_student import TeacherStudent

LossFunction = Callable[[Tensor, Tensor, Tensor, Tensor], PairLoss]
WARM_UP = 3  # steps of a batch size before its graph is captured; they train like any other


class Seen(NamedTuple):
    """What the forward passes of one step showed."""

    means: Tensor  # [4], over the batch: the three losses, and the student's largest probability
    agreement: Tensor  # [B], at the label
    prediction: Tensor  # [B], the class with the largest agreement


class TrainingStep:
    """Forward passes, losses, backward passes and optimiser for one batch.

    With `compiled`, networks and losses are compiled for full batches, and on CUDA the step of
    each batch size is replayed as one graph. Labels, their distrust and the learning rate are
    inputs, so that no change of theirs compiles anything again. Where compiling is impossible a
    line says so and the step goes on without.
    """

    def __init__(
        self,
        pair: TeacherStudent,
        optimizer: torch.optim.Optimizer,
        loss_function: LossFunction,
        batch_size: int,
        *,
        compiled: bool = False,
    ):
        """`pair`: prepared for its device; `batch_size`: of all batches but the last."""
        self.pair, self.optimizer, self.loss_function = pair, optimizer, loss_function
        self.weights = [*pair.parameters()]
        self.batch_size, self.compiled = batch_size, compiled
        self.graphed = compiled and self.weights[0].is_cuda
        self.side = torch.cuda.Stream() if self.graphed else None
        self.graphs: dict[int, Replay] = {}  # by batch size
        self.warmed_up: Counter[int] = Counter()
        if compiled:
            networks = (pair.teacher, pair.student)
            self.fast_networks = [torch.compile(each, dynamic=False) for each in networks]
            self.fast_judge = torch.compile(self.judge, dynamic=False)

    def __call__(self, images: Tensor, labels: Tensor, alpha: Tensor) -> Seen:
        """Learn from images [B, channels, H, W], labels [B] and their distrust `alpha` [B].

        What is returned holds until the next step.
        """
        learn = self.replay if self.graphed else self.learn
        seen = learn(images, labels, alpha)
        self.optimizer.step()
        return seen

    def check_weights(self) -> None:
        """Raises FloatingPointError where a weight is no longer finite."""
        if not torch.stack([weight.isfinite().all() for weight in self.weights]).all():
            raise FloatingPointError("after its last step: there are weights that are not finite")

    def learn(self, images: Tensor, labels: Tensor, alpha: Tensor) -> Seen:
        """Leave the gradients of a batch at the weights."""
        batch = (images, labels, alpha)
        if self.compiled and len(labels) == self.batch_size:
            try:
                return self.gradients(*batch, self.fast_networks, self.fast_judge)
            except RuntimeError as error:
                self.compiled = False
                say_without("compiled networks", error)
        return self.gradients(*batch, None, self.judge)

    def gradients(
        self,
        images: Tensor,
        labels: Tensor,
        alpha: Tensor,
        networks: Sequence[nn.Module] | None,
        judge: Callable[..., tuple[Tensor, Seen]],
    ) -> Seen:
        """The same, through these forms of the networks and of `judge`."""
        self.optimizer.zero_grad()
        logits = self.pair(images, networks)  # each [B, C]
        leaves = [each.detach().requires_grad_() for each in logits]
        loss, seen = judge(*leaves, labels, alpha)
        loss.backward()  # to the logits, and from there through each network by itself
        self.pair.backward(logits, [leaf.grad for leaf in leaves])
        return seen

    def judge(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor, alpha: Tensor
    ) -> tuple[Tensor, Seen]:
        """The loss to be minimised, and what is to be seen; all in float32."""
        loss = self.loss_function(teacher_logits, student_logits, labels, alpha)
        with torch.no_grad():
            confidence = student_logits.softmax(1).amax(1).mean()
            agreements = agreement(teacher_logits, student_logits)  # [B, C]
            at_label = agreements.gather(1, labels[:, None]).squeeze(1)
            means = torch.stack([*loss, confidence])
            return loss.total, Seen(means, at_label, agreements.argmax(1))

    def replay(self, images: Tensor, labels: Tensor, alpha: Tensor) -> Seen:
        """What `learn` does, from a graph once that batch size has been seen a few times."""
        batch, size = (images, labels, alpha), len(labels)
        if size not in self.graphs:
            if self.warmed_up[size] < WARM_UP:
                self.warmed_up[size] += 1
                return aside(lambda: self.learn(*batch), self.side)
            try:
                self.graphs[size] = Replay(self.learn, batch, self.weights)
            except RuntimeError as error:
                self.graphed = False
                say_without("CUDA graphs", error)
                return self.learn(*batch)
        return self.graphs[size](*batch)


class Replay:
    """A step that has been recorded, for any batch of that size."""

    def __init__(
        self,
        learn: Callable[[Tensor, Tensor, Tensor], Seen],
        batch: Sequence[Tensor],
        weights: Sequence[Tensor],
    ):
        self.batch, self.weights = [each.clone() for each in batch], weights
        self.start, self.seen = capture(lambda: learn(*self.batch))
        # Each graph writes to gradients of its own, which the optimiser must be shown.
        self.gradients = [weight.grad for weight in weights]

    def __call__(self, *batch: Tensor) -> Seen:
        for own, new in zip(self.batch, batch, strict=True):
            own.copy_(new)
        self.start()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        return self.seen


def capture(work: Callable[[], Seen]) -> tuple[Callable[[], None], Seen]:
    """What does the recorded work again, and where its results will stand. Runs nothing yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph.replay, results


def aside(work: Callable[[], Seen], side: torch.cuda.Stream) -> Seen:
    """Do it in another stream, as is asked for before a capture."""
    current = torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        results = work()
    current.wait_stream(side)
    return results


def say_without(what: str, error: RuntimeError) -> None:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    print(f"going on without {what}, which is slower: {reason[0]}", flush=True)
