"""This process's environment: the libraries that take part, and the processor that they run on."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import re
from pathlib import Path

from model_store.environment import Environment

# Distributions whose versions decide what a model computes; TensorFlow comes under two names.
DISTRIBUTIONS = ("keras", "tensorflow", "tensorflow-cpu", "tf2onnx", "onnx", "onnxruntime", "numpy")
CPUINFO = Path("/proc/cpuinfo")
# What ONNX Runtime's and TensorFlow's kernels are chosen by: vector widths, fused and integer arithmetic, matrix units.
# The names are those of the kernel: `flags` of x86, `Features` of ARM.
_FEATURE = re.compile(
    r"avx|avx2|avx512\w*|avx_vnni\w*|amx_\w+|fma|f16c|sse4_2|asimd\w*|sve\w*|i8mm|bf16|fphp|sme2?|sme[if]\w+"
)
_LISTED = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)


def libraries() -> dict[str, str]:
    """Versions of the installed libraries that take part."""
    found = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name.removesuffix("-cpu")] = importlib.metadata.version(name)
    return found


@functools.cache
def here() -> Environment:
    """What this process runs with; read once."""
    return Environment(libraries(), platform.python_version(), platform.machine(), features(_cpuinfo()))


def features(cpuinfo: str) -> tuple[str, ...]:
    """The processor's features that kernels are chosen by, of the text of /proc/cpuinfo; all of its processors'."""
    listed = [set(line.split()) for line in _LISTED.findall(cpuinfo)]
    # A process is moved from one to another: what only some of them have is not relied on.
    common = set.intersection(*listed) if listed else set()
    return tuple(sorted(name for name in common if _FEATURE.fullmatch(name)))


def _cpuinfo() -> str:
    with contextlib.suppress(OSError):
        return CPUINFO.read_text(errors="replace")
    return ""
