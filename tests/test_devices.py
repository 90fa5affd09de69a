"""Devices and precisions, by name; what the tests themselves do with CUDA, without any."""

import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import synchronisation_refused
from utils import devices
from utils.devices import Machine, has_bf16, pick_device, pick_machine, pick_precision
from utils.seeding import Randomness

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def settings_restored():
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    yield
    for place, allowed in zip(places, before, strict=True):
        place.allow_tf32 = allowed


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """A stand-in for a GPU of that compute capability, where only branches are meant."""

    def stand_in(*capability: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capability))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    return stand_in


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": True, "amd": True}, "bf16"),
        ({"avx512_bf16": True, "amd": False}, "fp32"),
        ({"amx_bf16": True, "avx512_bf16": True, "amd": False}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({}, "fp32"),
        ("_is_amx_tile_supported", "bf16"),  # of an older torch
        ("_of_a_torch_that_has_none", "fp32"),
    ],
)
def test_auto_is_bf16_on_a_cpu_that_is_faster_with_it(
    capabilities: dict[str, bool] | str, precision: str, monkeypatch: pytest.MonkeyPatch
):
    asked = {"get_capabilities": lambda: capabilities}
    if isinstance(capabilities, str):
        asked, capabilities = {capabilities: lambda: True}, {}
    monkeypatch.setattr(torch, "cpu", SimpleNamespace(**asked))
    monkeypatch.setattr(devices, "is_amd", lambda: capabilities.get("amd"))
    assert pick_precision("auto", CPU) == precision
    assert pick_precision("bf16", CPU) == "bf16" and pick_precision("fp32", CPU) == "fp32"


def test_whose_the_cpu_is(monkeypatch: pytest.MonkeyPatch):
    for about, amd in (("vendor_id : AuthenticAMD\n", True), ("vendor_id : GenuineIntel\n", False)):
        monkeypatch.setattr(Path, "read_text", lambda *_, about=about, **__: about)
        assert devices.is_amd() == amd

    def gone(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", gone)
    monkeypatch.setattr(devices.platform, "processor", lambda: "AMD64 Family 25, AuthenticAMD")
    assert devices.is_amd()


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_auto_is_cuda_where_there_is_one_and_bf16_since_ampere(capability: tuple, gpu):
    precision = "fp32" if capability == (7, 5) else "bf16"
    gpu(*capability)
    assert has_bf16(CUDA) == (precision == "bf16")
    machine = pick_machine("auto", "auto", "auto")
    assert machine == Machine(CUDA, precision, compiled=True, plain=False)
    assert str(machine) == f"cuda, {precision}, compiled"
    gpu()
    assert pick_machine("auto", "fp32", "auto") == Machine(CPU, "fp32", False, plain=False)
    assert pick_machine("auto", "fp32", "off").plain


@pytest.mark.parametrize(("name", "allowed"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_only_tf32_rounds_the_factors_of_float32_products(name: str, allowed: bool, gpu):
    gpu(8, 0)
    assert pick_precision(name, CUDA) == name
    assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed


def test_devices_and_precisions_that_are_not_there_are_refused(gpu):
    assert pick_device("cpu") == CPU
    for name in ("tpu", "cuda:99", *["mps"] * (not torch.backends.mps.is_available())):
        with pytest.raises(ValueError, match=f"--device {name}: no such device here"):
            pick_device(name)
    with pytest.raises(ValueError, match="--precision tf32: cpu has none"):
        pick_precision("tf32", CPU)
    gpu(7, 5)
    with pytest.raises(ValueError, match="choose auto, fp32 or bf16"):
        pick_precision("tf32", CUDA)


def test_mps_is_untried_and_in_fp32(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    machine = pick_machine("mps", "auto", "auto")
    assert machine == Machine(torch.device("mps"), "fp32", compiled=False, plain=False)
    assert capsys.readouterr().out.count("--device mps: untried") == 1
    with pytest.raises(ValueError, match="choose auto or fp32"):
        pick_precision("bf16", machine.device)


def test_a_run_on_the_cpu_leaves_cudas_generators_alone(gpu, monkeypatch: pytest.MonkeyPatch):
    gpu(8, 0)
    for name in ("is_initialized", "device_count", "get_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, lambda: pytest.fail("asked CUDA"))
    randomness = Randomness(torch.Generator())
    randomness.load_state_dict(randomness.state_dict())


def test_what_forks_training_processes_has_not_asked_for_cuda():
    """A fork of one that has may not use it: "Cannot re-initialize CUDA in forked subprocess"."""
    asked = ("is_available", "device_count", "_lazy_init", "get_device_capability")
    code = "".join(f"torch.cuda.{name} = " for name in asked)
    code = f"import torch; {code}lambda *_: 1 / 0; import tests.lives"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_synchronisation_is_allowed_again_whatever_happens(monkeypatch: pytest.MonkeyPatch):
    modes = []

    def set_mode(mode: str) -> None:
        modes.append(mode)
        warnings.warn("a prototype feature", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with pytest.raises(ZeroDivisionError), synchronisation_refused():
        raise ZeroDivisionError
    assert modes == ["error", "default"]
