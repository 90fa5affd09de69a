"""How fast this machine trains, against a straightforward version and against what it could do.

    python -m tests.benchmark                  minutes; full-size networks
    python -m tests.benchmark --net compact    the same for the compact ones
    python -m tests.benchmark --quick          under a minute on two CPU cores; narrow networks

All that is compared takes turns within one run, on made-up images of CIFAR-10's size: what they
show does not matter to the time. Prints medians and spreads over the rounds, and writes them as
JSON.
"""

from utils.startup import run_script

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.benchmark import Timer
from torch.utils.benchmark import timer as clock  # waits for the GPU
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from data.cifar import CIFAR
from data.datasets import Loaders, make_loaders
from data.images import ImageSet, Split
from data.splits import choose_positions
from models.fast.training_step import WARM_UP, TrainingStep
from models.losses import Guide, agreement, pair_loss
from models.teacher_student import TeacherStudent, build_pair, infer_logits
from utils.devices import Machine, has_bf16, peak_memory_gib, pick_machine
from utils.files import write_json
from utils.options.evaluation import benchmark_parser

WIDTHS = {"preact18": (64, 16), "compact": (32, 8)}  # full, quick
# Epochs of a run of bkd whose tipping point comes late, those with a scoring pass, evaluations
RUNS = {"preact18": (300, 25, 30), "compact": (18, 10, 9)}
TRAIN, TEST, VAL = 50_000, 10_000, 5_000  # images
OPTIMIZER = {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}


def made_up_images() -> ImageSet:
    """CIFAR-10 in all but what the images show."""

    def split(count: int) -> Split:
        images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
        return Split(images, torch.randint(10, (count,)))

    torch.manual_seed(0)
    names, cifar = [str(k) for k in range(10)], CIFAR["cifar10"]
    return ImageSet(split(TRAIN), split(TEST), names, cifar.mean, cifar.std, cifar.augment)


class Straightforward:
    """The plain loop: PIL images, two float32 networks in turn, `.item()` in each step."""

    def __init__(
        self, images: ImageSet, pair: TeacherStudent, batch_size: int, device: torch.device
    ):
        self.device, self.workers = device, os.cpu_count() or 1
        of_workers = {"num_workers": self.workers, "pin_memory": device.type == "cuda"}
        collate = partial(pil_batch, images)
        loader = DataLoader(range(TRAIN), batch_size, True, collate_fn=collate, **of_workers)
        self.batches = endless(loader)
        self.pair = pair.to(device)
        self.optimizer = torch.optim.SGD(self.pair.parameters(), **OPTIMIZER)
        self.agreements = np.zeros(TRAIN)

    def step(self) -> None:
        """One batch: loading, loss, update, statistics."""
        images, labels, index = next(self.batches)
        images, labels = images.to(self.device), labels.to(self.device)
        teacher, student = self.pair.teacher(images), self.pair.student(images)
        guide = Guide(torch.zeros(len(labels), device=self.device))
        loss = pair_loss(teacher, student, labels, guide)
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
    operations = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
        transforms.ToTensor(),
        transforms.Normalize(images.mean, images.std),
    ]
    transform = transforms.Compose(operations)
    arrays = (images.train.images[k].permute(1, 2, 0).numpy() for k in index)
    batch = torch.stack([transform(Image.fromarray(array)) for array in arrays])
    return batch, images.train.clean_labels[index], index


class Fast:
    """This project's loaders, step and scoring, put together as the training script does."""

    def __init__(self, images: ImageSet, pair: TeacherStudent, batch_size: int, machine: Machine):
        device, plain = machine.device, machine.plain
        labels, positions = images.train.clean_labels, choose_positions(TRAIN, VAL / TRAIN, 0, None)
        generator = torch.Generator(device).manual_seed(0)
        self.loaders = make_loaders(
            images, labels, positions, batch_size, generator, True, machine.memory_format
        )
        pair.prepare(device, bf16=machine.precision == "bf16", plain=plain)
        fused = None if plain else True
        optimizer = torch.optim.SGD(pair.parameters(), **OPTIMIZER, fused=fused)
        self.training_step = TrainingStep(
            pair, optimizer, pair_loss, batch_size, compiled=machine.compiled
        )
        self.batches = endless(self.loaders.train)
        self.alpha = torch.zeros(len(self.loaders.train.labels), device=device)
        self.agreements = torch.zeros_like(self.alpha)

    def step(self) -> None:
        """One batch: loading, loss, update, statistics."""
        self.training_step.pair.train()
        images, labels, index = next(self.batches)
        result = self.training_step(images, labels, self.alpha[index])
        self.agreements[index] = result.agreement

    def score(self) -> None:
        """One batch of the scoring pass."""
        batches = islice(self.loaders.scored, 1)
        infer_logits(self.training_step.pair, batches, self.loaders.scored.batch_size)


