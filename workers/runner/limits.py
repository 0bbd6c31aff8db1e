"""Resource limits of a runner: chosen by the parent, set by the child on itself before it imports anything heavy."""

from __future__ import annotations

import json
import resource
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.settings import RunnerSettings

# Between the signal that ends a process out of processor time and the one that it could not even catch.
CPU_GRACE_SECONDS = 2
# What Python and native libraries say when address space runs out, the latter just before they abort. TensorFlow cannot
# start a thread then, and the loader cannot map a library.
OUT_OF_MEMORY = (
    "MemoryError",
    "bad_alloc",
    "out of memory",
    "Cannot allocate memory",
    "Failed to allocate memory",  # ONNX Runtime's arena
    "OOM when allocating",
    "mmap error: 12",
    "pthread_create() failed",
    "can't start new thread",
    "failed to map segment",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one runner may take; TensorFlow alone needs about 3 GiB of `memory_bytes`, which counts address space."""

    memory_bytes: int
    file_bytes: int
    open_files: int
    # Processor time over the runner's whole life. None for one that serves: it lives for days, and each call has a
    # time-out of its own in the parent.
    cpu_seconds: int | None = None
    threads: int = 1
    answer_bytes: int = 256 * 1024**2

    @classmethod
    def of(cls, settings: RunnerSettings) -> Limits:
        return cls(
            settings.runner_memory_bytes,
            settings.runner_file_bytes,
            settings.runner_open_files,
            threads=settings.inference_threads,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Limits:
        return cls(**json.loads(text))

    def apply(self) -> None:
        """Set the limits on this process, for good: soft and hard alike, and no core files."""
        _limit(resource.RLIMIT_AS, self.memory_bytes)
        _limit(resource.RLIMIT_FSIZE, self.file_bytes)
        _limit(resource.RLIMIT_NOFILE, self.open_files)
        _limit(resource.RLIMIT_CORE, 0)
        if self.cpu_seconds is not None:
            # At the soft limit the kernel sends SIGXCPU, which tells the parent why; at the hard one SIGKILL.
            _limit(resource.RLIMIT_CPU, self.cpu_seconds, self.cpu_seconds + CPU_GRACE_SECONDS)


def tells_of_memory(text: str) -> bool:
    """Whether an error's text, or a process's last words, say that the memory limit was met."""
    return any(words in text for words in OUT_OF_MEMORY)


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower one limit; a limit that the surroundings set lower already stays."""
    _, present = resource.getrlimit(kind)
    ceiling = soft if hard is None else hard
    if present != resource.RLIM_INFINITY:
        ceiling = min(ceiling, present)
    resource.setrlimit(kind, (min(soft, ceiling), ceiling))
