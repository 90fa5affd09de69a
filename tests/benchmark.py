"""Loader, training step and scoring on this machine, against a straightforward version.

    python -m tests.benchmark            minutes; full-size networks, or --net compact
    python -m tests.benchmark --quick    under a minute on two CPU cores; narrow networks

On made-up images of CIFAR-10's size; prints median, lowest and highest over rounds.
"""

from utils.startup import run_script

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.benchmark import Timer
from torch.utils.data import DataLoader
from torchvision import transforms

from data.cifar import CIFAR
from data.datasets import make_loaders
from data.images import ImageSet, Split
from data.splits import choose_positions
from models.build import make_training
from models.fast.training_step import WARM_UP
from models.losses import agreement, pair_loss, robust_targets
from models.teacher_student import TeacherStudent, build_pair, infer_logits
from utils.cpus import usable_cpus
from utils.devices import Machine, peak_memory_gib, pick_machine
from utils.files import write_json
from utils.labels import Labels
from utils.options import parser as options
from utils.options.training import training_parser
from utils.options.values import add_options, count, path

WIDTHS = {"preact18": (64, 16), "compact": (32, 8)}  # full, quick
# Epochs of a run of bkd whose tipping point comes late, those with a scoring pass, evaluations
RUNS = {"preact18": (300, 25, 30), "compact": (18, 10, 9)}
TRAIN, TEST, VAL, BATCH = 50_000, 10_000, 5_000, 128  # images
OPTIMIZER = {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}


def made_up_images() -> ImageSet:
    """CIFAR-10 in all but what the images show."""
    torch.manual_seed(0)
    names, cifar = [str(k) for k in range(10)], CIFAR["cifar10"]
    splits = [
        Split(torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8), torch.randint(10, (n,)))
        for n in (TRAIN, TEST)
    ]
    return ImageSet(*splits, names, cifar.mean, cifar.std, cifar.augment)


class Straightforward:
    """The plain loop: PIL images, two float32 networks in turn, `.item()` in each step."""

    def __init__(self, images: ImageSet, pair: TeacherStudent, device: torch.device):
        self.device, self.workers = device, usable_cpus()
        of_workers = {"num_workers": self.workers, "pin_memory": device.type == "cuda"}
        collate = partial(pil_batch, images)
        loader = DataLoader(range(TRAIN), BATCH, True, collate_fn=collate, **of_workers)
        self.batches, self.pair = chain.from_iterable(repeat(loader)), pair.to(device)
        self.optimizer = torch.optim.SGD(pair.parameters(), **OPTIMIZER)
        self.agreements = np.zeros(TRAIN)

    def step(self) -> None:
        """One batch: loading, loss, update, statistics."""
        images, labels, index = next(self.batches)
        images, labels = images.to(self.device), labels.to(self.device)
        teacher, student = self.pair.teacher(images), self.pair.student(images)
        alpha = torch.zeros(len(labels), device=self.device)
        targets = robust_targets(labels, student.softmax(1), alpha)
        loss = pair_loss(teacher, student, labels, targets)
        self.optimizer.zero_grad()
        loss.total.backward()
        self.optimizer.step()
        at_label = agreement(teacher, student).gather(1, labels[:, None]).squeeze(1)
        self.agreements[index] = at_label.detach().cpu().numpy()
        self.means = [each.item() for each in (*loss, student.softmax(1).amax(1).mean())]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """With torch's own TF32 setting, and no batch that was prepared during others' turns."""
        ours = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = True
        for _ in range(2 * self.workers):
            next(self.batches)
        yield
        torch.backends.cudnn.allow_tf32 = ours
        time.sleep(0.5)  # while the workers fill their queues


def pil_batch(images: ImageSet, index: list[int]) -> tuple[Tensor, Tensor, list[int]]:
    """Training images [B, 3, 32, 32] at B positions, one PIL image at a time, and their labels."""
    crop = transforms.RandomCrop(32, padding=4, padding_mode="reflect")
    scale = transforms.Normalize(images.mean, images.std)
    flip, tensor = transforms.RandomHorizontalFlip(), transforms.ToTensor()
    transform = transforms.Compose([flip, crop, tensor, scale])
    arrays = (images.train.images[k].permute(1, 2, 0).numpy() for k in index)
    batch = torch.stack([transform(Image.fromarray(array)) for array in arrays])
    return batch, images.train.clean_labels[index], index


