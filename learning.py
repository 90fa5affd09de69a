"""Learning track: the clean test accuracy of a run's networks.

    python learning.py --dataset cifar10 --noise_type aggre --seed 42

Reads a run folder, or any folder with teacher.pth.tar and student.pth.tar; writes learning.json.
"""

import argparse
from pathlib import Path
from typing import Any

from utils.options import learning_parser, parse_options, run_script

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    options = parse_options(learning_parser())

import torch
from torch import Tensor

from data.datasets import ImageSet, clean_test_loader, load_images
from models.preact_resnet import PreActResNet, network_from_state
from models.teacher_student import NoOpinion, TeacherStudent, infer
from utils import runs
from utils.devices import pick_device, pick_precision
from utils.files import read_tensors, write_json
from utils.metrics import accuracy, accuracy_per_class, most_confused


def load_network(path: Path, images: ImageSet, width: int | None) -> tuple[PreActResNet, Any]:
    """A saved network for these images, and the epoch it is from; of any width where None.

    Raises FileNotFoundError or ValueError naming the file.
    """
    checkpoint = read_tensors(path, "network", "train it first")
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"{path}: has no 'state_dict'; not a network of this project's format")
    try:
        network = network_from_state(checkpoint["state_dict"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    has = network.conv1.in_channels, network.linear.out_features, network.conv1.out_channels
    wanted = images.test.images.shape[1], len(images.class_names), width or has[2]
    for what, there, here in zip(("channels", "classes", "--width"), has, wanted, strict=True):
        if there != here:
            raise ValueError(f"{path}: has {what} {there}, the data set and the run have {here}")
    return network, checkpoint.get("epoch")


def load_pair(
    folder: Path, prefix: str, alone: bool, images: ImageSet, width: int | None
) -> tuple[TeacherStudent, Any]:
    """The networks saved in a run folder under that prefix, and the epoch they are from.

    `alone`: the baseline's single network.
    """
    teacher, epoch = load_network(folder / f"{prefix}teacher.pth.tar", images, width)
    if alone:
        return TeacherStudent(teacher, NoOpinion(len(images.class_names))), epoch
    student, epoch = load_network(folder / f"{prefix}student.pth.tar", images, width)
    return TeacherStudent(teacher, student), epoch


STATISTIC = (
    "clean test accuracy in percent; nothing is learnt from the test images, and they choose "
    "neither an epoch nor an option"
)


def explain(predictions: Tensor, labels: Tensor, names: list[str]) -> dict[str, Any]:
    """Print and return where the accuracy comes from; `predictions` and `labels` are [N]."""
    arrays = predictions.cpu().numpy(), labels.cpu().numpy()
    classes, confused = accuracy_per_class(*arrays, names), most_confused(*arrays, names)
    print("last epoch's networks, accuracy in percent by true class:")
    longest = max(5, *map(len, names))
    cells = [
        f"  {row['label']:>{longest}} "
        + ("     -" if row["accuracy"] is None else f"{row['accuracy']:6.2f}")
        for row in classes
    ]
    across = max(1, 100 // len(cells[0]))
    across = -(-len(cells) // -(-len(cells) // across))  # rows of about equal length
    for start in range(0, len(cells), across):
        print("".join(cells[start : start + across]))
    for row in confused:
        print(
            f"most confused: {row['true']} -> {row['predicted']}, "
            f"{row['images']} of the {row['of']} images of {row['true']}"
        )
    return {"per_class": classes, "most_confused": confused}


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the networks of the last and of the best-validation epoch; returns learning.json."""
    folder = runs.run_folder(args)
    device = pick_device(args.device)
    width = runs.read_options(folder, args, ("dataset", "method")).get("width")
    images = load_images(args.dataset, args.data_dir)
    bf16 = pick_precision(args.precision, device) == "bf16"
    loader = clean_test_loader(images, torch.Generator(device), torch.channels_last)
    alone = args.method == "ce"
    record: dict[str, Any] = {"test_images": len(loader.labels), "statistic": STATISTIC}
    record |= {"last": None, "best_val": None}
    print(f"{folder}: accuracy on {len(loader.labels)} clean test images")
    for statistic, prefix, words in (
        ("last", "", "last epoch's networks (the paper's figure)"),
        ("best_val", "best_", "networks of the best noisy validation accuracy"),
    ):
        if prefix and not (folder / f"{prefix}teacher.pth.tar").exists():
            continue  # the authors' folders hold the last epoch's networks alone
        pair, epoch = load_pair(folder, prefix, alone, images, width)
        pair.prepare(device, bf16=bf16, plain=False)
        predictions = infer(pair, loader, len(loader.labels)).argmax(1)
        figure = accuracy(predictions, loader.labels)
        record[statistic] = {"accuracy": figure, "epoch": epoch}
        print(f"{figure:6.2f} %  {words}, epoch {epoch}")
        if statistic == "last":
            last = predictions
    print(f"statistic: {STATISTIC}")
    record |= explain(last, loader.labels, images.class_names)
    write_json(folder / "learning.json", record)
    # The wording is what participants' scripts look for; the figure is the last epoch's.
    print(f"Best test acc selected by val is {record['last']['accuracy']:.2f}")
    return record


if __name__ == "__main__":
    run_script(main, options)
