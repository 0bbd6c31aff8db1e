"""Predictions for more instances than one request holds: in batches, several at once, in order, kept if need be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from sluice.answers import SluiceFailed
from sluice.calls import Calls, Prediction
from sluice.checkpoint import Checkpoint, digest_of
from sluice.described_model import Tensor
from sluice.link import Link
from sluice.map_options import MapOptions
from sluice.predicted import Answer, chosen
from sluice.submit_options import require_known
from sluice.targets import Target


@dataclass(frozen=True, slots=True)
class Mapped:
    """What `map` was asked for."""

    target: Target
    batch: int
    concurrency: int
    outputs: str | Sequence[str] | None
    checkpoint: str | Path | None
    progress: bool

    @classmethod
    def of(cls, model: str, options: MapOptions) -> Mapped:
        """Raises ValueError for a number that is none, TypeError for an option that there is not."""
        require_known(options, MapOptions)
        return cls(
            Target(model, options.get("version"), options.get("label")),
            options.get("batch", 32),
            options.get("concurrency", 4),
            options.get("outputs"),
            options.get("checkpoint"),
            options.get("progress", False),
        )

    def __post_init__(self) -> None:
        if self.batch < 1 or self.concurrency < 1:
            raise ValueError("batch and concurrency are at least 1")

    @property
    def wanted(self) -> Sequence[str] | None:
        """The outputs by name, None for all."""
        return [self.outputs] if isinstance(self.outputs, str) else self.outputs

    @property
    def most_held(self) -> int:
        """How many batches may be under way, or wait for their turn."""
        return 2 * self.concurrency

    def opened(self) -> AbstractContextManager[Checkpoint | None]:
        """Its checkpoint, if it has one. Raises CheckpointInvalid, OSError."""
        if self.checkpoint is None:
            return nullcontext()
        target = self.target
        wanted = None if self.wanted is None else list(self.wanted)
        call = {"model": target.model, "version": target.version, "label": target.label}
        return Checkpoint(Path(self.checkpoint), {**call, "outputs": wanted, "batch": self.batch})


@dataclass(frozen=True, slots=True)
class Piece:
    """Instances of one request, and what an earlier run was answered for them, if it was."""

    given: Any
    count: int
    digest: bytes
    kept: Answer | None


def map_in_threads(link: Link, calls: Calls, mapped: Mapped, instances: Iterable[Any]) -> Iterator[Prediction]:
    """A prediction for each instance; see `Client.map`."""
    waiting: deque[tuple[Piece, Future[Answer] | None]] = deque()
    stopped = Event()

    def first() -> Iterator[Prediction]:
        piece, future = waiting.popleft()
        answer = finished(checkpoint, piece, None if future is None else future.result())
        found = link.run(calls.read(mapped.target.model, answer))
        yield from rows(found, mapped.outputs, piece.count)
        tick(piece.count)

    pool = ThreadPoolExecutor(mapped.concurrency, thread_name_prefix="sluice-map")
    with mapped.opened() as checkpoint, bar(mapped, instances) as tick:
        try:
            for piece in pieces(mapped, instances, checkpoint):
                future = None
                if piece.kept is None:
                    future = pool.submit(link.run, calls.answer(mapped.target, piece.given, mapped.wanted), stopped)
                waiting.append((piece, future))
                if len(waiting) >= mapped.most_held:
                    yield from first()
            while waiting:
                yield from first()
        finally:
            # Nobody waits any more for a gateway that is away.
            stopped.set()
            pool.shutdown(cancel_futures=True)


def pieces(mapped: Mapped, instances: Iterable[Any], checkpoint: Checkpoint | None) -> Iterator[Piece]:
    """The instances in batches, in order. Raises CheckpointInvalid."""
    for given, count in _batches(instances, mapped.batch):
        digest = b"" if checkpoint is None else digest_of(given)
        yield Piece(given, count, digest, None if checkpoint is None else checkpoint.next(digest))


def finished(checkpoint: Checkpoint | None, piece: Piece, answer: Answer | None) -> Answer:
    """What a batch was answered, now or earlier, once it is kept. Raises OSError."""
    if answer is None:
        if piece.kept is None:
            raise AssertionError("a batch is either kept or asked")
        return piece.kept
    if checkpoint is not None:
        checkpoint.append(piece.digest, answer)
    return answer


def rows(found: dict[str, Tensor], outputs: str | Sequence[str] | None, count: int) -> Iterator[Prediction]:
    """A prediction for each instance of a batch. Raises SluiceFailed where the model gives more or fewer."""
    taken = chosen(found, outputs)
    tensors = taken if isinstance(taken, dict) else {"": taken}
    if any(tensor.shape[:1] != (count,) for tensor in tensors.values()):
        raise SluiceFailed(f"the model does not give one prediction for each of {count} instances")
    for number in range(count):
        one = {name: tensor[number] for name, tensor in tensors.items()}
        yield one if isinstance(taken, dict) else one[""]


@contextmanager
def bar(mapped: Mapped, instances: Iterable[Any]) -> Iterator[Callable[[int], None]]:
    """What is called with the number of instances that were done, and shows them where that was asked for."""
    if not mapped.progress:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(mapped.target.model, total=_total(instances))
        yield lambda count: progress.advance(task, count)


def _total(instances: Iterable[Any]) -> int | None:
    first: object = next(iter(instances.values()), None) if isinstance(instances, Mapping) else instances
    return len(first) if isinstance(first, Sized) else None


def _batches(instances: Iterable[Any], size: int) -> Iterator[tuple[Any, int]]:
    """Batches of at most so many instances, and how many they are."""
    if isinstance(instances, str | bytes | bytearray | Path):
        raise TypeError("map takes many instances: one is put into a list")
    if hasattr(instances, "__array__") and isinstance(instances, Sized):
        # Of a file that is mapped into memory, no more is read than a batch.
        for start in range(0, len(instances), size):
            part = np.asarray(instances[start : start + size])  # type: ignore[index] # what is like an array has slices
            yield part, len(part)
        return
    if isinstance(instances, Mapping):
        lengths = {len(column) for column in instances.values()}
        if len(lengths) != 1:
            raise ValueError("the inputs of all instances are equally many")
        for start in range(0, lengths.pop(), size):
            parts = {name: np.asarray(column[start : start + size]) for name, column in instances.items()}
            yield parts, len(next(iter(parts.values())))
        return
    source = iter(instances)
    while some := list(islice(source, size)):
        yield _together(some), len(some)


def _together(some: list[Any]) -> Any:  # noqa: ANN401 - whatever `predict` takes
    first = some[0]
    if isinstance(first, Mapping) and any(hasattr(value, "__array__") for value in first.values()):
        return {name: np.stack([np.asarray(one[name]) for one in some]) for name in first}
    if all(hasattr(one, "__array__") for one in some):
        return np.stack([np.asarray(one) for one in some])
    return some
