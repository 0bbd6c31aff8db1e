"""Loading a TorchScript module, its own outputs and its conversion to ONNX; runs in a runner only.

Loading already executes what the file says: the runner is the wall here, and the look at its operators a second one.
Tensors pass through buffers, because PyTorch's bridge to numpy wants the numpy that it was built with.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model_store.signature import STRING, Tensor, Tensors, TensorSpec
from workers.errors import brief
from workers.preparation.converted_files import ONNX
from workers.preparation.findings import keras_findings, refused, shown

if TYPE_CHECKING:
    import torch

UPLOAD = "upload.pt"
HELD, SPECS, NAMES = "torchscript_module", "torchscript_inputs", "torchscript_outputs"
NAMESPACES = ("aten", "prim")
REACHING_OUT = frozenset({"aten::from_file", "aten::save", "prim::PythonOp", "prim::rpc_async", "prim::rpc_sync"})
NODES_LIMIT = 200_000
OPSET = 17
# Sizes to try for free dimensions but the batch: sequences are short, images want room for their strides.
FREE_SIZES = (16, 64, 224)
_HALF = ("float16", "bfloat16")


def load(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Loads upload.pt, whose `inputs` (name, dtype, shape) the uploader named.

    Answers `inputs`, `outputs`, `nodes` and `half`. Raises UploadRefused: torchscript_inputs, torchscript_operator,
    torchscript_structure, unsupported_format, load_failed, signature.
    """
    try:
        import torch
    except ImportError as error:
        raise refused("unsupported_format", "TorchScript needs PyTorch: install the extra `torch`") from error
    specs = [TensorSpec(row["name"], row["dtype"], tuple(row["shape"])) for row in arguments["inputs"]]
    if any(spec.dtype == STRING for spec in specs):
        raise refused("torchscript_inputs", "TorchScript takes no strings")
    path = Path(UPLOAD)
    with keras_findings("load_failed", "PyTorch cannot load the file as TorchScript"):
        module = torch.jit.load(str(path), map_location="cpu").eval()
        graph = module.inlined_graph
    path.unlink()
    nodes = _checked(graph)
    held[HELD], held[SPECS] = module, specs
    outputs = _observed(held)
    answer = {
        "inputs": [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs],
        "outputs": outputs,
        "nodes": nodes,
        "half": any(str(weights.dtype).removeprefix("torch.") in _HALF for weights in module.parameters()),
    }
    held[NAMES] = [row["name"] for row in outputs]
    return answer, {}


def predict(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """The module's own outputs, by the names of the signature."""
    return {}, {name: _array(value) for name, value in _called(held, tensors).items()}


def convert(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Writes model.onnx; raises UploadRefused (conversion_failed): TorchScript itself is never served."""
    import torch

    specs: list[TensorSpec] = held[SPECS]
    _, example = _first_that_works(held, 2)
    free = {
        spec.name: {at: f"{spec.name}_{at}" for at, size in enumerate(spec.shape) if size is None} for spec in specs
    }
    free |= {row["name"]: _free(row) for row in _observed(held)}
    options: dict[str, Any] = {
        "opset_version": OPSET,
        "dynamic_axes": {name: axes for name, axes in free.items() if axes},
    }
    # The newer exporter wants the source of the module, which a file of TorchScript does not have.
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    flat = tuple(_tensor(example[spec.name]) for spec in specs)
    names = {"input_names": [spec.name for spec in specs], "output_names": held[NAMES]}
    try:
        torch.onnx.export(held[HELD], flat, ONNX, **names, **options)
    except MemoryError:
        raise
    except Exception as error:  # an exporter for arbitrary programs: whatever it raises, there is no graph
        raise refused("conversion_failed", f"PyTorch cannot export it to ONNX: {brief(error)}") from error
    return {"size_bytes": Path(ONNX).stat().st_size}, {}


def _checked(graph: torch.Graph) -> int:
    """How many nodes there are, all of operators that compute."""
    count = 0
    for node in _nodes(graph):
        count += 1
        kind = node.kind()
        if kind.partition("::")[0] not in NAMESPACES or kind in REACHING_OUT:
            raise refused("torchscript_operator", f"the operator {shown(kind)} is not taken")
        if count > NODES_LIMIT:
            raise refused("torchscript_structure", f"the module has more than {NODES_LIMIT} nodes")
    return count


def _nodes(block: torch.Graph | torch.Block) -> Iterator[torch.Node]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _observed(held: dict[str, Any]) -> list[dict[str, Any]]:
    """What the outputs are like: a size that follows the inputs' is free."""
    used, tensors = _first_that_works(held, 2)
    one = _called(held, tensors)
    _, others = _first_that_works(held, 3, tuple(size for size in FREE_SIZES if size > used) or (used,))
    two = _called(held, others)
    rows = []
    for name, value in one.items():
        other = two.get(name)
        if other is None or other.dim() != value.dim() or not value.dim():
            raise refused(
                "signature", "an output without a batch dimension, or of changing rank, cannot be served", name
            )
        shape = [size if size == again else None for size, again in zip(value.shape, other.shape, strict=True)]
        rows.append({"name": name, "dtype": _array(value).dtype.name, "shape": shape})
    return rows


def _free(row: dict[str, Any]) -> dict[int, str]:
    return {at: f"{row['name']}_{at}" for at, size in enumerate(row["shape"]) if size is None}


def _first_that_works(held: dict[str, Any], batch: int, sizes: Iterable[int] = FREE_SIZES) -> tuple[int, Tensors]:
    """Inputs of zeros of a size that the module takes, and that size."""
    failure: Exception | None = None
    for size in sizes:
        tensors = {spec.name: _zeros(spec, batch, size) for spec in held[SPECS]}
        try:
            _called(held, tensors)
        except RuntimeError as error:  # torch's for shapes that do not fit, among others
            failure = error
            continue
        return size, tensors
    assert failure is not None  # noqa: S101 - for the type checker: there is a size to try
    raise refused(
        "signature", f"the module fails on zeros of the inputs that were named: {brief(failure)}"
    ) from failure


def _zeros(spec: TensorSpec, batch: int, size: int) -> Tensor:
    sizes = [size if each is None else each for each in spec.shape]
    return np.zeros((batch, *sizes[1:]) if spec.batched else sizes, spec.dtype)


def _called(held: dict[str, Any], tensors: Tensors) -> dict[str, torch.Tensor]:
    import torch

    with torch.no_grad():
        answer = held[HELD](*(_tensor(tensors[spec.name]) for spec in held[SPECS]))
    if isinstance(answer, dict):
        found = {str(name): value for name, value in answer.items()}
    else:
        values = answer if isinstance(answer, (tuple, list)) else [answer]
        found = {f"output_{place}": value for place, value in enumerate(values)}
    if not found or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise refused("signature", "the module answers something else than tensors")
    return found


def _tensor(array: Tensor) -> torch.Tensor:
    import torch

    dtype = getattr(torch, array.dtype.name)
    if not array.size:
        return torch.empty(array.shape, dtype=dtype)
    return torch.frombuffer(bytearray(array.tobytes()), dtype=dtype).reshape(array.shape)


def _array(value: torch.Tensor) -> Tensor:
    import torch

    if value.dtype == torch.bfloat16:
        value = value.float()
    dtype = np.dtype(str(value.dtype).removeprefix("torch."))
    held = bytearray(value.numel() * dtype.itemsize)
    if held:
        torch.frombuffer(held, dtype=value.dtype).copy_(value.contiguous().reshape(-1))
    return np.frombuffer(held, dtype).reshape(tuple(value.shape))
