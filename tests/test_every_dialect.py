"""One tensor through every dialect, waiting or as a job: the same version answers, with the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from onnx import TensorProto, helper

from model_store.signature import Signature, Tensor, TensorSpec
from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.dialect_kit import FLOATS, NUMBERS
from tests.every_dialect import WAYS, World
from tests.grpc_kit import connected, token_of
from tests.processes import cluster
from tests.queue_kit import serve_model

DTYPES = (*NUMBERS, "bool", "string")
RANKS = (1, 2, 3)
SIZES = ("batch", "rows", "columns")
FACTOR = np.float32(0.1)


def model_of(dtype: str, rank: int) -> str:
    return f"{dtype}-{rank}"


def signature_of(dtype: str, rank: int) -> Signature:
    shape = (None,) * rank
    answered = "string" if dtype == "string" else "float32"
    return Signature((TensorSpec("x", dtype, shape),), (TensorSpec("y", answered, shape),))


def model_file(path: Path, dtype: str, rank: int, factor: np.float32) -> Path:
    """An ONNX file: the input as float32, times a factor; strings as they are."""
    shape = list(SIZES[:rank])
    taken = TensorProto.STRING if dtype == "string" else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    given_out = TensorProto.STRING if dtype == "string" else TensorProto.FLOAT
    if dtype == "string":
        nodes, constants = [helper.make_node("Identity", ["x"], ["y"])], []
    else:
        nodes = [
            helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["numbers", "factor"], ["y"]),
        ]
        constants = [helper.make_tensor("factor", TensorProto.FLOAT, [], [float(factor)])]
    graph = helper.make_graph(
        nodes,
        "times",
        [helper.make_tensor_value_info("x", taken, shape)],
        [helper.make_tensor_value_info("y", given_out, shape)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def world(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A model for every dtype and rank; of numbers of one dimension, a lower version answers otherwise."""
    folder = tmp_path_factory.mktemp("dialects")
    with cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        names = []
        for dtype in DTYPES:
            for rank in RANKS:
                name, signature = model_of(dtype, rank), signature_of(dtype, rank)
                for factor in (np.float32(7), FACTOR) if rank == 1 and dtype != "string" else (FACTOR,):
                    file = model_file(folder / "model.onnx", dtype, rank, factor)
                    serve_model(made.sessions, made.artifacts, file, name, signature=signature)
                names.append(name)
        made.start_worker(worker_metrics_port=free_port())
        made.start_gateway(grpc_port=free_port())
        made.wait_for_slots(2)
        caller = made.caller(*names)
        with connected(made.grpc_addresses[0], token_of(caller)) as grpc_caller:
            yield World(caller, grpc_caller)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Arrays of any dtype, of one to three dimensions, with finite numbers or texts; none is empty."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st_numpy.array_shapes(min_dims=1, max_dims=len(RANKS), max_side=4))
    if dtype in FLOATS:
        finite = st.floats(allow_nan=False, allow_infinity=False, width=np.dtype(dtype).itemsize * 8)  # type: ignore[arg-type]
        return draw(st_numpy.arrays(dtype, shape, elements=finite))
    if dtype != "string":
        return draw(st_numpy.arrays(dtype, shape))
    size = int(np.prod(shape))
    found = np.empty(size, object)
    found[:] = [text.encode() for text in draw(st.lists(st.text(max_size=6), min_size=size, max_size=size))]
    return found.reshape(shape)


def expected(tensor: Tensor) -> Tensor:
    if tensor.dtype == object:
        return tensor
    with np.errstate(over="ignore"):
        return tensor.astype(np.float32) * FACTOR


def alike(left: Tensor, right: Tensor) -> bool:
    if right.dtype == object:
        return left.tolist() == right.tolist()
    return left.dtype == np.float32 and left.shape == right.shape and left.tobytes() == right.tobytes()


def check(world: World, tensor: Tensor) -> None:
    name = model_of("string" if tensor.dtype == object else str(tensor.dtype), tensor.ndim)
    wanted, version = expected(tensor), "2" if tensor.ndim == 1 and tensor.dtype != object else "1"
    for way, (ask, takes) in WAYS.items():
        for as_job in (False, True):
            if takes(tensor):
                seen = ask(world, name, tensor, as_job)
                assert alike(seen.output, wanted), f"{way}, as a job: {as_job}: {seen.output!r} is not {wanted!r}"
                assert seen.version == version, f"{way}, as a job: {as_job}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_answered_alike(world: World, dtype: str):
    if dtype == "string":
        tensor = np.array([["", "words"], ["π", "\x00"]], object)
        check(world, np.array([[text.encode() for text in row] for row in tensor], object))
    elif dtype == "bool":
        check(world, np.array([[True, False]]))
    elif dtype in FLOATS:
        check(world, np.array([[0.1, -0.0, np.finfo(dtype).tiny, np.finfo(dtype).max / 2]], dtype))
    else:
        check(world, np.array([np.iinfo(dtype).min, 1, np.iinfo(dtype).max], dtype))


QUIET = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


@given(tensor=tensors())
@settings(max_examples=12, deadline=None, suppress_health_check=QUIET)
def test_any_tensor_is_answered_alike(world: World, tensor: Tensor):
    check(world, tensor)


@pytest.mark.long
@given(tensor=tensors())
@settings(max_examples=400, deadline=None, suppress_health_check=QUIET)
def test_hundreds_of_tensors_are_answered_alike(world: World, tensor: Tensor):
    check(world, tensor)
