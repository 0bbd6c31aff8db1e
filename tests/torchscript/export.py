"""Exports small models with both of PyTorch's exporters: `python tests/torchscript/export.py FOLDER`.

It made the files in tests/torchscript/exported/, by PyTorch 2.15.0 with onnxscript 0.7.2, in an environment of its own
(`pip install torch onnx onnxscript numpy`: five gigabytes, which is why its answers are kept beside them).
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

ROWS = 3


class Recurrent(nn.Module):
    """Tokens, an embedding, a GRU: sequences of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read, self.classify = nn.Embedding(20, 4), nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        _, state = self.read(self.embed(tokens))
        return torch.softmax(self.classify(state[-1]), -1)


def digits() -> nn.Module:
    """The network that PyTorch's tutorials train on digits, smaller."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), nn.Linear(676, 10)
    )


def main(folder: Path) -> None:
    torch.manual_seed(7)
    # Eighths are short in JSON.
    images, tokens = torch.randint(0, 8, (ROWS, 1, 28, 28)) / 8, torch.randint(0, 20, (ROWS, 6))
    _export(folder / "digits", digits(), "image", images, {0: "batch"})
    _export(folder / "recurrent", Recurrent(), "tokens", tokens, {0: "batch"})


def _export(path: Path, model: nn.Module, name: str, example: torch.Tensor, axes: dict[int, str]) -> None:
    model.eval()
    names = {"input_names": [name], "output_names": ["scores"]}
    shapes = ({at: torch.export.Dim(axis) for at, axis in axes.items()},)
    newer = path.with_suffix(".onnx")
    torch.onnx.export(model, (example,), newer, **names, dynamic_shapes=shapes, external_data=False, verbose=False)
    older = path.with_name(f"{path.name}_torchscript.onnx")
    torch.onnx.export(model, (example,), older, **names, dynamic_axes={name: axes, "scores": axes}, dynamo=False)
    with torch.no_grad():
        known = {"inputs": {name: example.tolist()}, "outputs": {"scores": model(example).tolist()}}
    path.with_suffix(".json").write_text(json.dumps(known))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
