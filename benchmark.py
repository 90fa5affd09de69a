"""How fast this machine trains, against the straightforward way and against what it could do.

    python benchmark.py            minutes; full-size networks
    python benchmark.py --quick    under a minute on two CPU cores; narrow networks

Contenders take turns in one run, on made-up images of CIFAR-10's size: what they show does not
matter to the time. Prints a table with medians and spreads, and writes them as JSON.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from utils.options import benchmark_parser, run_script

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    options = benchmark_parser().parse_args()

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from data.cifar import CIFAR, Split
from data.datasets import ImageSet, Loaders, choose_positions, make_loaders
from models.losses import agreement, pair_loss
from models.teacher_student import build_pair, infer_logits
from models.training_step import WARM_UP, TrainingStep
from utils import runs
from utils.devices import has_bf16, pick_device, pick_precision
from utils.files import write_json

EPOCHS, SCORED_EPOCHS, EVALUATIONS = 300, 25, 30  # of the paper's run; of a late tipping point
OPTIMIZER = {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}


def made_up_images() -> ImageSet:
    """CIFAR-10 in all but what the images show."""
    generator = torch.Generator().manual_seed(0)
    _, _, mean, std, augment = CIFAR["cifar10"]
    splits = (
        Split(
            torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8),
            torch.randint(10, (count,), generator=generator),
        )
        for count in (50_000, 10_000)
    )
    return ImageSet(*splits, [str(k) for k in range(10)], mean, std, augment)


class PilImages(Dataset):
    """One PIL image at a time through torchvision's transforms."""

    def __init__(self, images: ImageSet):
        self.images = images.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.train.clean_labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
                transforms.ToTensor(),
                transforms.Normalize(images.mean, images.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index], index


class Straightforward:
    """The plain loop: PIL images, two float32 networks in turn, `.item()` in each step."""

    def __init__(self, images: ImageSet, width: int, batch_size: int, device: torch.device):
        self.device = device
        self.images = PilImages(images)
        self.workers = os.cpu_count() or 1
        self.loader = DataLoader(
            self.images,
            batch_size,
            shuffle=True,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
        )
        self.batches = endless(self.loader)
        self.pair = build_pair(10, width).to(device)
        self.optimizer = torch.optim.SGD(self.pair.parameters(), **OPTIMIZER)
        self.agreements = np.zeros(len(self.images))

    def drain(self) -> None:
        """Take what the workers prepared while others were measured."""
        for _ in range(2 * self.workers):
            next(self.batches)

    def step(self) -> None:
        images, labels, index = next(self.batches)
        images, labels = images.to(self.device), labels.to(self.device)
        teacher, student = self.pair.teacher(images), self.pair.student(images)
        alpha = torch.zeros(len(labels), device=self.device)
        loss = pair_loss(teacher, student, labels, alpha)
        self.optimizer.zero_grad()
        loss.total.backward()
        self.optimizer.step()
        at_label = agreement(teacher, student).gather(1, labels[:, None]).squeeze(1)
        self.agreements[index.numpy()] = at_label.detach().cpu().numpy()
        self.seen = [each.item() for each in (*loss, student.softmax(1).amax(1).mean())]


class Fast:
    """This project's loaders, step and scoring, put together as the training script does."""

    def __init__(
        self,
        images: ImageSet,
        width: int,
        batch_size: int,
        device: torch.device,
        precision: str,
        compiled: bool,
        plain: bool,
    ):
        positions = choose_positions(len(images.train.images), 0.1, seed=0, limit=None)
        memory_format = torch.contiguous_format if plain else torch.channels_last
        generator = torch.Generator(device).manual_seed(0)
        labels = images.train.clean_labels
        self.loaders: Loaders = make_loaders(
            images, labels, positions, batch_size, generator, True, memory_format
        )
        pair = build_pair(10, width).prepare(device, bf16=precision == "bf16", plain=plain)
        fused = None if plain else True
        optimizer = torch.optim.SGD(pair.parameters(), **OPTIMIZER, fused=fused)
        self.training_step = TrainingStep(pair, optimizer, pair_loss, batch_size, compiled=compiled)
        self.batches, self.scored = endless(self.loaders.train), endless(self.loaders.scored)
        self.alpha = torch.zeros(len(self.loaders.train.labels), device=device)
        self.agreements = torch.zeros_like(self.alpha)

    def step(self) -> None:
        self.training_step.pair.train()
        images, labels, index = next(self.batches)
        seen = self.training_step(images, labels, self.alpha[index])
        self.agreements[index] = seen.agreement

    def score(self) -> None:
        """One batch of the scoring pass."""
        images, labels, _ = next(self.scored)
        places = torch.arange(len(images), device=images.device)
        infer_logits(self.training_step.pair, [(images, labels, places)], len(images))


