"""Devices and precisions, by name."""

import pytest
import torch

from utils.devices import has_bf16, pick_device, pick_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def settings_restored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32, raising=True
    )
    before = torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_is_bf16_on_a_cpu_that_has_it(
    capabilities: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert pick_precision("auto", CPU) == precision
    assert pick_precision("bf16", CPU) == "bf16" and pick_precision("fp32", CPU) == "fp32"


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_is_bf16_on_cuda_since_ampere(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", CUDA) == precision
    assert has_bf16(CUDA) == (precision == "bf16")


@pytest.mark.parametrize(("name", "allowed"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_only_tf32_rounds_the_factors_of_float32_products(
    name: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert pick_precision(name, CUDA) == name
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed


def test_tf32_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="--precision tf32: cpu has none"):
        pick_precision("tf32", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match="choose auto, fp32 or bf16"):
        pick_precision("tf32", CUDA)


def test_device_names():
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("tpu", "mps", "cuda:99"):
        with pytest.raises(ValueError, match=f"--device {name}: no such device here"):
            pick_device(name)
