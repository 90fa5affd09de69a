"""Saved networks: one file for each, in the authors' format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from models.compact_net import CompactNet
from models.preact_resnet import PreActResNet
from models.teacher_student import TeacherStudent, UniformStudent
from utils.files import read_tensors, write_tensors

Network = PreActResNet | CompactNet
PARALLEL = "module."  # before each key of a network saved by torch.nn.DataParallel


class Folder(Protocol):
    """A run's folder, which knows the path of each network."""

    def network(self, name: str, *, best: bool = False) -> Path: ...


def save_networks(pair: TeacherStudent, folder: Folder, epoch: int, *, best: bool = False) -> None:
    """Write each trained network to a file of its own; raises OSError naming it.

    `best`: as those of the best noisy validation accuracy, not of the last epoch.
    """
    for name, network in pair.trained_networks().items():
        content = {"state_dict": network.state_dict(), "epoch": epoch}
        write_tensors(folder.network(name, best=best), content)


def load_pair(
    folder: Folder,
    num_classes: int,
    in_channels: int,
    *,
    alone: bool,
    best: bool = False,
    **more: Any,
) -> tuple[TeacherStudent, Any]:
    """The networks saved in a run folder, and the epoch they are from.

    `alone`: the baseline's single network. Otherwise as `load_network`.
    """

    def load(name: str) -> tuple[Network, Any]:
        return load_network(folder.network(name, best=best), num_classes, in_channels, **more)

    teacher, epoch = load("teacher")
    if alone:
        return TeacherStudent(teacher, UniformStudent(num_classes)), epoch
    student, other = load("student")
    if other != epoch:
        raise ValueError(
            f"{folder.network('student', best=best)}: of epoch {other}, the teacher beside it of "
            f"epoch {epoch}; they are not of one run"
        )
    return TeacherStudent(teacher, student), epoch


def load_network(
    path: Path,
    num_classes: int,
    in_channels: int,
    *,
    width: int | None = None,
    missing_hint: str = "train it first",
) -> tuple[Network, Any]:
    """A saved network for such images, and the epoch it is from; of any width where None.

    Raises FileNotFoundError, with `missing_hint`, or ValueError, both naming the file.
    """
    hint = "train the run again with --restart" if path.exists() else missing_hint
    checkpoint = read_tensors(path, "network", hint)
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"{path}: has no 'state_dict'; not a network of this project's format")
    try:
        network = network_from_state(checkpoint["state_dict"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    classes, own_width, _, channels = _sizes_from(network.state_dict(), type(network))
    found, needed = (channels, classes, own_width), (in_channels, num_classes, width or own_width)
    for what, there, here in zip(("channels", "classes", "--width"), found, needed, strict=True):
        if there != here:
            raise ValueError(f"{path}: has {what} {there}, the data set and the run have {here}")
    return network, checkpoint.get("epoch")


def network_from_state(state: Mapping[str, Tensor]) -> Network:
    """The network with this state dict; which one and its sizes follow from the tensors.

    Keys may begin with "module.", as torch.nn.DataParallel writes them. Raises ValueError when it
    is the state of something else.
    """
    kind = PreActResNet
    try:
        if all(key.startswith(PARALLEL) for key in state):
            state = {key.removeprefix(PARALLEL): value for key, value in state.items()}
        kind = CompactNet if "whitening.weight" in state else PreActResNet
        found = _sizes_from(state, kind)
        if 0 in found:
            raise ValueError("classes, width, blocks, channels: {}, {}, {}, {}".format(*found))
        network = kind(*found)
        network.load_state_dict(state)
        broken = [key for key, value in network.state_dict().items() if not value.isfinite().all()]
        if broken:
            raise ValueError(f"{broken[0]} has numbers that are not finite")
    except (KeyError, RuntimeError, AttributeError, IndexError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"not the weights of a {kind.__name__} ({reason})") from error
    return network


def _sizes_from(state: Mapping[str, Tensor], kind: type[Network]) -> tuple[int, int, int, int]:
    """Classes, width, blocks and image channels of the network with these tensors."""
    images, first, last, blocks = (
        ("whitening", "blocks.0.conv1", "head", "blocks.")
        if kind is CompactNet
        else ("conv1", "conv1", "linear", "layer1.")
    )
    numbers = {key.split(".")[1] for key in state if key.startswith(blocks)}
    width, channels = len(state[f"{first}.weight"]), state[f"{images}.weight"].shape[1]
    return len(state[f"{last}.weight"]), width, len(numbers), channels