def endless(loader: Any) -> Iterator[Any]:
    """One pass after the other."""
    while True:
        yield from loader


def seconds_each(work: Callable[[], Any], at_least: float, device: torch.device) -> float:
    """Of as many calls as take so many seconds, all that they started included."""
    calls, start = 0, time.perf_counter()
    while not calls or time.perf_counter() - start < at_least:
        work()
        calls += 1
        if calls % 50 == 0:  # or the host would run far ahead of the device
            wait_for(device)
    wait_for(device)
    return (time.perf_counter() - start) / calls


def wait_for(device: torch.device) -> None:
    """Until it has done all that it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_product(device: torch.device, precision: str) -> tuple[Callable[[], Any], float]:
    """A large product in the networks' precision, and its number of floating-point operations."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: one @ other, 2 * size**3


def large_copy(device: torch.device) -> tuple[Callable[[], Any], float]:
    """A copy that no cache holds, and the bytes that it reads and writes."""
    count = 2**30 if device.type == "cuda" else 2**26
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * source.nbytes


def step_operations(width: int, batch_size: int) -> float:
    """Floating-point operations of one step: two networks, forward and twice that backward."""
    pair = build_pair(10, width).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        pair(torch.zeros(1, 3, 32, 32))
    return 3 * batch_size * counter.get_total_flops()


def median_of(values: list[float]) -> dict[str, float]:
    """Median and spread."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures, by name; each contender once in every round."""
    device = pick_device(args.device)
    width, at_least = (16, 1.0) if args.quick else (64, 3.0)
    images = made_up_images()
    tf32_of_torch = torch.backends.cudnn.allow_tf32  # which the straightforward loop leaves alone
    precision = pick_precision(args.precision, device)
    compiled = args.compile == "on" or (args.compile == "auto" and device.type == "cuda")
    plain = precision == "fp32" and args.compile == "off"
    fast = Fast(images, width, args.batch_size, device, precision, compiled, plain)
    start = time.perf_counter()
    for _ in range(WARM_UP + 2 if compiled else 1):
        fast.step()
    wait_for(device)
    first_steps = time.perf_counter() - start
    fast.score()
    wait_for(device)
    memory = runs.peak_memory_gib(device)
    straightforward = Straightforward(images, width, args.batch_size, device)
    product, operations = matrix_product(device, precision)
    copy, copied = large_copy(device)

    def in_the_plain_way(work: Callable[[], Any]) -> Callable[[], float]:
        def measured() -> float:
            torch.backends.cudnn.allow_tf32 = tf32_of_torch
            straightforward.drain()
            seconds = seconds_each(work, at_least, device)
            pick_precision(args.precision, device)
            time.sleep(0.5)  # while the workers fill their queues
            return seconds

        return measured

    contenders: dict[str, Callable[[], float]] = {
        "loader": partial(seconds_each, lambda: next(fast.batches), at_least, device),
        "PIL loader": in_the_plain_way(lambda: next(straightforward.batches)),
        "step": partial(seconds_each, fast.step, at_least, device),
        "straightforward step": in_the_plain_way(straightforward.step),
        "scoring batch": partial(seconds_each, fast.score, at_least, device),
        "matrix product": partial(seconds_each, product, at_least / 3, device),
        "copy": partial(seconds_each, copy, at_least / 3, device),
    }
    straightforward.step()  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", flush=True)
        for name, contender in contenders.items():
            seconds[name].append(contender())

    scored = fast.loaders.scored.batch_size
    step = statistics.median(seconds["step"])
    look = statistics.median(seconds["scoring batch"]) / scored
    steps = len(fast.loaders.train)
    work = step_operations(width, args.batch_size)
    rate = operations / statistics.median(seconds["matrix product"])
    looked = SCORED_EPOCHS * 50_000 + EVALUATIONS * (5_000 + 10_000)
    return {
        "machine": machine(device),
        "precision": precision,
        "compiled": fast.training_step.compiled,
        "graphs": fast.training_step.graphed,
        "width": width,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "quick": args.quick,
        "first_steps_seconds": first_steps,
        "peak_memory_gib": memory,
        "seconds": {name: median_of(values) for name, values in seconds.items()},
        "loader_images_per_second": median_of([args.batch_size / s for s in seconds["loader"]]),
        "pil_images_per_second": median_of([args.batch_size / s for s in seconds["PIL loader"]]),
        "loader_speedup": median_of(ratios(seconds["PIL loader"], seconds["loader"])),
        "step_speedup": median_of(ratios(seconds["straightforward step"], seconds["step"])),
        "scored_images_per_second": median_of([scored / s for s in seconds["scoring batch"]]),
        "epoch_seconds": steps * step,
        "run_seconds": EPOCHS * steps * step + looked * look,
        "step_operations": work,
        "operations_per_second": rate,
        "copied_bytes_per_second": copied / statistics.median(seconds["copy"]),
        "floor_step_seconds": work / rate,
        "step_over_floor": step * rate / work,
    }


