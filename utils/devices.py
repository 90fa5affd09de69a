"""Which device to run on, and how precisely."""

import platform
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from utils.console import say

try:
    import resource
except ImportError:  # Windows
    resource = None


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto": CUDA where there is one, else the CPU.

    Raises ValueError, with a hint, for a name that is none and for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("untried")
        torch.empty(0, device=device)
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # streams and graphs belong to the current one
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {name}: no such device here; choose auto, cpu, cuda, cuda:N or mps"
        ) from error
    if device.type == "mps":
        say("--device mps: untried; compare the first epochs with those of --device cpu")
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """fp32, tf32 or bf16; "auto": bf16 where the device has it in hardware and is fast with
    it, else fp32.

    Also tells torch whether CUDA may round the factors of float32 products to TF32.
    Raises ValueError for tf32 where there is none, and for bf16 on MPS.
    """
    if name == "auto":
        name = "bf16" if has_bf16(device) else "fp32"
    if name == "tf32" and not (device.type == "cuda" and has_bf16(device)):
        raise ValueError(
            f"--precision tf32: {device} has none, NVIDIA's GPUs have since Ampere; "
            "choose auto, fp32 or bf16"
        )
    if name == "bf16" and device.type == "mps":
        raise ValueError("--precision bf16: untried with --device mps; choose auto or fp32")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    return name


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers in hardware, and fast."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere, which has TF32 too
    if device.type == "mps":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        vectors, tiles = (getattr(torch.cpu, name, bool)() for name in names)
    else:
        capabilities = torch.cpu.get_capabilities()
        vectors, tiles = (bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))
    return tiles or (vectors and is_amd())


def is_amd() -> bool:
    """Whether the CPU is AMD's, whose AVX512-BF16 alone is fast; Intel's needs AMX."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        about = platform.processor()
    return "AuthenticAMD" in about


class Machine(NamedTuple):
    """What a run computes on, and how."""

    device: torch.device
    precision: str  # fp32, tf32 or bf16
    compiled: bool
    plain: bool  # op by op in fp32, as written

    @property
    def memory_format(self) -> torch.memory_format:
        """That of images and weights."""
        return torch.contiguous_format if self.plain else torch.channels_last

    def __str__(self) -> str:
        manner = ", compiled" if self.compiled else ", plain" if self.plain else ""
        return f"{self.device}, {self.precision}{manner}"


def pick_machine(device: str, precision: str, compile: str) -> Machine:
    """The machine that the options of these names ask for; raises ValueError with a hint."""
    where = pick_device(device)
    chosen = pick_precision(precision, where)
    compiled = compile == "on" or (compile == "auto" and where.type == "cuda")
    return Machine(where, chosen, compiled, plain=chosen == "fp32" and compile == "off")


def peak_memory_gib(device: torch.device) -> float | None:
    """Largest memory in use so far, in GiB: the device's on CUDA, else this process's.

    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
