"""ONNX Runtime: a variant that runs in this process, on one thread unless the settings say otherwise."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec
from workers.errors import InputInvalid, PredictionFailed, first_line
from workers.runtimes.predictor import batch_of, check_batch

# ONNX Runtime's exceptions have no common base. Its Python layer adds ValueError and RuntimeError.
ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    ValueError,
    RuntimeError,
)
# Its Python layer makes text of every string, or fails: there is no way to the bytes (1.32).
NO_UTF8 = (
    "the model answered with a string that is no UTF-8, which ONNX Runtime does not give; a model whose answers are "
    "bytes gives them as numbers (uint8), or is uploaded as a SavedModel"
)
FATAL = 4
# How a file begins that gzip packed (RFC 1952, section 2.3.1), and how large a graph can be: protobuf's own limit.
PACKED = b"\x1f\x8b"
LARGEST_BYTES = 2**31
# What a session of a model with a single weight takes (73 kB): without it, any number of them would fit a budget.
SESSION_BYTES = 80_000


class OnnxPredictor:
    """A session of ONNX Runtime; its memory is given back when the last reference to it goes."""

    runtime = "onnx"

    def __init__(self, path: Path, signature: Signature, memory_bytes: int, threads: int = 1) -> None:
        """Raises PredictionFailed where the file is no model, or not one with this signature."""
        self.signature = signature
        self.memory_bytes = max(memory_bytes, SESSION_BYTES)
        self._session = _open_session(path, batched=signature.batched, threads=threads)
        inputs = _match(signature.inputs, [argument.name for argument in self._session.get_inputs()])
        outputs = _match(signature.outputs, [argument.name for argument in self._session.get_outputs()])
        self._inputs = [(spec.name, name, spec.dtype == STRING) for spec, name in inputs]
        self._output_names = [name for _, name in outputs]
        self._outputs = [(spec.name, spec.dtype == STRING) for spec, _ in outputs]
        # Nothing to rename and no strings: then the caller's dictionary is the session's.
        self._plain = not any(string or ours != theirs for ours, theirs, string in self._inputs)

    def run(self, tensors: Tensors) -> Tensors:
        try:
            feed = tensors if self._plain else self._feed(tensors)
            values = self._session.run(self._output_names, feed)
        except UnicodeDecodeError as error:
            raise PredictionFailed(NO_UTF8) from error
        except ERRORS as error:
            raise PredictionFailed(f"the model failed: {_reason(error)}") from error
        outputs = {
            name: _encoded(value) if string else value
            for (name, string), value in zip(self._outputs, values, strict=True)
        }
        check_batch(batch_of(self.signature, tensors), outputs)
        return outputs

    def close(self) -> None:
        """Nothing to do: a session is freed with its last reference, so a call in another thread ends as it should."""

    def _feed(self, tensors: Tensors) -> Tensors:
        return {
            theirs: _decoded(tensors[ours], ours) if string else tensors[ours] for ours, theirs, string in self._inputs
        }


def _open_session(path: Path, *, batched: bool, threads: int) -> onnxruntime.InferenceSession:
    # It would keep a device id in the home folder, and has events to send where somebody listens.
    onnxruntime.disable_telemetry_events()
    _share_arena()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin for their next piece take the processors from everybody else: an image through MobileNetV2 took
    # 10.1 ms with two spinning threads beside another busy process, 4.0 ms where they sleep, and 3.6 ms with one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # A pattern is one block for all activations of one input shape: with a batch of any size there are many shapes,
    # and every block stays (441 instead of 252 MB for three convolutions at 1, 8, 16 and 64 instances, no faster).
    options.enable_mem_pattern = not batched
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Weights live outside the arena, so that they are given back when the session goes.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.log_severity_level = FATAL  # its errors arrive as exceptions; as text they would pass by the JSON log
    try:
        # By its bytes, not its path: a model without a path cannot read other files as its weights.
        return onnxruntime.InferenceSession(_unpacked(path), options, providers=["CPUExecutionProvider"])
    except ERRORS as error:
        raise PredictionFailed(f"the model cannot be loaded: {_reason(error)}") from error


def _unpacked(path: Path) -> bytes:
    """The graph in a file, which may be packed by gzip as pruned graphs are; ValueError for what is no such file."""
    data = path.read_bytes()
    if not data.startswith(PACKED):
        return data
    try:
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        graph = unpacking.decompress(data, LARGEST_BYTES)
    except zlib.error as error:
        raise ValueError("it is not packed properly") from error
    if not unpacking.eof:
        raise ValueError("it is not packed properly, or too large")
    return graph


@functools.cache
def _share_arena() -> None:
    """One arena for all sessions of this process, which takes from the system only what is asked for.

    An arena of its own per session keeps each session's largest batch for ever: 1,119 MB for four copies of three
    convolutions that were run with 64 instances, instead of 252. No arena at all made them 1.8 times slower.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_requested = onnxruntime.OrtArenaCfg(
        {
            "max_mem": 0,
            "arena_extend_strategy": 1,
            "initial_chunk_size_bytes": -1,
            "max_dead_bytes_per_chunk": -1,
        }
    )
    onnxruntime.create_and_register_allocator(memory, as_requested)


def _match(specs: Sequence[TensorSpec], names: list[str]) -> list[tuple[TensorSpec, str]]:
    """The session's name for each tensor of the signature: by name where all are known, else by position."""
    if len(specs) != len(names):
        raise PredictionFailed("the model cannot be loaded: it has other inputs or outputs than its signature")
    if {spec.name for spec in specs} == set(names):
        return [(spec, spec.name) for spec in specs]
    return list(zip(specs, names, strict=True))


def _elementwise(convert: Callable[[object], object], tensor: Tensor) -> Tensor:
    converted = np.empty(tensor.shape, object)
    converted.reshape(-1)[:] = [convert(item) for item in tensor.reshape(-1).tolist()]
    return converted


def _decoded(tensor: Tensor, name: str) -> Tensor:
    """ONNX Runtime takes `str` (and would take `bytes` by their repr). Raises InputInvalid for what can be none."""
    try:
        return _elementwise(lambda item: item.decode() if isinstance(item, bytes) else item, tensor)
    except UnicodeDecodeError:
        raise InputInvalid(
            f"input {name!r} holds a string that is no UTF-8; this version runs in ONNX Runtime, which takes no other"
        ) from None


def _encoded(tensor: Tensor) -> Tensor:
    return _elementwise(lambda item: item.encode() if isinstance(item, str) else item, tensor)


def _reason(error: Exception) -> str:
    """`[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : … Status Message: what happened` is cut to what happened."""
    what = str(error).partition("Status Message: ")[2]
    return first_line(what or str(error).split(" : ", 3)[-1])
