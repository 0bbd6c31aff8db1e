"""Inputs that fit a signature and mean nothing: what a predictor is warmed up with where there are no samples."""

from __future__ import annotations

import numpy as np

from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec


def blank(signature: Signature, batch: int) -> Tensors:
    """Inputs of zeros or empty strings with `batch` rows; other free dimensions are 1."""
    return {spec.name: _blank(spec, batch) for spec in signature.inputs}


def _blank(spec: TensorSpec, batch: int) -> Tensor:
    sizes = [1 if size is None else size for size in spec.shape]
    shape = (batch, *sizes[1:]) if spec.batched else tuple(sizes)
    return np.full(shape, b"", object) if spec.dtype == STRING else np.zeros(shape, spec.dtype)
