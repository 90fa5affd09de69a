"""The command line: the authors' defaults, presets, run folders, and refusals in one line."""

from utils.startup import run_script

import argparse
import itertools
import re
from pathlib import Path

import pytest

from tests import benchmark
from tests.conftest import training_options
from utils.label_sets import LABEL_SETS
from utils.options import presets
from utils.options.departures import DEPARTURES
from utils.options.evaluation import detection_parser, learning_parser
from utils.options.parser import NETS
from utils.options.presets import PRESETS, Preset, preset_defaults
from utils.options.training import training_parser
from utils.run_folder.folder import RunFolder

AUTHORS_DEFAULTS = """
    --lr 0.02 --val_ratio 0.1 --noise_type worst --dataset cifar10 --n_epoch 300 --seed 0
    --print_freq 100 --num_workers 4 --batch_size 128 --momentum 0.9 --weight_decay 0.0005
    --clean_test_freq 10 --noisy_val_freq 10 --alpha1 0.30 --alpha2 0.45 --alpha3 0.55 --alpha4 0.70
    --lr_step 150 --lr_gamma 0.1 --data_dir ~/data --results_dir results
"""
OUR_DEFAULTS = """
    --device auto --net preact18 --width 64 --augmentation always --lr_schedule step --warm_up 0
    --method bkd --precision auto --compile auto --checkpoint_freq 5
    --detection split --class_balance 0 --ensemble_momentum 0.7 --target student
    --target_for teacher --compensation always --mixup 0 --ema_decay 0 --folds 0 --fold 0
    --planted 0 --strong_views 0
"""
OFF = ("detach_student_target", "masked_mean", "restart", "deterministic", "quiet", "no_plots")
OFF += ("tensorboard", "no_flip", "debug")
NOT_GIVEN = ("noise_path", "limit_train", "images", "manifest", "image_size", "measure_steps")
NOT_GIVEN += ("columns", "features", "backbone", "probabilities")
AN_EXISTING_COMMAND = """
    --lr 0.05 --val_ratio 0 --noise_type rand1 --noise_path labels.pt --dataset cifar10 --n_epoch 3
    --seed 7 --print_freq 50 --num_workers 8 --batch_size 64 --momentum 0.8 --weight_decay 0.001
    --clean_test_freq 1 --noisy_val_freq 2 --alpha1 0.1 --alpha2 0.2 --alpha3 0.3 --alpha4 0.4
"""
REFUSED = """
    --val_ratio 1; --val_ratio -0.1; --val_ratio nan; --batch_size 0; --batch_size 1.5;
    --batch_size 99999999999999999999; --measure_steps 99999999999999999999; --n_epoch 0;
    --n_epoch many; --seed -1; --seed 4294967296; --alpha1 1.1; --alpha4 -0.1; --lr 0; --lr inf;
    --lr nan; --lr_step 0; --width 0; --limit_train 0; --momentum 1; --weight_decay -1;
    --num_workers -1; --print_freq 0; --dataset mnist; --precision half; --compile maybe;
    --noise_type symmetric; --method dividemix; --net wideresnet; --lr_schedule cosine;
    --augmentation never; --dataset cifar10 --noise_type noisy100;
    --dataset digits --noise_type rand2
"""
SCRIPTS_PARSERS = {
    "training": training_parser,
    "learning": learning_parser,
    "detection": detection_parser,
}
METHODS = ("bkd", "ce")
NAMES = ("dataset", "net", "method")
PUBLISHED = [name for name in LABEL_SETS if name != "folder"]  # see test_folder_runs.py
RUNS = [*itertools.product(PUBLISHED, NETS, METHODS)]
runs = pytest.mark.parametrize("run", RUNS, ids=" ".join)


