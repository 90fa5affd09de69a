"""For any input: readers return or raise the documented error, the split fits its definition."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data.cifar_n import read_label_file
from models.noise_split import otsu, student_weights, trust_groups
from models.weights import network_from_state
from tests import oracle
from tests.test_label_files import saved
from utils.files import read_array, read_arrays, read_json, read_tensors

quickly = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def numpys(save: Callable[..., None], *content: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *content, **named)
    return buffer.getvalue()


LABELS = {"clean_label": np.arange(20) % 10, "worse_label": (np.arange(20) % 10).tolist()}
SEEDS = {
    "labels": [saved(LABELS, zipped) for zipped in (True, False)],
    "tensors": [saved({"state_dict": {"a": torch.ones(3)}, "epoch": 1})],
    "array": [numpys(np.save, np.arange(9) > 3)],
    "arrays": [numpys(np.savez_compressed, a=np.arange(9), b=np.array("x"))],
    "json": [json.dumps({"options": {"seed": 0}}).encode()],
}
READERS: dict[str, Callable[[Path], object]] = {
    "labels": read_label_file,
    "tensors": lambda path: read_tensors(path, "checkpoint", "train again"),
    "array": lambda path: read_array(path, "train again"),
    "arrays": read_arrays,
    "json": read_json,
}


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A whole file truncated, with bytes changed, inserted or left out."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 40))] = draw(st.binary(max_size=40))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@pytest.mark.parametrize("kind", READERS)
@quickly
@given(data=st.data())
def test_readers_name_the_file_they_cannot_read(kind: str, data: st.DataObject, tmp_path: Path):
    path = tmp_path / "file"
    whole = data.draw(st.sampled_from(SEEDS[kind]))
    path.write_bytes(data.draw(st.binary(max_size=300) | damaged(whole)))
    try:
        READERS[kind](path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@quickly
@given(
    st.dictionaries(
        st.sampled_from(["conv1.weight", "linear.weight", "layer1.0.conv1.weight", "x"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.text(max_size=3),
            st.lists(st.integers(0, 3), max_size=4).map(torch.zeros),
        ),
    )
)
@example({"conv1.weight": torch.zeros(0, 0), "linear.weight": ""})
@example({"whitening.weight": torch.zeros(2, 0), "blocks.0.conv1.weight": "", "head.weight": "x"})
@example({"whitening.weight": torch.ones(8, 1, 2, 2)})
@example({"blocks.0.conv1.weight": torch.ones(4, 8, 3, 3), "head.weight": torch.ones(7, 4)})
def test_states_of_other_networks_are_refused(state: dict):
    with pytest.raises(ValueError, match="not the weights of a"):
        network_from_state(state)


scores = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60)


@quickly
@given(scores)
def test_groups_are_those_of_the_slow_loop(numbers: list[float]):
    tensor = torch.tensor(numbers)
    split = otsu(tensor)
    cuts = oracle.otsu_cuts(tensor.double().tolist())
    assert (split is None) == (not any(cuts))
    if split:
        # The high mean may be below the threshold by the width of one bin.
        assert 0 <= split.low_mean <= split.threshold <= split.high_mean + 1e-9
        best = max(cut.quality for cut in cuts if cut)
        chosen = cuts[round(split.threshold * 1000)]
        assert chosen and chosen.quality == pytest.approx(best, rel=1e-6)
        groups = oracle.trust_groups(tensor.double().tolist(), *split)
        assert trust_groups(tensor, split).tolist() == groups


@quickly
@given(scores, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_student_weights_are_the_groups_alphas_or_zero(numbers: list[float], alphas: list[float]):
    tensor = torch.tensor(numbers)
    split = otsu(tensor)
    expected = [alphas[group - 1] if split else 0 for group in trust_groups(tensor, split)]
    assert student_weights(tensor, alphas).tolist() == expected
