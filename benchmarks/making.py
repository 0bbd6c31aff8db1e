"""Making models with TensorFlow, in a process of its own: nothing of it stays in the one that measures."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.failures import BenchmarkFailed
from benchmarks.machine import ROOT

QUIET = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


def make_models(module: str, *arguments: str, seconds: float) -> None:
    """Run a module that makes models; raises BenchmarkFailed with the end of what it said."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, env=os.environ | QUIET, capture_output=True, text=True, cwd=ROOT, timeout=seconds, check=False
    )
    if done.returncode != 0:
        raise BenchmarkFailed(f"the models could not be made: {done.stderr[-2000:]}")
