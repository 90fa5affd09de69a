"""The command lines of the three scripts: every option once, in a group, with its unit."""

import argparse
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

NOISE_TYPES = {
    "cifar10": ("clean", "aggre", "worst", "rand1", "rand2", "rand3"),
    "cifar100": ("clean100", "noisy100"),
    "digits": ("clean", "aggre", "worst", "rand1"),
}
ALIASES = {"worse": "worst"}

# The authors' settings, which are the options' defaults, are for cifar10. These take their place
# for another data set; an option on the command line wins over both.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "cifar10": {},
    "cifar100": {"noise_type": "noisy100"},
    "digits": {"width": 16, "batch_size": 64, "n_epoch": 30, "lr_step": 15, "val_ratio": 0.0},
}


USAGE = "%(prog)s [options]"  # argparse would name them all
LESS_MEMORY = (
    "try a smaller --batch_size or --width, --precision bf16 where there is that, or another "
    "--device"
)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help of at most 100 columns that tells each default there is."""

    def __init__(self, prog: str):
        width = min(100, shutil.get_terminal_size().columns)
        super().__init__(prog, max_help_position=30, width=width)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line on stderr, exit status 2."""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """As argparse's, but for an unknown option the nearest known one is suggested."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            name = unknown[0].split("=")[0].lower().replace("-", "_").replace("__", "--", 1)
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; --help tells them all"
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options


def _number(kind: type, low: float, high: float, allowed: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # NaN fails too
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
        return value

    return parse


_EPSILON, _HUGE = sys.float_info.min, sys.float_info.max
_count = _number(int, 1, _HUGE, "a whole number from 1")
_count_or_none = _number(int, 0, _HUGE, "a whole number from 0")
_seed = _number(int, 0, 2**32 - 1, "a whole number from 0 to 4294967295")
_positive = _number(float, _EPSILON, _HUGE, "a number above 0")
_not_negative = _number(float, 0, _HUGE, "a number from 0")
_fraction = _number(float, 0, 1, "a number from 0 to 1")
_ratio = _number(float, 0, math.nextafter(1, 0), "a number from 0 to below 1")


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _resolved(text: str) -> Path:
    return _path(text).resolve()


def _noise_type(text: str) -> str:
    return ALIASES.get(text, text)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a run: all three scripts have them."""
    run = parser.add_argument_group("the run")
    run.add_argument("--dataset", choices=list(NOISE_TYPES), default="cifar10", help="data set")
    run.add_argument(
        "--noise_type",
        type=_noise_type,
        choices=list(dict.fromkeys(t for types in NOISE_TYPES.values() for t in types)),
        default="worst",
        help="label set (worse is another word for worst; the default of cifar100 is noisy100)",
    )
    run.add_argument(
        "--seed", type=_seed, default=0, metavar="NUMBER", help="of all random numbers"
    )
    run.add_argument(
        "--method",
        choices=("bkd", "ce"),
        default="bkd",
        help="bkd: Blind Knowledge Distillation; ce: its baseline, one network trained with plain "
        "cross-entropy on the given labels",
    )
    places = parser.add_argument_group("places")
    places.add_argument(
        "--data_dir",
        type=_path,
        default=_path("~/data"),
        metavar="FOLDER",
        help="data sets and labels",
    )
    places.add_argument(
        "--results_dir",
        type=_path,
        default=Path("results"),
        metavar="FOLDER",
        help="of the run folders",
    )
    places.add_argument(
        "--noise_path",
        type=_resolved,
        metavar="FILE",
        help="own label file, in place of the published one",
    )
    _add_debug(parser)


def _add_run_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run_dir", type=_path, metavar="FOLDER", help="the run's, wherever it is")


def _add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error in the input"
    )