def refusal(parser: argparse.ArgumentParser, words: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(words)
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2
    assert stderr.count("\n") == 1 and "error:" in stderr
    return stderr


def words_of(run: tuple[str, ...]) -> list[str]:
    return [word for name, value in zip(NAMES, run, strict=True) for word in (f"--{name}", value)]


def test_defaults_are_the_authors():
    args = vars(training_parser().parse_args([]))
    assert args == vars(training_parser().parse_args(f"{AUTHORS_DEFAULTS} {OUR_DEFAULTS}".split()))
    assert {name for name, value in args.items() if value is False} == {*OFF}
    assert {name for name, value in args.items() if value is None} == {*NOT_GIVEN}
    assert set(args) == {*re.findall(r"--(\w+)", AUTHORS_DEFAULTS + OUR_DEFAULTS), *OFF, *NOT_GIVEN}


def test_an_existing_command_runs_unchanged():
    words = AN_EXISTING_COMMAND.split()
    args = vars(training_options(*words))
    for name, text in zip(words[::2], words[1::2], strict=True):
        value = args[name.removeprefix("--")]
        if isinstance(value, Path):
            assert value == Path(text).resolve()  # so that the run can be evaluated from anywhere
        else:
            assert str(value) in (text, f"{text}.0")


def test_aliases():
    assert training_options("--noise_type", "worse").noise_type == "worst"
    assert training_options("--dataset", "cifar100").noise_type == "noisy100"


@pytest.mark.parametrize("words", [words.strip() for words in REFUSED.split(";")])
def test_bad_options_are_refused_with_name_and_value(words: str, capsys):
    said = refusal(training_parser(), words.split(), capsys)
    name, value = words.split()[-2:]
    assert name in said and value in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--dataset digits --noise_path labels.pt", "--noise_path"),
        ("--results_dir=", "--results_dir"),
        ("--data_dir=", "--data_dir"),
        ("--dataset cifar100 --noise_type worst", "cifar100 has no --noise_type worst; .*noisy100"),
        ("--n_epo 3", "--n_epo 3; did you mean --n_epoch?"),
        ("--n_epochs 3", "did you mean --n_epoch?"),
        ("--n-epoch 3", "--n-epoch 3; did you mean --n_epoch?"),
        ("--Seed=3", "--Seed=3; did you mean --seed?"),
        ("--learning_rat 3", "--learning_rat 3; see --help"),
        ("--noise aggre", "did you mean --noise_type?"),
        ("--batchsize 3 --alpha 2", "did you mean --batch_size?"),
        (
            "--dataset digits --method ce --detection split",
            "split: --method ce has no tipping point",
        ),
        ("--method ce --strong_views 1", "--strong_views 1.0: --method ce has no tipping point"),
        ("--method bkd+ --lr_step 40", "--lr_step 40: --lr_schedule after_tipping has no steps"),
        ("--net compact --method ce --lr_gamma 0.2", "0.2: --lr_schedule linear has no steps"),
        ("--target posterior --alpha2 0.5", "--alpha2 0.5: .* without --planted"),
        ("--method ce --masked_mean", "--masked_mean: --method ce"),
        ("--net compact --method ce --augmentation after_tipping", "after_tipping: --method ce"),
        ("--dataset folder --images . --features x --alpha1 0", "0.0: --method features has no"),
        ("--dataset folder", "needs --images FOLDER"),
        ("--dataset folder --images . --noise_path x", "--noise_path is for CIFAR"),
        ("--dataset folder --images . --image_size 33", "invalid choice: 33"),
        ("--dataset folder --images . --noise_type worst", "has no --noise_type worst"),
        ("--dataset folder --images=", "is empty"),
        ("--dataset cifar10 --no_flip", "--no_flip is for --dataset folder, not cifar10"),
        ("--dataset folder --images . --features . --backbone x", "needs one of --features"),
        ("--dataset folder --images . --method features", "needs one of --features"),
        ("--dataset folder --images . --method ce --backbone x", "is for --method features"),
        (
            "--dataset folder --images . --backbone x --limit_train 9",
            "--limit_train is for methods",
        ),
        ("--dataset digits --backbone x", "--method features is for --dataset folder, not digits"),
        ("--dataset folder --images . --backbone x --folds 0", "--folds 0: --backbone takes 2"),
        ("--dataset folder --images . --probabilities x --folds 3", "--probabilities takes none"),
        ("--dataset folder --images . --folds 1", "needs two folds or more"),
        (
            "--dataset folder --images . --features x --val_ratio 0",
            "--val_ratio 0.0 is for methods",
        ),
        ("--dataset folder --images . --features x --detection final", "--detection final is for"),
        ("--dataset digits --folds 3 --val_ratio 0.2", "--val_ratio 0.2: --folds hold out all"),
        ("--strong_views 1e39", "--strong_views"),
        ("--dataset folder --images . --folds 0 --detection posterior", "needs --folds NUMBER"),
        ("--dataset digits --images .", "--images is for --dataset folder, not digits"),
        ("--columns path", "'path' is not IMAGE=LABEL, two headings such as path=class"),
        ("--columns a=b=c", "'a=b=c' is not IMAGE=LABEL"),
        ("--columns =a", "'=a' is not IMAGE=LABEL"),
        ("--columns a=a", "'a=a' is not IMAGE=LABEL"),
        ("--dataset digits --manifest .", "--manifest is for --dataset folder, not digits"),
    ],
)
def test_wrong_words_get_a_hint(words: str, named: str, capsys):
    said = refusal(training_parser(), words.split(), capsys)
    assert re.search(named.replace("?", r"\?"), said), said