class Fast:
    """This project's loaders, step and scoring, put together as the training script does."""

    def __init__(self, images: ImageSet, net: str, width: int, machine: Machine):
        device, positions = machine.device, choose_positions(TRAIN, VAL / TRAIN, 0, None)
        loading = torch.Generator(device).manual_seed(0), True, machine.memory_format
        clean = images.train.clean_labels
        labels = Labels(clean, clean, images.class_names, positions)
        self.loaders = make_loaders(images, labels, BATCH, *loading)
        self.batches = chain.from_iterable(repeat(self.loaders.train))
        words = ("--net", net, "--width", str(width), "--batch_size", str(BATCH))
        args = training_parser().parse_args(words)
        self.training = make_training(args, len(labels.class_names), self.loaders.train, machine)
        self.agreements = torch.zeros(len(self.loaders.train.labels), device=device)

    def step(self) -> None:
        """One batch: loading, loss, update, statistics."""
        step, robust_phase = self.training.step, self.training.robust_phase
        step.pair.train()
        images, labels, index = next(self.batches)
        result = step(images, labels, *robust_phase.inputs(index, robust_phase.mix(index, 0, 0)))
        self.agreements[index] = result.agreement

    def score(self) -> None:
        """One batch of the scoring pass."""
        loader = self.loaders.scored
        infer_logits(self.training.step.pair, islice(loader, 1), loader.batch_size)


def measure(fast: Fast, plain: Straightforward, net: str, rounds: int, least: float) -> dict:
    """Rows of the table: what each contender takes, and what follows for epoch and run.

    They take turns; in every round a contender is called for `least` seconds.
    """
    for warm_up in (*[fast.step] * (WARM_UP + 2), fast.score):
        warm_up()
    memory = peak_memory_gib(fast.agreements.device)  # before the straightforward version has some
    plain.step()  # warms up
    contenders = {  # the call, and the context of its turn
        "loader": (lambda: next(fast.batches), nullcontext),
        "PIL loader": (lambda: next(plain.batches), plain.turn),
        "step": (fast.step, nullcontext),
        "straightforward step": (plain.step, plain.turn),
        "scoring batch": (fast.score, nullcontext),
    }
    means: dict[str, list[float]] = {name: [] for name in contenders}  # seconds of a call
    for name, (work, turn) in [*contenders.items()] * rounds:
        with turn():
            timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
            means[name].append(timer.blocked_autorange(min_run_time=least).mean)
    seconds = {name: np.array(of_rounds) for name, of_rounds in means.items()}
    epochs, scored_epochs, evaluations = RUNS[net]
    step, epoch = seconds["step"], len(fast.loaders.train) * seconds["step"]
    scored = fast.loaders.scored.batch_size / seconds["scoring batch"]  # images a second
    run = epochs * epoch + (scored_epochs * TRAIN + evaluations * (VAL + TEST)) / scored
    rows = {
        "loader, images/s": BATCH / seconds["loader"],
        "PIL images in a DataLoader, images/s": BATCH / seconds["PIL loader"],
        "training step, ms": 1e3 * step,
        "straightforward step, ms": 1e3 * seconds["straightforward step"],
        "straightforward / training step": seconds["straightforward step"] / step,
        "scoring pass, images/s": scored,
        "epoch, s": epoch,
        f"{epochs} epochs, {scored_epochs} of them scored, min": run / 60,
        "peak memory, GiB": np.array(memory),
    }
    return {name: (np.median(row), row.min(), row.max()) for name, row in rows.items()}


def main(args: argparse.Namespace) -> dict[str, Any]:
    args.json.parent.mkdir(parents=True, exist_ok=True)  # before it takes minutes
    machine = pick_machine(args.device, args.precision, args.compile)
    images, width = made_up_images(), WIDTHS[args.net][args.quick]
    fast = Fast(images, args.net, width, machine)
    plain = Straightforward(images, build_pair(10, width, net=args.net), machine.device)
    rows = measure(fast, plain, args.net, args.rounds, 0.5 if args.quick else 3.0)
    gpu = torch.cuda.get_device_name() if machine.device.type == "cuda" else "no GPU"
    words = f"{machine}, {gpu}, {usable_cpus()} CPUs, torch {torch.__version__}; {args.net} of "
    record = {"what": f"{words}width {width}, batches of {BATCH}", "rows": rows}
    print(record["what"])
    for name, row in rows.items():
        print(f"{name:40}" + "".join(f"{value:12.2f}" for value in row))
    write_json(args.json, record)
    return record


def make_parser() -> options.OneLineParser:
    parser = options.OneLineParser(usage=options.USAGE, description=__doc__.splitlines()[0])
    options.add_device_options(parser)
    group = parser.add_argument_group("benchmark")
    add_options(group, options.NET)
    group.add_argument("--quick", action="store_true", help="narrow networks, short timings")
    group.add_argument("--rounds", type=count, default=5, metavar="NUMBER", help="timings of each")
    file = {"default": Path("results/benchmark.json"), "metavar": "FILE", "help": "file to write"}
    group.add_argument("--json", type=path, **file)
    add_options(parser, options.DEBUG)
    return parser


if __name__ == "__main__":
    run_script(main, make_parser().parse_args())
