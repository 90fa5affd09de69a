"""Teacher and student as one module, and the one way to ask it about images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.losses import agreement
from models.preact_resnet import PreActResNet, PreResNet18


class NoOpinion(nn.Module):
    """The student of a network that learns alone: all classes are the same to it."""

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

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, channels, H, W] -> teacher's and student's logits, each [B, C]."""
        return self.teacher(images), self.student(images)

    def trained_networks(self) -> dict[str, nn.Module]:
        """The networks that have weights, by name: both, or the baseline's one."""
        return {name: net for name, net in self.named_children() if net.state_dict()}


def build_pair(num_classes: int, width: int = 64, *, digits: bool = False) -> TeacherStudent:
    """A new pair; the teacher draws its random weights first, then the student."""
    return TeacherStudent(
        build_network(num_classes, width, digits=digits),
        build_network(num_classes, width, digits=digits),
    )


def build_baseline(num_classes: int, width: int = 64, *, digits: bool = False) -> TeacherStudent:
    """One such network alone; its agreement with no opinion is its own softmax."""
    return TeacherStudent(build_network(num_classes, width, digits=digits), NoOpinion(num_classes))


def build_network(num_classes: int, width: int = 64, *, digits: bool = False) -> PreActResNet:
    """The paper's network, or for the 8x8 grey digits one with a single block a stage."""
    if digits:
        return PreActResNet(num_classes, width, blocks=1, in_channels=1)
    return PreResNet18(num_classes, width)


@torch.no_grad()
def infer_logits(
    pair: TeacherStudent, loader: Iterable[tuple[Tensor, Tensor, Tensor]], count: int
) -> tuple[Tensor, Tensor]:
    """Teacher's and student's logits, each [count, C], in data order: eval mode, mode restored.

    `loader` yields (images, labels, index) with each index of 0..count-1 once, in any order.
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


def infer(
    pair: TeacherStudent, loader: Iterable[tuple[Tensor, Tensor, Tensor]], count: int
) -> Tensor:
    """The agreement [count, C] of every image in data order; its largest class is the prediction.

    See `infer_logits`.
    """
    return agreement(*infer_logits(pair, loader, count))