def endless(loader: Any) -> Iterator[Any]:
    """One pass after the other."""
    while True:
        yield from loader


def matrix_product(machine: Machine) -> tuple[Callable[[], Any], float]:
    """A large product in the networks' precision, and its number of floating-point operations."""
    size = 8192 if machine.device.type == "cuda" else 2048
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    factor = torch.randn(size, size, device=machine.device).to(dtype)
    return lambda: factor @ factor, 2 * size**3


def large_copy(device: torch.device) -> tuple[Callable[[], Any], float]:
    """A copy that no cache holds, and the bytes that it reads and writes."""
    source = torch.ones(2**30 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * source.nbytes


def step_operations(pair: TeacherStudent, batch_size: int) -> float:
    """Floating-point operations of one step: two networks, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        sum(pair(torch.zeros(1, 3, 32, 32))).sum().backward()
    return batch_size * counter.get_total_flops()


def take_turns(
    contenders: dict[str, tuple[Callable, Callable]], rounds: int, least: float
) -> dict[str, NDArray[np.float64]]:
    """Seconds of a call of each contender [rounds], timed for `least` seconds in every round.

    `contenders`: the call, and the context of its turn. Of a turn the mean is taken, not the
    median, because a loader's workers deliver in bursts.
    """
    threads = torch.get_num_threads()  # torch's timer would take one
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        for name, (work, turn) in contenders.items():
            with turn():
                timer = Timer("work()", globals={"work": work}, num_threads=threads)
                seconds[name].append(timer.blocked_autorange(min_run_time=least).mean)
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values: NDArray[np.float64]) -> dict[str, float]:
    """Median, lowest and highest over the rounds."""
    return {"median": np.median(values), "low": values.min(), "high": values.max()}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The whole record: what was timed, on which machine, and what follows for a run."""
    machine = pick_machine(args.device, args.precision, args.compile)
    width, least = WIDTHS[args.net][args.quick], 0.5 if args.quick else 3.0
    images, new_pair = made_up_images(), partial(build_pair, 10, width, net=args.net)
    fast = Fast(images, new_pair(), args.batch_size, machine)
    start = clock()
    for _ in range(WARM_UP + 2 if machine.compiled else 1):
        fast.step()
    first_steps = clock() - start
    fast.score()
    memory = peak_memory_gib(machine.device)  # before the straightforward version takes some
    plain = Straightforward(images, new_pair(), args.batch_size, machine.device)
    plain.step()  # warms up
    product, operations = matrix_product(machine)
    copy, copied = large_copy(machine.device)
    contenders = {
        "loader": (lambda: next(fast.batches), nullcontext),
        "PIL loader": (lambda: next(plain.batches), plain.turn),
        "step": (fast.step, nullcontext),
        "straightforward step": (plain.step, plain.turn),
        "scoring batch": (fast.score, nullcontext),
        "matrix product": (product, nullcontext),
        "copy": (copy, nullcontext),
    }
    seconds = take_turns(contenders, args.rounds, least)
    work = step_operations(new_pair(), args.batch_size)
    rate = operations / np.median(seconds["matrix product"])
    return {
        "machine": describe(machine.device),
        "precision": machine.precision,
        "compiled": fast.training_step.compiled,
        "graphs": fast.training_step.graphed,
        "net": args.net,
        "width": width,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "quick": args.quick,
        "first_steps_seconds": first_steps,
        "peak_memory_gib": memory,
        **rates(seconds, fast.loaders, args.batch_size, args.net),
        "step_operations": work,
        "operations_per_second": rate,
        "copied_bytes_per_second": copied / np.median(seconds["copy"]),
        "floor_step_seconds": work / rate,
        "step_over_floor": np.median(seconds["step"]) * rate / work,
    }


def rates(
    seconds: dict[str, NDArray[np.float64]], loaders: Loaders, batch_size: int, net: str
) -> dict[str, Any]:
    """What the seconds of each contender [rounds] say of loaders, step, epoch and run."""
    scored = loaders.scored.batch_size
    epoch = len(loaders.train) * np.median(seconds["step"])
    epochs, scored_epochs, evaluations = RUNS[net]
    evaluated = scored_epochs * TRAIN + evaluations * (VAL + TEST)
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "loader_images_per_second": spread(batch_size / seconds["loader"]),
        "pil_images_per_second": spread(batch_size / seconds["PIL loader"]),
        "loader_speedup": spread(seconds["PIL loader"] / seconds["loader"]),
        "step_speedup": spread(seconds["straightforward step"] / seconds["step"]),
        "scored_images_per_second": spread(scored / seconds["scoring batch"]),
        "epoch_seconds": epoch,
        "run_seconds": epochs * epoch + evaluated * np.median(seconds["scoring batch"]) / scored,
    }


