"""What all command lines have in common: the parser, and the options of a run."""

import argparse
import itertools
import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from utils.console import what_of
from utils.label_sets import LABEL_SETS
from utils.methods import METHOD_HELP, METHODS
from utils.options.departures import DEPARTURES
from utils.options.own_images import (
    BY_COUNT,
    OWN_IMAGES,
    RUNS_OF_OWN_IMAGES,
    add_own_images,
    given_judges,
    wrong_own_images,
)
from utils.options.presets import preset_defaults
from utils.options.values import add_options, path, resolved_path, seed

USAGE = "%(prog)s [options]"  # argparse would name them all
NETS = ("preact18", "compact")
ALPHAS = {"alpha1", "alpha2", "alpha3", "alpha4"}
OF_ROBUST_PHASE = ALPHAS | (  # nothing without a student
    {name for name, *_ in DEPARTURES} - {"ema_decay"}
)
AT_TIPPING = (
    ("detection", "split"),
    ("lr_schedule", "after_tipping"),
    ("augmentation", "after_tipping"),
)
NET = {
    ("net", NETS): "network; preact18: the paper's PreActResNet-18; compact: a small, quick one "
    "for training without a GPU"
}
FOLDERS = {
    ("data_dir", path, path("~/data"), "FOLDER"): "folder of data sets and label files",
    ("results_dir", path, Path("results"), "FOLDER"): "folder of run folders",
}
DEBUG = {("debug", bool): argparse.SUPPRESS}  # traceback of an error in the input
DEVICE = {
    ("device", str, "auto", "NAME"): "cpu, cuda, cuda:NUMBER or mps (untried); auto: cuda where "
    "there is one, else cpu",
    ("precision", ("auto", "fp32", "tf32", "bf16")): "precision of convolutions and matrix "
    "products; auto: bf16 where the device is fast with it, else fp32. Losses and statistics "
    "are always in fp32",
}
COMPILE = {
    ("compile", ("auto", "on", "off")): "compilation of the training step, on CUDA also its replay "
    "as one graph; auto: on CUDA. off with fp32 is the plain step, bit for bit the same each time"
}
DETECTIONS = {
    "split": "group 4 of the split at the tipping point, as in the paper",
    "final": "labels other than what the last epoch's networks predict, without augmentation",
    "posterior": "labels that are more likely wrong than right, by networks or a regression "
    "that were trained without them (--folds) and Bayes' rule",
    "ensemble": "labels other than the pair's mean prediction over the epochs (temporal ensemble; "
    "final for images that were not trained on)",
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help of at most 100 columns that gives each default there is."""

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

    def error(self, message: str | Exception) -> NoReturn:
        words = what_of(message if isinstance(message, Exception) else ValueError(message))
        self.exit(2, f"{self.prog}: error: {words}\n")

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """As argparse's, but for an unknown option the nearest known one is suggested."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            name = unknown[0].split("=")[0].lower().replace("-", "_").replace("__", "--", 1)
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; see --help"
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options


class RunParser(OneLineParser):
    """The parser of a script that names a run: some defaults depend on which run it is."""

    def __init__(self, **settings: Any):
        super().__init__(usage=USAGE, **settings)
        add_run_options(self)

    def defaults_of(self, dataset: str, net: str, method: str) -> dict[str, Any]:
        """The value of each option that is not given, for such runs."""
        defaults = {action.dest: action.default for action in self._actions}
        del defaults["help"]
        if dataset == OWN_IMAGES:
            defaults |= RUNS_OF_OWN_IMAGES
        defaults["noise_type"] = LABEL_SETS[dataset].default
        presets = preset_defaults(dataset, net, method)
        defaults |= {name: value for name, value in presets.items() if name in defaults}
        if dataset == OWN_IMAGES:  # those are decided when the images are counted
            defaults |= dict.fromkeys(BY_COUNT & defaults.keys())
        return defaults

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Options with the run's defaults; one line and exit status 2 if they are wrong."""
        given = self.parse_known_args(args)[0]
        dataset = given.dataset
        own = dict(RUNS_OF_OWN_IMAGES) if dataset == OWN_IMAGES else {}
        own |= {"method": "features"} if given_judges(given) else {}
        run = self.parse_known_args(args, argparse.Namespace(**own))[0]
        defaults = argparse.Namespace(**self.defaults_of(dataset, run.net, run.method))
        defaults.method = run.method
        default_of = vars(defaults).copy()
        options = super().parse_args(args, namespace or defaults)
        names, aliases = LABEL_SETS[dataset].keys, LABEL_SETS[dataset].aliases
        options.noise_type = aliases.get(options.noise_type, options.noise_type)
        if options.noise_type not in names:
            self.error(
                f"--dataset {dataset} has no --noise_type {options.noise_type}; it has "
                f"{', '.join(names)}"
            )
        if options.noise_path and dataset == "digits":
            self.error("--noise_path is for CIFAR; the labels of digits are drawn from --seed")
        if wrong := wrong_own_images(options):
            self.error(wrong)
        if not METHODS[options.method].has_student and (
            wrong := needs_student(options, default_of)
        ):
            self.error(f"{wrong}: --method {options.method} has no tipping point; leave it out")
        if wrong := without_effect(options, default_of):
            self.error(f"{wrong}; leave it out")
        detection = getattr(options, "detection", None)
        if detection == "posterior" and options.folds == 0:
            self.error("--detection posterior: needs --folds NUMBER")
        if getattr(options, "folds", 0) and options.val_ratio != default_of["val_ratio"]:
            self.error(f"--val_ratio {options.val_ratio}: --folds hold out all images in turn")
        if getattr(options, "folds", 0) and (options.folds == 1 or options.limit_train):
            self.error(f"--folds {options.folds}: needs two folds or more, and no --limit_train")
        return options


def needs_student(options: argparse.Namespace, default_of: dict[str, Any]) -> str | None:
    """The first option that is not as by default and acts from the tipping point on alone."""
    for name, value in vars(options).items():
        acts_then = name in OF_ROBUST_PHASE or (name, value) in AT_TIPPING
        if acts_then and value != default_of.get(name):
            return f"--{name}" if value is True else f"--{name} {value}"
    return None


def without_effect(options: argparse.Namespace, default_of: dict[str, Any]) -> str | None:
    """The first option that is not as by default and does nothing beside another, and why."""
    idle: dict[str, str] = {}
    if (schedule := getattr(options, "lr_schedule", "step")) != "step":
        idle |= dict.fromkeys(("lr_step", "lr_gamma"), f"--lr_schedule {schedule} has no steps")
    if getattr(options, "target", "") == "posterior" and not options.planted:
        idle |= dict.fromkeys(ALPHAS, "--target posterior has no such weights without --planted")
    for name, why in idle.items():
        if (value := getattr(options, name)) != default_of[name]:
            return f"--{name} {value}: {why}"
    return None


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that identify a run: all three scripts have them."""
    names = [(*each.keys, *each.aliases) for each in LABEL_SETS.values()]
    listed = (f"{dataset}: {', '.join(each.keys)}" for dataset, each in LABEL_SETS.items())
    defaults = (f"{dataset} {each.default}" for dataset, each in LABEL_SETS.items())
    aliases = {alias: name for each in LABEL_SETS.values() for alias, name in each.aliases.items()}
    same = (f"{alias} is the same as {name}" for alias, name in aliases.items())
    run = parser.add_argument_group("run")
    run.add_argument("--dataset", choices=list(LABEL_SETS), default="cifar10", help="data set")
    run.add_argument(
        "--noise_type",
        choices=list(dict.fromkeys(itertools.chain(*names))),
        metavar="LABEL_SET",
        help=f"label set; {'; '.join([*listed, *same])} (default: {', '.join(defaults)})",
    )
    run.add_argument("--seed", type=seed, default=0, metavar="NUMBER", help="random seed")
    add_options(run, {("method", tuple(METHODS)): METHOD_HELP, **NET})
    add_own_images(parser)
    words = "own label file in the format of CIFAR-N's, in place of the published one"
    folders = parser.add_argument_group("folders and files")
    add_options(folders, FOLDERS | {("noise_path", resolved_path, None, "FILE"): words})
    add_options(parser, DEBUG)


def add_device_options(parser: argparse.ArgumentParser, *, compiles: bool = True) -> None:
    """Where and how precisely to compute."""
    add_options(parser.add_argument_group("device"), DEVICE | (COMPILE if compiles else {}))