def help_of(parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(["--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "parser",
    [*(make() for make in SCRIPTS_PARSERS.values()), benchmark.make_parser()],
    ids=[*SCRIPTS_PARSERS, "benchmark"],
)
def test_help_explains_every_option_in_groups(parser, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("COLUMNS", "250")
    text = help_of(parser, capsys)
    assert max(map(len, text.splitlines())) <= 100
    explained = text.split("show this help message")[1]
    shown = [action for action in parser._actions[1:] if action.help != argparse.SUPPRESS]
    assert len(shown) <= 48
    hidden = {action.dest for action in parser._actions[1:]} - {action.dest for action in shown}
    old = {"num_workers", "print_freq", "checkpoint_freq", "quiet", "no_plots", "debug", "fold"}
    assert hidden <= old | {name for name, *_ in DEPARTURES} | {"warm_up"}
    for action in shown:
        _, own = re.split(rf"  {action.option_strings[-1]}(?=\s)", explained, maxsplit=1)
        own = " ".join(own.split("  --")[0].split())
        assert action.help and action.help.split()[0] in own
        takes_a_value = action.nargs != 0
        has_default = action.default is not None or action.dest == "noise_type"
        assert ("default: " in own) == (takes_a_value and has_default)
        if takes_a_value and not action.choices:
            assert action.metavar and action.metavar.isupper()  # its unit
    grouped = [action for group in parser._action_groups[2:] for action in group._group_actions]
    ungrouped = {action.dest for action in parser._actions} - {action.dest for action in grouped}
    assert ungrouped <= {"help", "debug", "run_dir", "prediction"}


def test_errors_inside_of_a_script_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys):
    def fail(args: argparse.Namespace) -> None:
        raise error(f"--lr {args.lr}: too hot")

    monkeypatch.setattr("sys.argv", ["there/script.py"])
    error, hot = ValueError, training_options("--lr", 3)
    with pytest.raises(SystemExit) as exit_:
        run_script(fail, hot)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "script.py: error: --lr 3.0: too hot\n"
    with pytest.raises(ValueError, match="too hot"):
        run_script(fail, training_options("--lr", 3, "--debug"))
    error = RuntimeError  # a mistake of our own keeps its traceback
    with pytest.raises(RuntimeError, match="too hot"):
        run_script(fail, hot)


@runs
def test_options_that_are_not_given_are_the_runs_defaults(run: tuple[str, ...]):
    defaults = training_parser().defaults_of(*run)
    given = vars(training_parser().parse_args(words_of(run)))
    assert given == defaults | dict(zip(NAMES, run, strict=True))
    papers = training_parser().defaults_of("cifar10", "preact18", "bkd")
    differing = {name for name, value in defaults.items() if papers[name] != value}
    preset = preset_defaults(*run)
    assert {name: defaults[name] for name in preset} == preset
    assert differing <= {*preset, "noise_type"}
    if run[2] == "ce":  # which has no tipping point: the rate would never fall
        assert "after_tipping" not in {defaults["lr_schedule"], defaults["augmentation"]}


@runs
def test_an_option_that_is_given_wins(run: tuple[str, ...]):
    choices = {action.dest: action.choices for action in training_parser()._actions}
    for name, value in preset_defaults(*run).items():
        if isinstance(value, float):
            given: object = value / 2 or 0.25
        elif isinstance(value, int):
            given = value + 1
        else:  # one of several words
            refused = {value, "after_tipping"} if run[2] == "ce" else {value}
            given = next((word for word in reversed(choices[name]) if word not in refused), value)
        run_words = words_of(run) + ["--lr_schedule", "step"] * (name == "lr_step")
        for words in ([*run_words, f"--{name}", given], [f"--{name}", given, *run_words]):
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
    for words, seed, results in (
        ("--method ce", 0, "results"),
        ("--net compact", 1, "compact"),
        ("--net compact --method ce", 2, "compact"),
        ("--method ce --net compact --dataset digits", 3, "compact"),
        ("--net compact --seed 0 --dataset digits", 0, "compact"),
    ):
        options = learning_parser().parse_args(words.split())
        assert (options.seed, str(options.results_dir)) == (seed, results), words


def test_help_ends_with_the_presets(capsys: pytest.CaptureFixture):
    last = " ".join(help_of(training_parser(), capsys).split("some runs: ")[1].split())
    for preset, shown in zip(PRESETS, last.split("; "), strict=True):
        words = [
            " ".join(f"--{name} {value}" for name, value in options.items())
            for options in (preset.runs, preset.defaults)
        ]
        assert shown == ": ".join(words)


def test_each_run_has_a_folder_of_its_own_which_all_scripts_find():
    folders = {}
    for run in RUNS:
        words = [*words_of(run), "--seed", "7", "--results_dir", "there"]
        parsed = (make().parse_args(words) for make in SCRIPTS_PARSERS.values())
        (folders[run],) = {str(RunFolder.of(args)) for args in parsed}
    assert len(set(folders.values())) == len(RUNS)
    assert folders["cifar10", "preact18", "bkd"] == "there/cifar10_worst_seed_7"
    assert folders["cifar10", "preact18", "ce"] == "there/cifar10_worst_seed_7_ce"
    assert folders["digits", "compact", "bkd"] == "there/digits_worst_seed_7_compact"
    assert folders["cifar100", "compact", "ce"] == "there/cifar100_noisy100_seed_7_compact_ce"
