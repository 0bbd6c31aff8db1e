"""What every runtime gives: a loaded variant that can predict."""

from __future__ import annotations

from typing import Protocol

from model_store.signature import Signature, Tensors
from workers.errors import PredictionFailed


class Predictor(Protocol):
    """A loaded variant; several threads may call `run`."""

    @property
    def signature(self) -> Signature: ...

    @property
    def runtime(self) -> str:
        """Name of the runtime, as in the variants' table."""

    @property
    def memory_bytes(self) -> int:
        """Resident memory that it takes, wherever that is."""

    def run(self, tensors: Tensors) -> Tensors:
        """Outputs by name, in the order of the signature; strings are object arrays of `bytes`.

        `tensors` holds every input by name in the signature's dtypes. Where the signature is batched, all inputs
        have the same first dimension, and so have all outputs. Raises PredictionFailed where the model itself fails,
        InputInvalid for bytes that its runtime cannot be given, and RunnerFailed where the process that runs it died,
        hung or passed a limit.
        """

    def close(self) -> None:
        """Give back what it holds; waits for a call in progress."""


def batch_of(signature: Signature, tensors: Tensors) -> int | None:
    """How many instances the inputs hold; None where the signature is not batched."""
    return int(tensors[signature.inputs[0].name].shape[0]) if signature.batched else None


def check_batch(batch: int | None, outputs: Tensors) -> None:
    """PredictionFailed unless each output has a row for each instance: answers are cut out of the batch by row."""
    if batch is not None:
        for name, output in outputs.items():
            if output.ndim == 0 or output.shape[0] != batch:
                raise PredictionFailed(f"the model's output {name!r} does not have one row for each instance")