def describe(device: torch.device) -> dict[str, Any]:
    """The machine that all was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {
        "device": name,
        "cpu": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "cores": os.cpu_count(),
        "bf16_in_hardware": has_bf16(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def report(record: dict[str, Any]) -> None:
    """Print the table."""
    print("  ".join(f"{key} {value}" for key, value in record["machine"].items()))
    print(
        f"{record['net']} of width {record['width']}, batches of {record['batch_size']}, "
        f"{record['precision']}, {'compiled' if record['compiled'] else 'not compiled'}, "
        f"{'replayed as CUDA graphs' if record['graphs'] else 'no CUDA graphs'}"
    )
    print(f"{'':44} {'median':>11} {'':9} {'spread over the rounds':>11}")
    flops = f"{record['step_operations'] / 1e9:.1f} GFLOP"
    epochs, scored, evaluations = RUNS[record["net"]]
    run = f"{epochs} epochs, {scored} scored, {evaluations} evaluations"
    for what, value, unit, scale in (
        ("(a) loader", record["loader_images_per_second"], "images/s", 1),
        ("    PIL images in a DataLoader", record["pil_images_per_second"], "images/s", 1),
        ("    times faster", record["loader_speedup"], "x", 1),
        ("(b) training step", record["seconds"]["step"], "ms", 1e3),
        ("    straightforward step", record["seconds"]["straightforward step"], "ms", 1e3),
        ("    times faster", record["step_speedup"], "x", 1),
        ("(c) scoring pass", record["scored_images_per_second"], "images/s", 1),
        ("(d) epoch of 45,000 images", record["epoch_seconds"], "s", 1),
        (f"    {run}", record["run_seconds"], "min", 1 / 60),
        ("    first steps, compilation included", record["first_steps_seconds"], "s", 1),
        ("    peak memory", record["peak_memory_gib"], "GiB", 1),
        ("(e) matrix products", record["operations_per_second"], "TFLOP/s", 1e-12),
        ("    copy, read and written", record["copied_bytes_per_second"], "GB/s", 1e-9),
        (f"    floor of a step: {flops}", record["floor_step_seconds"], "ms", 1e3),
        ("    step over its floor", record["step_over_floor"], "x", 1),
    ):
        rounds = value if isinstance(value, dict) else {"median": value}
        median, *ends = (f"{scale * number:.2f}" for number in rounds.values())
        print(f"{what:44} {median:>11} {unit:9} {' … '.join(ends):>22}".rstrip())


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, write and return the record."""
    start = time.perf_counter()
    try:
        args.json.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # before it takes minutes
        reason = f"cannot be written ({error.strerror}); choose another --json"
        raise OSError(f"{args.json}: {reason}") from error
    record = measure(args)
    report(record)
    write_json(args.json, record)
    print(f"{args.json} written, {time.perf_counter() - start:.0f} s")
    return record


if __name__ == "__main__":
    run_script(main, benchmark_parser().parse_args())
