"""One step of training, as fast as the device allows: the same arithmetic on every path."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.fast.concurrent_networks import in_turn
from models.fast.cuda_graph import Replay, on_side_stream
from models.losses import PairLoss, agreement
from models.teacher_student import TeacherStudent
from utils.console import say

LossFunction = Callable[[Tensor, Tensor, Tensor, tuple[Tensor, ...]], PairLoss]
WARM_UP = 3  # steps of a batch size before its graph is captured; they train like any other


class StepResult(NamedTuple):
    """Statistics of one step's forward passes."""

    means: Tensor  # [4], over the batch: the three losses, and the student's largest probability
    agreement: Tensor  # [B], at the label
    prediction: Tensor  # [B], the class with the largest agreement
    agreements: Tensor  # [B, C], of all classes
    marginals: Tensor  # [2, C], teacher's and student's softmax averaged over the batch


class TrainingStep:
    """Forward passes, losses, backward passes and optimizer for one batch.

    With `compiled`, networks and losses are compiled for full batches, and on CUDA the step of
    each batch size is replayed as one graph. The loss's arguments and the learning rate are inputs,
    so that changing them compiles nothing again. Where compiling is impossible a line says so and
    the training continues without.
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
        self.graphs: dict[tuple[int, int], Replay] = {}  # by numbers of images and labels
        self.warmed_up: Counter[tuple[int, int]] = Counter()
        if compiled and not self.graphed:
            pair.run_both = in_turn  # torch 2.6 crashes where two threads compile
        if compiled:
            networks = (pair.teacher, pair.student)
            self.compiled_networks = [torch.compile(each, dynamic=False) for each in networks]
            self.compiled_loss = torch.compile(self.loss_and_statistics, dynamic=False)

    def __call__(self, images: Tensor, labels: Tensor, *inputs: Tensor) -> StepResult:
        """One update from images [B, channels, H, W] and their given labels [B].

        Images may be [2B, …], the second half strong views. `inputs`: the loss's further ones. The
        result is valid until the next step.
        """
        compute = self.replay if self.graphed else self.compute_gradients
        result = compute(images, labels, *inputs)
        self.optimizer.step()
        return result

    def check_weights(self) -> None:
        """Raises FloatingPointError where a weight is no longer finite."""
        if not torch.stack([weight.isfinite().all() for weight in self.weights]).all():
            raise FloatingPointError("after its last step: there are weights that are not finite")

    def compute_gradients(self, *batch: Tensor) -> StepResult:
        """Leave the gradients of a batch at the weights, by the compiled functions if possible."""
        if self.compiled and len(batch[1]) == self.batch_size:
            try:
                return self.gradients(*batch, networks=self.compiled_networks)
            except RuntimeError as error:
                self.compiled = False
                say_without("compiled networks", error)
        return self.gradients(*batch)

    def gradients(
        self, images: Tensor, *inputs: Tensor, networks: Sequence[nn.Module] | None = None
    ) -> StepResult:
        """Leave the gradients at the weights; `networks`: compiled ones, with the compiled loss."""
        compute_loss = self.compiled_loss if networks else self.loss_and_statistics
        self.optimizer.zero_grad()
        logits = self.pair(images, networks)  # each [B, C], or [2B, C]
        leaves = [each.detach().requires_grad_() for each in logits]
        loss, result = compute_loss(*leaves, *inputs)
        loss.backward()  # to the logits, and from there through each network by itself
        self.pair.backward(logits, [leaf.grad for leaf in leaves])
        return result

    def loss_and_statistics(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, StepResult]:
        """The loss to be minimized, and the statistics of the step; all in float32."""
        loss = self.loss_function(teacher_logits, student_logits, labels, inputs)
        with torch.no_grad():
            teacher_logits, student_logits = (
                each[: len(labels)] for each in (teacher_logits, student_logits)
            )
            teacher_probs, student_probs = teacher_logits.softmax(1), student_logits.softmax(1)
            confidence = student_probs.amax(1).mean()
            agreements = agreement(teacher_logits, student_logits)  # [B, C]
            at_label = agreements.gather(1, labels[:, None]).squeeze(1)
            means = torch.stack([*loss, confidence])
            marginals = torch.stack([teacher_probs.mean(0), student_probs.mean(0)])
            prediction = agreements.argmax(1)
            return loss.total, StepResult(means, at_label, prediction, agreements, marginals)

    def replay(self, *batch: Tensor) -> StepResult:
        """`compute_gradients`, from a graph after a few steps of that batch size."""
        size = len(batch[0]), len(batch[1])
        if size not in self.graphs:
            if self.warmed_up[size] < WARM_UP:
                self.warmed_up[size] += 1
                return on_side_stream(lambda: self.compute_gradients(*batch), self.side)
            try:
                self.graphs[size] = Replay(self.compute_gradients, batch, self.weights)
            except RuntimeError as error:
                self.graphed = False
                say_without("CUDA graphs", error)
                return self.compute_gradients(*batch)
        return self.graphs[size](*batch)


def say_without(what: str, error: RuntimeError) -> None:
    """Say that an optimization is not available, and why."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    say(f"continuing without {what}, which is slower: {reason[0]}")
