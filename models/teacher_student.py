"""Teacher and student as one module, and its inference over a loader."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.compact_net import CompactNet
from models.fast.concurrent_networks import concurrently, in_turn
from models.losses import agreement
from models.preact_resnet import PreActResNet


class UniformStudent(nn.Module):
    """The student of the baseline's single network: it predicts all classes alike."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), self.num_classes, device=images.device)


class TeacherStudent(nn.Module):
    """Two networks that see the same images and share no weights."""

    def __init__(self, teacher: nn.Module, student: nn.Module):
        super().__init__()
        self.teacher = teacher
        self.student = student
        self.low_precision = False
        self.run_both = in_turn

    def prepare(self, device: torch.device, *, bf16: bool, plain: bool) -> "TeacherStudent":
        """Move the pair to `device`, to run there with every optimization, or with none if `plain`.

        `bf16`: convolutions and matrix products in bfloat16, weights and logits in float32.
        """
        self.low_precision = bf16
        if plain:
            return self.to(device)
        # Pays off with few batch sizes, but may choose other algorithms each time.
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        if len(self.trained_networks()) == 2:
            self.run_both = concurrently(device)
        return self.to(device, memory_format=torch.channels_last)

    def forward(
        self, images: Tensor, networks: Sequence[nn.Module] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images [B, channels, H, W] -> teacher's and student's logits, each [B, C], float32.

        `networks`: the two in another, compiled form.
        """

        def logits(network: nn.Module) -> Tensor:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.low_precision):
                return network(images).float()

        return tuple(self.run_both(logits, networks or (self.teacher, self.student)))

    def backward(self, logits: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Add to each weight's gradient; `gradients` are those at the `logits` of `forward`."""

        def back(of_network: Tensor, gradient: Tensor) -> None:
            if of_network.requires_grad:
                torch.autograd.backward(of_network, gradient)

        self.run_both(back, logits, gradients)

    def trained_networks(self) -> dict[str, nn.Module]:
        """The networks that have weights, by name: both, or the baseline's one."""
        return {name: net for name, net in self.named_children() if net.state_dict()}


def build_pair(num_classes: int, width: int = 64, **kind: Any) -> TeacherStudent:
    """A new pair; the teacher's random weights are drawn first. `kind`: see `build_network`."""
    return TeacherStudent(*(build_network(num_classes, width, **kind) for _ in range(2)))


def build_baseline(num_classes: int, width: int = 64, **kind: Any) -> TeacherStudent:
    """One such network alone; its agreement with a uniform student is its own softmax."""
    network = build_network(num_classes, width, **kind)
    return TeacherStudent(network, UniformStudent(num_classes))


def build_network(
    num_classes: int, width: int = 64, *, net: str = "preact18", digits: bool = False
) -> PreActResNet | CompactNet:
    """The paper's network or the compact one, for the 8x8 gray digits with fewer blocks.

    Raises ValueError for another `net`.
    """
    in_channels = 1 if digits else 3
    if net == "compact":
        return CompactNet(num_classes, width, blocks=2 if digits else 3, in_channels=in_channels)
    if net != "preact18":
        raise ValueError(f"net {net!r}: choose 'preact18' or 'compact'")
    return PreActResNet(num_classes, width, blocks=1 if digits else 2, in_channels=in_channels)


Images = Iterable[tuple[Tensor, Tensor, Tensor]]  # batches (images, labels, index)


@torch.no_grad()
def infer_logits(pair: TeacherStudent, loader: Images, count: int) -> tuple[Tensor, Tensor]:
    """Teacher's and student's logits, each [count, C], in data order: eval mode, mode restored.

    `loader` yields (images, labels, index) with each index of 0..count-1 once, in any order; raises
    ValueError if it does not.
    """
    was_training = pair.training
    pair.eval()
    indices, teacher, student = [], [], []
    for images, _, index in loader:
        teacher_logits, student_logits = pair(images)
        indices.append(index)
        teacher.append(teacher_logits)
        student.append(student_logits)
    pair.train(was_training)
    places, order = torch.cat(indices).sort()  # [count]
    if not torch.equal(places, torch.arange(count, device=places.device)):
        raise ValueError(f"the loader gave {len(places)} images, not each of {count} once")
    return torch.cat(teacher)[order], torch.cat(student)[order]


def infer(pair: TeacherStudent, loader: Images, count: int) -> Tensor:
    """The agreement [count, C] of every image in data order; the prediction is its argmax.

    See `infer_logits`.
    """
    return agreement(*infer_logits(pair, loader, count))