def _add_machine(parser: argparse.ArgumentParser, compiles: bool = True) -> None:
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="cpu, cuda or cuda:NUMBER; auto: cuda where there is one, else cpu",
    )
    machine.add_argument(
        "--precision",
        choices=("auto", "fp32", "tf32", "bf16"),
        default="auto",
        help="of convolutions and matrix products; auto: bf16 where the device has it in hardware, "
        "else fp32. Losses and statistics are in fp32 whatever is chosen",
    )
    if compiles:
        machine.add_argument(
            "--compile",
            choices=("auto", "on", "off"),
            default="auto",
            help="compile the step, and on CUDA replay it as one graph; auto: on CUDA. With off "
            "and --precision fp32 the step is the plain one, bit for bit the same on the same "
            "machine",
        )


def _add_batch_size(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--batch_size", type=_count, default=128, metavar="IMAGES", help="images in a step"
    )


def training_parser() -> argparse.ArgumentParser:
    """The options of `blind_knowledge_dist_training.py`, at the authors' settings."""
    parser = _new_parser("Train teacher and student on noisy labels and write a run folder.")
    _add_run_options(parser)
    _add_machine(parser)
    budget = parser.add_argument_group("data and length")
    budget.add_argument(
        "--val_ratio",
        type=_ratio,
        default=0.1,
        metavar="SHARE",
        help="of the training images held out for noisy validation, 0 to below 1",
    )
    budget.add_argument(
        "--n_epoch", type=_count, default=300, metavar="EPOCHS", help="length of the training"
    )
    _add_batch_size(budget)
    budget.add_argument(
        "--limit_train",
        type=_count,
        metavar="IMAGES",
        help="train on and score only so many images, chosen by the seed",
    )
    network = parser.add_argument_group("network and optimiser (SGD)")
    network.add_argument(
        "--width",
        type=_count,
        default=64,
        metavar="CHANNELS",
        help="of the first stage; the others have 2, 4 and 8 times as many",
    )
    network.add_argument("--lr", type=_positive, default=0.02, metavar="RATE", help="learning rate")
    network.add_argument(
        "--lr_step",
        type=_count,
        default=150,
        metavar="EPOCHS",
        help="between falls of the learning rate",
    )
    network.add_argument(
        "--lr_gamma", type=_positive, default=0.1, metavar="FACTOR", help="of each fall"
    )
    network.add_argument(
        "--momentum", type=_ratio, default=0.9, metavar="SHARE", help="0 to below 1"
    )
    network.add_argument(
        "--weight_decay", type=_not_negative, default=0.0005, metavar="FACTOR", help="L2 penalty"
    )
    method = parser.add_argument_group("method")
    for group, default in enumerate((0.30, 0.45, 0.55, 0.70), start=1):
        method.add_argument(
            f"--alpha{group}",
            type=_fraction,
            default=default,
            metavar="SHARE",
            help=f"distrust of the labels of group {group} after the tipping point, 0 to 1"
            + {1: " (most likely right)", 4: " (most likely wrong)"}.get(group, ""),
        )
    method.add_argument(
        "--detach_student_target",
        action="store_true",
        help="no gradient through the robust target into the student (the authors let it flow)",
    )
    method.add_argument(
        "--masked_mean",
        action="store_true",
        help="divide the compensation loss by B*(C-1) (the authors: by B*C-1)",
    )
    safety = parser.add_argument_group("going on after an interruption")
    safety.add_argument(
        "--checkpoint_freq",
        type=_count,
        default=5,
        metavar="EPOCHS",
        help="between checkpoints; SIGINT and SIGTERM write one too",
    )
    safety.add_argument(
        "--keep_checkpoint", action="store_true", help="keep checkpoint.pt of a finished run"
    )
    safety.add_argument(
        "--restart",
        action="store_true",
        help="begin anew: the run folder there is moved to aside/, never deleted",
    )
    safety.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bits each time on CUDA too, which is slower; a CPU needs no such option",
    )
    report = parser.add_argument_group("report")
    for name, default, unit, words in (
        ("print_freq", 100, "STEPS", "between updates of the progress bar"),
        ("clean_test_freq", 10, "EPOCHS", "between clean tests, and at the last"),
        ("noisy_val_freq", 10, "EPOCHS", "between noisy validations, and at the last"),
    ):
        report.add_argument(f"--{name}", type=_count, default=default, metavar=unit, help=words)
    report.add_argument(
        "--quiet", action="store_true", help="no progress bars, also where stderr is a terminal"
    )
    report.add_argument(
        "--no_pictures",
        action="store_true",
        help="draw none; python -m utils.plots FOLDER draws them at any time",
    )
    report.add_argument(
        "--tensorboard",
        action="store_true",
        help="write scalars and pictures for TensorBoard too, where its package is installed",
    )
    report.add_argument(
        "--measure_steps",
        type=_count,
        metavar="STEPS",
        help="only measure so many, estimate the whole run, write nothing",
    )
    report.add_argument(
        "--num_workers",
        type=_count_or_none,
        default=4,
        metavar="NUMBER",
        help="accepted for the sake of existing commands; images are prepared without workers",
    )
    return parser


