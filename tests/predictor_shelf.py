"""Predictors that remember whether they were closed, and the shelf that they come from."""

from __future__ import annotations

import threading

import numpy as np

from model_store.signature import Signature, Tensors, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "int64", (None,)),), (TensorSpec("y", "int64", (None,)),))


class Adder:
    """A predictor of our own: adds its version's number; must not be used once closed."""

    runtime = "adder"
    signature = SIGNATURE

    def __init__(self, number: int, memory_bytes: int) -> None:
        self.number = number
        self.memory_bytes = memory_bytes
        self.closed = 0

    def run(self, tensors: Tensors) -> Tensors:
        assert not self.closed
        return {"y": tensors["x"].astype(np.int64) + self.number}

    def close(self) -> None:
        self.closed += 1


class Shelf:
    """Loads adders and remembers them all; `sizes` gives their sizes, `gate` holds loads back until it is set."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.made: list[Adder] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)

    def load(self, model: str, version: int) -> Adder:
        self.started.release()
        assert self.gate.wait(20)
        adder = Adder(version, self.sizes.get(model, 10))
        self.made.append(adder)
        return adder

    def closed(self) -> list[int]:
        return [adder.closed for adder in self.made]