def ratios(slow: list[float], fast: list[float]) -> list[float]:
    """How many times faster, round by round."""
    return [one / other for one, other in zip(slow, fast, strict=True)]


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    capabilities = torch.cpu.get_capabilities()
    return {
        "device": name or str(device),
        "cpu": capabilities.get("cpu_name") or platform.processor(),
        "cores": os.cpu_count(),
        "bf16_in_hardware": has_bf16(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def report(record: dict[str, Any]) -> None:
    """Print the table."""
    seconds = record["seconds"]

    def row(what: str, figures: dict[str, float], unit: str, scale: float = 1.0) -> None:
        median, low, high = (scale * figures[key] for key in ("median", "low", "high"))
        print(f"{what:44} {median:11.2f} {unit:9} {low:11.2f} … {high:.2f}")

    print("  ".join(f"{key} {value}" for key, value in record["machine"].items()))
    print(
        f"{record['precision']}, width {record['width']}, batches of {record['batch_size']}, "
        f"{'compiled' if record['compiled'] else 'not compiled'}, "
        f"{'replayed as CUDA graphs' if record['graphs'] else 'no CUDA graphs'}"
    )
    print(f"{'':44} {'median':>11} {'':9} {'spread over the rounds':>11}")
    row("(a) loader", record["loader_images_per_second"], "images/s")
    row("    PIL images in a DataLoader", record["pil_images_per_second"], "images/s")
    row("    times faster", record["loader_speedup"], "x")
    row("(b) training step", seconds["step"], "ms", 1000)
    row("    straightforward step", seconds["straightforward step"], "ms", 1000)
    row("    times faster", record["step_speedup"], "x")
    row("(c) scoring pass", record["scored_images_per_second"], "images/s")
    print(f"(d) epoch of 45,000 images {record['epoch_seconds']:29.2f} s")
    print(
        f"    {EPOCHS} epochs, {SCORED_EPOCHS} with scoring, {EVALUATIONS} evaluations "
        f"{record['run_seconds'] / 60:9.2f} min"
    )
    print(f"    first steps, compilation included {record['first_steps_seconds']:22.2f} s")
    print(f"    peak memory {record['peak_memory_gib']:44.2f} GiB")
    print(f"(e) matrix products {record['operations_per_second'] / 1e12:36.2f} TFLOP/s")
    print(f"    copy, read and written {record['copied_bytes_per_second'] / 1e9:33.2f} GB/s")
    print(
        f"    floor of a step: {record['step_operations'] / 1e9:.1f} GFLOP in "
        f"{1000 * record['floor_step_seconds']:.2f} ms; the step takes "
        f"{record['step_over_floor']:.2f} times that"
    )


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, write and return the record."""
    start = time.perf_counter()
    record = measure(args)
    report(record)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.json, record)
    print(f"{args.json} written, {time.perf_counter() - start:.0f} s")
    return record


if __name__ == "__main__":
    run_script(main, options)
