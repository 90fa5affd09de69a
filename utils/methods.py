"""Which training methods there are. Imports nothing heavy: the option parser reads this too."""

from typing import NamedTuple


class Method(NamedTuple):
    """A training method; its defaults are in utils/options/presets.py, its loss in models/."""

    words: str  # for the help
    has_student: bool = True  # False: one network alone, without a tipping point or a split
    has_networks: bool = True  # False: nothing is trained


METHODS = {
    "bkd": Method("Blind Knowledge Distillation, as published"),
    "bkd+": Method("bkd with the departures from the paper that pay"),
    "ce": Method(
        "the baseline, one network trained with plain cross-entropy on the given labels",
        has_student=False,
    ),
    "features": Method(
        "no network: own labels are judged by logistic regression on features, or by probabilities "
        "that are given",
        has_student=False,
        has_networks=False,
    ),
}
METHOD_HELP = "; ".join(f"{name}: {method.words}" for name, method in METHODS.items())
