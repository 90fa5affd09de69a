"""Presets, the defaults of some data sets, networks and methods; and run folders."""

import argparse
import itertools
from pathlib import Path

import pytest

from tests.conftest import training_options
from tests.test_options import help_of
from utils.label_sets import LABEL_SETS
from utils.options import presets
from utils.options.evaluation import detection_parser, learning_parser
from utils.options.parser import NETS
from utils.options.presets import PRESETS, Preset, preset_defaults
from utils.options.training import training_parser
from utils.run_folder.folder import RunFolder

METHODS = ("bkd", "ce")
NAMES = ("dataset", "net", "method")
PUBLISHED = [name for name in LABEL_SETS if name != "folder"]  # see test_folder_runs.py
RUNS = [*itertools.product(PUBLISHED, NETS, METHODS)]
SCRIPTS_PARSERS = (training_parser, learning_parser, detection_parser)
runs = pytest.mark.parametrize("run", RUNS, ids=" ".join)


def choices_of(name: str) -> list[str]:
    (choices,) = (action.choices for action in training_parser()._actions if action.dest == name)
    return choices


def words_of(run: tuple[str, ...]) -> list[str]:
    return [word for name, value in zip(NAMES, run, strict=True) for word in (f"--{name}", value)]


@runs
def test_options_that_are_not_given_are_the_runs_defaults(run: tuple[str, ...]):
    defaults = training_parser().defaults_of(*run)
    assert vars(training_options(*words_of(run))) == defaults | dict(zip(NAMES, run, strict=True))
    papers = training_parser().defaults_of("cifar10", "preact18", "bkd")
    differing = {name for name, value in defaults.items() if papers[name] != value}
    preset = preset_defaults(*run)
    assert {name: defaults[name] for name in preset} == preset
    assert differing <= {*preset, "noise_type"}


def test_defaults_suit_the_network_and_the_method():
    for dataset, net, method in RUNS:
        defaults = training_parser().defaults_of(dataset, net, method)
        if method == "ce":  # which has no tipping point: the rate would never fall
            late = {defaults["lr_schedule"], defaults["augmentation"]}
            assert "after_tipping" not in late, (dataset, net)
    for dataset, method in itertools.product(("cifar10", "cifar100"), METHODS):
        preact, compact = (training_parser().defaults_of(dataset, net, method) for net in NETS)
        assert compact["n_epoch"] < preact["n_epoch"]


@runs
def test_an_option_that_is_given_wins(run: tuple[str, ...]):
    for name, value in preset_defaults(*run).items():
        if isinstance(value, float):
            given: object = value / 2 or 0.25
        elif isinstance(value, int):
            given = value + 1
        else:  # one of several words
            given = next(word for word in reversed(choices_of(name)) if word != value)
        for words in ([*words_of(run), f"--{name}", given], [f"--{name}", given, *words_of(run)]):
            assert getattr(training_options(*words), name) == given


def test_presets_are_values_that_may_be_given():
    for preset in PRESETS:
        words = [word for name, value in preset.runs.items() for word in (f"--{name}", value)]
        words += ["--images", "."] if preset.runs.get("dataset") == "folder" else []
        for name, value in preset.defaults.items():
            given = getattr(training_options(*words, f"--{name}", value), name)
            assert given == value and type(given) is type(value), name


def test_of_several_presets_the_later_ones_win(monkeypatch: pytest.MonkeyPatch):
    made_up = (
        Preset({"net": "compact"}, {"seed": 1, "results_dir": Path("compact")}),
        Preset({"net": "compact", "method": "ce"}, {"seed": 2}),
        Preset({"dataset": "digits"}, {"seed": 3}),
    )
    monkeypatch.setattr(presets, "PRESETS", made_up)

    def found(*words: str) -> tuple[int, str]:
        options = learning_parser().parse_args(words)
        return options.seed, str(options.results_dir)

    assert found("--method", "ce") == (0, "results")
    assert found("--net", "compact") == (1, "compact")
    assert found("--net", "compact", "--method", "ce") == (2, "compact")
    assert found("--method", "ce", "--net", "compact", "--dataset", "digits") == (3, "compact")
    assert found("--net", "compact", "--seed", "0", "--dataset", "digits") == (0, "compact")


def test_help_ends_with_the_presets(capsys: pytest.CaptureFixture):
    last = " ".join(help_of(training_parser(), capsys).split("some runs: ")[1].split())
    for preset, shown in zip(PRESETS, last.split("; "), strict=True):
        of, _, defaults = shown.partition(": ")
        assert of == " ".join(f"--{name} {value}" for name, value in preset.runs.items())
        assert defaults == " ".join(f"--{name} {value}" for name, value in preset.defaults.items())


@pytest.mark.parametrize("make", SCRIPTS_PARSERS)
def test_an_unknown_network_is_refused_in_one_line(make, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exit_:
        make().parse_args(["--net", "compakt"])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1
    assert "--net" in error and "'compakt'" in error
    assert all(net in error for net in NETS)


def test_each_run_has_a_folder_of_its_own_which_all_scripts_find():
    folders = {}
    for run in RUNS:
        words = [*words_of(run), "--seed", "7", "--results_dir", "there"]
        made = {str(folder_of(make().parse_args(words))) for make in SCRIPTS_PARSERS}
        (folders[run],) = made
    assert len(set(folders.values())) == len(RUNS)
    assert folders["cifar10", "preact18", "bkd"] == "there/cifar10_worst_seed_7"
    assert folders["cifar10", "preact18", "ce"] == "there/cifar10_worst_seed_7_ce"
    assert folders["digits", "compact", "bkd"] == "there/digits_worst_seed_7_compact"
    assert folders["cifar100", "compact", "ce"] == "there/cifar100_noisy100_seed_7_compact_ce"


def folder_of(args: argparse.Namespace) -> Path:
    return RunFolder.of(args).path