def learning_parser() -> argparse.ArgumentParser:
    """The options of `learning.py`."""
    parser = _new_parser("Measure the clean test accuracy of a run's networks.")
    _add_run_options(parser)
    _add_machine(parser, compiles=False)
    _add_run_dir(parser)
    return parser


def detection_parser() -> argparse.ArgumentParser:
    """The options of `detection.py`."""
    parser = _new_parser("Measure how well a run found the wrong labels.")
    _add_run_options(parser)
    _add_run_dir(parser)
    parser.add_argument(
        "--prediction",
        type=_path,
        metavar="FILE",
        help="score this boolean .npy, one entry for each training image (true: judged wrong), "
        "in place of the run's",
    )
    return parser


def benchmark_parser() -> argparse.ArgumentParser:
    """The options of `benchmark.py`."""
    parser = OneLineParser(
        usage=USAGE,
        description="Measure loader, step and scoring on this machine against the straightforward "
        "way, and against what the machine can do.",
    )
    _add_machine(parser)
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument(
        "--quick", action="store_true", help="narrow networks, short measurements: under a minute"
    )
    _add_batch_size(measuring)
    measuring.add_argument(
        "--rounds", type=_count, default=5, metavar="NUMBER", help="of measurements, in turn"
    )
    measuring.add_argument(
        "--json",
        type=_path,
        default=Path("results/benchmark.json"),
        metavar="FILE",
        help="to write",
    )
    _add_debug(parser)
    return parser


def _new_parser(description: str) -> argparse.ArgumentParser:
    return OneLineParser(
        usage=USAGE,
        description=description,
        epilog="Data sets with defaults of their own: "
        + "; ".join(
            f"{dataset}: " + " ".join(f"--{name} {value}" for name, value in defaults.items())
            for dataset, defaults in DATASET_DEFAULTS.items()
            if defaults
        ),
    )


def parse_options(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> argparse.Namespace:
    """Options with the data set's defaults; leaves with one line and status 2 if they are wrong."""
    dataset = parser.parse_known_args(argv)[0].dataset
    known = {action.dest for action in parser._actions}
    parser.set_defaults(**{k: v for k, v in DATASET_DEFAULTS[dataset].items() if k in known})
    args = parser.parse_args(argv)
    if args.noise_type not in NOISE_TYPES[dataset]:
        choices = ", ".join(NOISE_TYPES[dataset])
        parser.error(f"--dataset {dataset} has no --noise_type {args.noise_type}; it has {choices}")
    if args.noise_path and dataset == "digits":
        parser.error("--noise_path is for CIFAR; the labels of digits are drawn from --seed")
    return args


def run_script(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """What `main` returns of the options; an error in them is one line, exit status 2."""
    try:
        return main(args)
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        reason = str(error)
        if isinstance(error, MemoryError | RuntimeError):
            if not _is_out_of_memory(error):
                raise  # not of the input: a mistake of ours
            reason = f"out of memory on {args.device}; {LESS_MEMORY}"
        if args.debug:
            raise
        print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if args.debug:
            raise
        sys.exit(130)


def _is_out_of_memory(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}  # torch need not be imported for this
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(
        error
    )
