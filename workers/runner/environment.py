"""The environment variables of a runner."""

from __future__ import annotations

from pathlib import Path

import workers
from workers.runner.limits import Limits
from workers.runner.scratch import Scratch


def environment(folders: Scratch, limits: Limits) -> dict[str, str]:
    """All variables of a runner with these folders: nothing of the parent's, so no setting and no secret."""
    threads = str(limits.threads)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folders.home),
        "TMPDIR": str(folders.tmp),
        "PYTHONPATH": str(Path(workers.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        "KERAS_HOME": str(folders.home),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "CUDA_VISIBLE_DEVICES": "-1",
        # Every arena reserves 64 MiB of the address space that the memory limit counts.
        "MALLOC_ARENA_MAX": "2",
        # Arrow's own allocator keeps a gigabyte of address space in hand.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        # No filter plug-in of HDF5 may be loaded.
        "HDF5_PLUGIN_PATH": "/nonexistent",
        "HDF5_PLUGIN_PRELOAD": "::",
    }
