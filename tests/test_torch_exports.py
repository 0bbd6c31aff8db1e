"""PyTorch's way in: what torch.onnx.export wrote is uploaded as any other ONNX graph, and answers as PyTorch did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.shop import Shop
from workers.runtimes.loading import load

EXPORTED = Path(__file__).parent / "torchscript" / "exported"


@pytest.mark.parametrize("exporter", ["", pytest.param("_torchscript", marks=pytest.mark.long)], ids=["newer", "older"])
@pytest.mark.parametrize("name", ["digits", "recurrent"])
def test_what_pytorch_exported_answers_as_pytorch_did(shop: Shop, name: str, exporter: str):
    known = json.loads((EXPORTED / f"{name}.json").read_text())

    ended = shop.prepare(EXPORTED / f"{name}{exporter}.onnx")

    assert ended.served is not None, ended.error_message
    assert ended.served.signature.batched
    [spec] = ended.served.signature.inputs
    predictor = load(ended.served, shop.artifacts, shop.settings)
    found = predictor.run({spec.name: np.array(known["inputs"][spec.name], spec.dtype)})
    np.testing.assert_allclose(found["scores"], known["outputs"]["scores"], 1e-4, 1e-5)
