"""Learning track: the clean test accuracy of a run's networks.

    python learning.py --dataset cifar10 --noise_type aggre --seed 42

The paper's networks, 300 epochs, one seed: 93.62 / 92.26 / 87.33 % on aggre / rand1 / worst. Reads
a run folder, or any folder with teacher.pth.tar and student.pth.tar, and writes learning.json and
learning.log into it.
"""

from utils.startup import run_script

import argparse
from typing import Any

import torch
from torch import Tensor

from data.datasets import clean_test_loader, load_images
from models.teacher_student import infer
from models.weights import load_pair
from utils.console import logged_to, say
from utils.devices import pick_device, pick_precision
from utils.files import read_json, write_json
from utils.methods import METHODS
from utils.metrics import accuracy, accuracy_per_class, most_confused
from utils.options.evaluation import learning_parser
from utils.run_folder.folder import RunFolder

STATISTIC = (
    "clean test accuracy in percent; nothing is learnt from the test images, and they choose "
    "neither an epoch nor an option"
)
COLUMNS = 100  # of the terminal
ROUNDING = 2.0  # points by which precisions and devices may differ


def explain(predictions: Tensor, labels: Tensor, names: list[str]) -> dict[str, Any]:
    """Print and return where the accuracy comes from; `predictions` and `labels` are [N]."""
    arrays = predictions.cpu().numpy(), labels.cpu().numpy()
    classes, confused = accuracy_per_class(*arrays, names), most_confused(*arrays, names)
    say("last epoch's networks, accuracy in percent by class:")
    longest = max(5, *map(len, names))
    cells = [
        f"  {row['label']:>{longest}} "
        + ("     -" if row["accuracy"] is None else f"{row['accuracy']:6.2f}")
        for row in classes
    ]
    across = max(1, COLUMNS // len(cells[0]))
    across = -(-len(cells) // -(-len(cells) // across))  # rows of about equal length
    for start in range(0, len(cells), across):
        say("".join(cells[start : start + across]))
    for row in confused:
        say(
            f"most confused: {row['true']} -> {row['predicted']}, "
            f"{row['images']} of the {row['of']} images of {row['true']}"
        )
    return {"per_class": classes, "most_confused": confused}


def check_networks(folder: RunFolder, best: bool, epoch: Any, percent: float) -> None:
    """Raise ValueError where networks are not of the epoch that training.json names.

    A line where the last ones' accuracy is another than there.
    """
    ran = read_json(folder.training) if folder.training.exists() else {}
    there = ran.get("best_val_epoch") if best else ran.get("epochs")
    measured = None if best else ran.get("clean_test_accuracy")
    hint = "is one of these files of another run?"
    if isinstance(epoch, int) and there not in (None, epoch + (not best)):
        network = folder.network("teacher", best=best)
        raise ValueError(f"{network}: of epoch {epoch}, unlike {folder.training}; {hint}")
    if measured is not None and abs(percent - measured) > ROUNDING:
        say(
            f"warning: {percent:.2f} % by the networks, {measured:.2f} in {folder.training}; {hint}"
        )


def evaluate(folder: RunFolder, args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the last epoch's networks and those of the best validation; returns the metrics."""
    device = pick_device(args.device)
    bf16 = pick_precision(args.precision, device) == "bf16"
    options = folder.options_like(args, ("dataset", "method"))
    width = options.get("width")
    images = load_images(args.dataset, args.data_dir, options)
    folder.check_data(images.class_names, images.own and images.own.labels_sha256())
    for line in images.own.facts if images.own else ():
        say(line)
    if images.test is None:
        raise ValueError(
            f"{folder}: there are no test images to measure the accuracy on; put some into test/ "
            "beside train/, or give rows of the manifest the split test, and train again"
        )
    meaning = STATISTIC
    if images.own:
        meaning = meaning.replace("clean test accuracy", "test accuracy by the labels given")
    loader = clean_test_loader(images, torch.Generator(device), torch.channels_last)
    hint = "the run is finished but this file is gone; train it again with --restart"
    record: dict[str, Any] = {"test_images": len(loader.labels), "statistic": meaning}
    record |= {"last": None, "best_val": None}
    kind = "test images, whose labels are given ones" if images.own else "clean test images"
    say(f"{folder}: accuracy on {len(loader.labels)} {kind}")
    for statistic, words in (
        ("last", "last epoch's networks (as in the paper)"),
        ("best_val", "networks of the best noisy validation accuracy"),
    ):
        best = statistic == "best_val"
        if best and not folder.network("teacher", best=True).exists():
            continue  # the authors' folders hold the last epoch's networks alone
        pair, epoch = load_pair(
            folder,
            len(images.class_names),
            images.test.images.shape[1],
            alone=not METHODS[args.method].has_student,
            best=best,
            width=width,
            missing_hint=hint if folder.training.exists() else "train it first",
        )
        pair.prepare(device, bf16=bf16, plain=False)
        predictions = infer(pair, loader, len(loader.labels)).argmax(1)
        percent = accuracy(predictions, loader.labels)
        check_networks(folder, best, epoch, percent)
        record[statistic] = {"accuracy": percent, "epoch": epoch}
        say(f"{percent:6.2f} %  {words}, epoch {epoch}")
        if not best:
            last = predictions
    say(f"statistic: {meaning}")
    return record | explain(last, loader.labels, images.class_names)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a run's networks; writes and returns learning.json."""
    folder = RunFolder.of(args)
    folder.options_like(args, ())  # is there such a folder?
    if not METHODS[args.method].has_networks:
        raise ValueError(f"{folder}: --method {args.method} trains no network to measure")
    with logged_to(folder.log("learning")):
        record = evaluate(folder, args)
        write_json(folder.learning, record)
        # The wording is what participants' scripts look for; the value is the last epoch's.
        say(f"Best test acc selected by val is {record['last']['accuracy']:.2f}")
    return record


if __name__ == "__main__":
    run_script(main, learning_parser().parse_args())
