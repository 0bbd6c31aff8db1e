"""Saves TorchScript files into a folder, with PyTorch's own answers: `python -m tests.torchscript FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROWS = 5


class Branching(nn.Module):
    """Two inputs, and a branch that tracing would lose."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        joined = self.left(left) + self.right(right)
        if joined.shape[1] > 2:
            joined = torch.tanh(joined)
        return torch.softmax(joined, -1)


class Digits(nn.Module):
    """A small network of convolutions for images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classify = nn.Linear(4, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classify(self.convolve(image))


class Reader(nn.Module):
    """Reads a file: one of PyTorch's operators is enough."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", size=1, dtype=torch.uint8).float()


def main(folder: Path) -> None:
    torch.manual_seed(7)
    random = np.random.default_rng(7)
    pair = {"left": random.random((ROWS, 4), np.float32), "right": random.random((ROWS, 2), np.float32)}
    _save(folder, "branching", torch.jit.script(Branching()), pair)
    images = {"image": random.random((ROWS, 1, 28, 28), np.float32)}
    _save(folder, "digits", torch.jit.trace(Digits(), torch.zeros(2, 1, 28, 28)), images)
    torch.jit.script(Reader()).save(str(folder / "reader.pt"))
    torch.save(nn.Linear(4, 2).state_dict(), folder / "weights.pt")


def _save(folder: Path, name: str, module: torch.jit.ScriptModule, inputs: dict[str, np.ndarray]) -> None:
    module.save(str(folder / f"{name}.pt"))
    with torch.no_grad():
        # As lists: PyTorch's bridge to numpy wants the numpy that it was built with.
        answer = module.eval()(*(torch.tensor(array.tolist()) for array in inputs.values()))
    known = {"inputs": {key: array.tolist() for key, array in inputs.items()}, "output": answer.tolist()}
    (folder / f"{name}.json").write_text(json.dumps(known))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
