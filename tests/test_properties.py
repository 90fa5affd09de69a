"""For any input: readers return or raise the documented error."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.cifar_n import read_label_file
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
