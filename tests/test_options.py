"""The command line: the authors' defaults, presets, and refusals in one line."""

from utils.startup import run_script

import argparse
import re
from pathlib import Path

import pytest

from data.digits import TRANSITIONS
from tests import benchmark
from tests.conftest import training_options
from utils.label_sets import LABEL_SETS
from utils.options.evaluation import detection_parser, learning_parser
from utils.options.training import training_parser

AUTHORS_DEFAULTS = {
    "lr": 0.02,
    "val_ratio": 0.1,
    "noise_type": "worst",
    "noise_path": None,
    "dataset": "cifar10",
    "n_epoch": 300,
    "seed": 0,
    "print_freq": 100,
    "num_workers": 4,
    "batch_size": 128,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "clean_test_freq": 10,
    "noisy_val_freq": 10,
    "alpha1": 0.30,
    "alpha2": 0.45,
    "alpha3": 0.55,
    "alpha4": 0.70,
    "lr_step": 150,
    "lr_gamma": 0.1,
    "data_dir": Path("~/data").expanduser(),
    "results_dir": Path("results"),
    "device": "auto",
    "net": "preact18",
    "width": 64,
    "augmentation": "always",
    "lr_schedule": "step",
    "warm_up": 0.0,
    "limit_train": None,
    "method": "bkd",
    "detach_student_target": False,
    "masked_mean": False,
    "precision": "auto",
    "compile": "auto",
    "checkpoint_freq": 5,
    "restart": False,
    "deterministic": False,
    "quiet": False,
    "no_plots": False,
    "tensorboard": False,
}

DEPARTURES = {  # all off
    "detection": "split",
    "class_balance": 0.0,
    "ensemble_momentum": 0.7,
    "target": "student",
    "target_for": "teacher",
    "compensation": "always",
    "mixup": 0.0,
    "ema_decay": 0.0,
}
AN_EXISTING_COMMAND = """
    --lr 0.05 --val_ratio 0 --noise_type rand1 --noise_path labels.pt --dataset cifar10 --n_epoch 3
    --seed 7 --print_freq 50 --num_workers 8 --batch_size 64 --momentum 0.8 --weight_decay 0.001
    --clean_test_freq 1 --noisy_val_freq 2 --alpha1 0.1 --alpha2 0.2 --alpha3 0.3 --alpha4 0.4
"""


def test_defaults_are_the_authors():
    args = vars(training_parser().parse_args([]))
    assert {name: args[name] for name in AUTHORS_DEFAULTS} == AUTHORS_DEFAULTS
    others = {"images", "manifest", "image_size", "no_flip", "measure_steps", "debug"}
    assert set(args) == {*AUTHORS_DEFAULTS, *DEPARTURES, *others}
    assert {name: args[name] for name in DEPARTURES} == DEPARTURES


def test_an_existing_command_runs_unchanged():
    words = AN_EXISTING_COMMAND.split()
    args = vars(training_options(*words))
    for name, text in zip(words[::2], words[1::2], strict=True):
        value = args[name.removeprefix("--")]
        if isinstance(value, Path):
            assert value == Path(text).resolve()  # so that the run can be evaluated from anywhere
        else:
            assert str(value) in (text, f"{text}.0")


def test_digits_have_a_preset_and_any_given_option_wins():
    args = training_options("--dataset", "digits")
    assert (args.width, args.batch_size, args.n_epoch, args.lr_step) == (16, 64, 30, 15)
    assert (args.lr, args.lr_gamma, args.val_ratio, args.noise_type) == (0.02, 0.1, 0.0, "worst")
    assert training_options("--n_epoch", 300, "--dataset", "digits").n_epoch == 300


def test_aliases():
    assert training_options("--noise_type", "worse").noise_type == "worst"
    assert training_options("--dataset", "cifar100").noise_type == "noisy100"


def test_the_digits_have_each_label_set_that_is_offered():
    assert set(LABEL_SETS["digits"].keys) == {*TRANSITIONS, "clean"}


