"""Defaults that some runs have of their own, as data: by data set, network and method."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Preset(NamedTuple):
    """Defaults that hold for some runs alone."""

    runs: Mapping[str, str]  # option -> the value that these runs have
    defaults: Mapping[str, Any]


PRESETS = (  # of several that hold for a run the later ones win
    Preset({"method": "ce"}, {"detection": "final"}),
    Preset(
        {"method": "bkd+"},
        {"class_balance": 1.0, "target": "posterior", "target_for": "both"}
        | {"compensation": "naive", "planted": 0.05, "ema_decay": 0.99, "detection": "final"}
        | {"alpha1": 0.5, "alpha2": 0.7, "alpha3": 0.8, "alpha4": 1.0}
        | {"lr_schedule": "after_tipping"},
    ),
    Preset(
        {"net": "compact"},
        {"width": 32, "n_epoch": 18, "lr": 0.1, "lr_schedule": "after_tipping", "warm_up": 1.0}
        | {"augmentation": "after_tipping", "checkpoint_freq": 1}
        | {"clean_test_freq": 2, "noisy_val_freq": 2},
    ),
    Preset(
        {"net": "compact", "method": "ce"},
        {"n_epoch": 12, "lr": 0.2, "lr_schedule": "linear", "warm_up": 2.0}
        | {"augmentation": "always"},
    ),
    Preset({"net": "compact", "method": "bkd+"}, {"n_epoch": 40}),
    Preset(
        {"dataset": "digits"},
        {"width": 16, "batch_size": 64, "n_epoch": 30, "lr_step": 15, "val_ratio": 0.0},
    ),
    Preset({"dataset": "digits", "net": "compact"}, {"lr": 0.2}),
    Preset({"dataset": "folder"}, {"planted": 0.0}),
)


def preset_defaults(dataset: str, net: str, method: str) -> dict[str, Any]:
    """Defaults that such runs have of their own."""
    run = {"dataset": dataset, "net": net, "method": method}
    defaults: dict[str, Any] = {}
    for preset in PRESETS:
        if preset.runs.items() <= run.items():
            defaults |= preset.defaults
    return defaults


def presets_help() -> str:
    """All presets in words."""
    return "; ".join(f"{_words(each.runs)}: {_words(each.defaults)}" for each in PRESETS)


def _words(options: Mapping[str, Any]) -> str:
    return " ".join(f"--{name} {value}" for name, value in options.items())
