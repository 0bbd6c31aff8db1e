"""Bodies that work: for tensors that a version takes, a request with them in each dialect that is JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec
from model_store.tensors import element_type
from workers.protocols.body import Dialect
from workers.protocols.tensor_text import string_values

# What stands for every text.
TEXT = b"text"
DIGITS = 4
HALF = "float16"


def example_of(dialect: int, inputs: Tensors, signature: Signature) -> object | None:
    """A body with these tensors, as JSON has it; None in a dialect that has no JSON for them."""
    write = _WRITERS.get(dialect)
    return None if write is None else write(inputs, signature)


def blank(signature: Signature) -> Tensors:
    """One instance of zeros and of texts by input name; 1 stands for every free dimension."""
    return {spec.name: _blank(spec) for spec in signature.inputs}


def _blank(spec: TensorSpec) -> Tensor:
    shape = tuple(1 if size is None else size for size in spec.shape)
    return np.full(shape, TEXT if spec.dtype == STRING else 0, spec.numpy_dtype())


def plain(tensor: Tensor) -> object:
    """The values as nested lists that JSON holds; floats are rounded to 4 digits, so that they stay short."""
    if tensor.dtype == object:
        return string_values(tensor.tolist(), as_base64=False)
    if tensor.dtype.kind == "f":
        rounded: object = np.nan_to_num(tensor.astype(np.float64)).round(DIGITS).tolist()
        return rounded
    values: object = tensor.tolist()
    return values


def _tensorflow_serving(inputs: Tensors, signature: Signature) -> object:
    """Rows where every input has instances, else columns."""
    specs = signature.inputs
    if not all(spec.batched for spec in specs):
        return {"inputs": {spec.name: plain(inputs[spec.name]) for spec in specs}}
    if len(specs) == 1:
        return {"instances": plain(inputs[specs[0].name])}
    count = len(inputs[specs[0].name])
    rows = [{spec.name: plain(inputs[spec.name][row, ...]) for spec in specs} for row in range(count)]
    return {"instances": rows}


def _open_inference(inputs: Tensors, signature: Signature) -> object | None:
    """Flat data; halves travel as bytes only, which no JSON shows."""
    if any(spec.dtype == HALF for spec in signature.inputs):
        return None
    listed = [
        {
            "name": spec.name,
            "shape": list(inputs[spec.name].shape),
            "datatype": element_type(spec.dtype).open_inference,
            "data": plain(inputs[spec.name].reshape(-1)),
        }
        for spec in signature.inputs
    ]
    wishes = {"parameters": {"binary_data_output": True}} if any(s.dtype == HALF for s in signature.outputs) else {}
    return {"inputs": listed, **wishes}


def _mlflow(inputs: Tensors, signature: Signature) -> object:
    return {"inputs": {spec.name: plain(inputs[spec.name]) for spec in signature.inputs}}


def _examples(inputs: Tensors, signature: Signature) -> object | None:
    """What classify and regress take: examples of features, for inputs that all have instances."""
    specs = signature.inputs
    if not all(spec.batched for spec in specs):
        return None
    count = len(inputs[specs[0].name])
    return {"examples": [{spec.name: plain(inputs[spec.name][row, ...]) for spec in specs} for row in range(count)]}


_WRITERS: Mapping[int, Callable[[Tensors, Signature], object | None]] = {
    Dialect.TENSORFLOW_SERVING: _tensorflow_serving,
    Dialect.OPEN_INFERENCE: _open_inference,
    Dialect.MLFLOW: _mlflow,
    Dialect.CLASSIFY: _examples,
    Dialect.REGRESS: _examples,
    Dialect.EXPLAIN: _tensorflow_serving,
}