@pytest.mark.parametrize(
    "words",
    [
        "--val_ratio 1",
        "--val_ratio -0.1",
        "--val_ratio nan",
        "--batch_size 0",
        "--batch_size 1.5",
        "--n_epoch 0",
        "--n_epoch many",
        "--seed -1",
        "--seed 4294967296",
        "--alpha1 1.1",
        "--alpha4 -0.1",
        "--lr 0",
        "--lr inf",
        "--lr nan",
        "--lr_step 0",
        "--width 0",
        "--limit_train 0",
        "--momentum 1",
        "--weight_decay -1",
        "--num_workers -1",
        "--print_freq 0",
        "--dataset mnist",
        "--precision half",
        "--compile maybe",
        "--noise_type symmetric",
        "--method dividemix",
        "--net wideresnet",
        "--lr_schedule cosine",
        "--augmentation never",
        "--dataset cifar100 --noise_type worst",
        "--dataset cifar10 --noise_type noisy100",
        "--dataset digits --noise_type rand2",
        "--dataset digits --noise_path labels.pt",
        "--n_epo 3",
        "--batch_size 99999999999999999999",
        "--measure_steps 99999999999999999999",
        "--results_dir=",
        "--data_dir=",
    ],
)
def test_bad_options_are_refused_in_one_line(words: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exit_:
        training_options(*words.split())
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2
    assert stderr.count("\n") == 1 and "error:" in stderr
    name, _, value = words.split(" --")[-1].removeprefix("--").replace("=", " ").partition(" ")
    assert (value if value != "3" else name) in stderr or name in (
        "data_dir",
        "results_dir",
        "noise_path",
    )
    assert name in stderr


def test_a_missing_pair_is_refused_by_name(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        training_options("--dataset", "cifar100", "--noise_type", "worst")
    stderr = capsys.readouterr().err
    assert "cifar100" in stderr and "worst" in stderr and "noisy100" in stderr


PARSERS = pytest.mark.parametrize(
    "parser",
    [
        training_parser(),
        learning_parser(),
        detection_parser(),
        benchmark.make_parser(),
    ],
    ids=["training", "learning", "detection", "benchmark"],
)


def help_of(parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(["--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


@PARSERS
def test_help_explains_every_option(parser, capsys: pytest.CaptureFixture):
    explained = help_of(parser, capsys).split("show this help message")[1]
    shown = [action for action in parser._actions[1:] if action.help != argparse.SUPPRESS]
    assert len(shown) <= 48
    hidden = {action.dest for action in parser._actions[1:]} - {action.dest for action in shown}
    assert hidden <= {"num_workers", "print_freq", "checkpoint_freq", "quiet", "no_plots", "debug"}
    for action in shown:
        _, own = re.split(rf"  {action.option_strings[-1]}(?=\s)", explained, maxsplit=1)
        own = " ".join(own.split("  --")[0].split())
        assert action.help and action.help.split()[0] in own
        takes_a_value = action.nargs != 0
        has_default = action.default is not None or action.dest == "noise_type"
        assert ("default: " in own) == (takes_a_value and has_default)
        if takes_a_value and not action.choices:
            assert action.metavar and action.metavar.isupper()  # its unit


@PARSERS
def test_help_is_grouped_and_fits(parser, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("COLUMNS", "250")
    lines = help_of(parser, capsys).splitlines()
    assert max(map(len, lines)) <= 100
    grouped = [action for group in parser._action_groups[2:] for action in group._group_actions]
    assert {action.dest for action in parser._actions} - {action.dest for action in grouped} <= {
        "help",
        "debug",
        "run_dir",
        "prediction",
    }


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        ("--n_epochs 3", "--n_epoch"),
        ("--n-epoch 3", "--n_epoch"),
        ("--Seed=3", "--seed"),
        ("--learning_rat 3", None),
        ("--noise aggre", "--noise_type"),
        ("--batchsize 3 --alpha 2", "--batch_size"),
    ],
)
def test_an_unknown_option_gets_a_suggestion(words: str, suggested: str, capsys):
    with pytest.raises(SystemExit) as exit_:
        training_options(*words.split())
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.count("\n") == 1 and words.split()[0] in stderr
    assert (f"did you mean {suggested}?" if suggested else "see --help") in stderr


def test_errors_inside_of_a_script_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def main(args: argparse.Namespace) -> None:
        raise ValueError(f"--lr {args.lr}: too hot")

    monkeypatch.setattr("sys.argv", ["there/script.py"])
    with pytest.raises(SystemExit) as exit_:
        run_script(main, training_options("--lr", 3))
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "script.py: error: --lr 3.0: too hot\n"
    with pytest.raises(ValueError, match="too hot"):
        run_script(main, training_options("--lr", 3, "--debug"))
