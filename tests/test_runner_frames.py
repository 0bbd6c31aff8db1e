"""Frames of the runner's pipe: what is sent arrives, and nothing that is damaged or hostile gets through."""

from __future__ import annotations

import contextlib
import json
import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workers.runner import frames

TENSORS = st.dictionaries(
    st.text(max_size=8),
    st.one_of(
        hnp.arrays(st.sampled_from(sorted(frames.DTYPES)), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)),
        hnp.arrays(object, hnp.array_shapes(min_dims=0, min_side=0, max_side=3), elements=st.binary(max_size=9)),
    ),
    max_size=3,
)


@given(tensors=TENSORS)
@settings(max_examples=100, deadline=None)
def test_whatever_tensors_are_sent_arrive_as_they_were(tensors: dict[str, np.ndarray]):
    left, right = socket.socketpair()
    with left, right:
        frames.send(left, frames.encode({"answer": 1}, tensors))
        header, received = frames.receive(right, 10**6)
    assert header == {"answer": 1}
    assert list(received) == list(tensors)
    for name, tensor in tensors.items():
        assert received[name].dtype == tensor.dtype
        assert received[name].shape == tensor.shape
        assert received[name].tolist() == tensor.tolist() or np.array_equal(received[name], tensor, equal_nan=True)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_frame_is_refused_and_nothing_worse(data: st.DataObject):
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([b"x", b"yz"], object)}
    sound = bytearray(b"".join(frames.encode({"answer": {}}, tensors)))
    for _ in range(data.draw(st.integers(1, 3))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    left, right = socket.socketpair()
    with left, right:
        left.sendall(sound)
        left.close()
        with contextlib.suppress(frames.FrameInvalid, EOFError):
            frames.receive(right, 10**6)


@pytest.mark.parametrize(
    "row",
    [
        ["a", "float32", [-1], 4],
        ["a", "float32", [2], 4],
        ["a", "float32", [2**40, 2**40], 4],
        ["a", "float32", [0, 2**47, 2**47], 0],
        ["a", "float32", [1.0], 4],
        ["a", "float32", [True], 4],
        ["a", "float32", [1] * 40, 4],
        ["a", "object", [1], 4],
        ["a", "O", [1], 4],
        ["a", ["float32"], [1], 4],
        ["a", "string", [5], 4],
        ["a", "string", [1], 4],
        [1, "float32", [1], 4],
        ["a", "float32", [1]],
        "a",
    ],
)
def test_a_tensor_that_does_not_fit_its_description_is_refused(row: object):
    header = json.dumps({"tensors": [row]}).encode()
    left, right = socket.socketpair()
    with left, right:
        left.sendall(frames.PREFIX.pack(frames.MAGIC, len(header), 4) + header + b"\x00\x00\x80\x3f")
        with pytest.raises(frames.FrameInvalid):
            frames.receive(right, 10**6)


def test_a_header_nested_without_end_is_refused():
    header = b"[" * 100_000
    left, right = socket.socketpair()
    with left, right:
        left.sendall(frames.PREFIX.pack(frames.MAGIC, len(header), 0) + header)
        with pytest.raises(frames.FrameInvalid):
            frames.receive(right, 10**6)


def test_arrays_with_python_objects_or_headers_with_nan_are_not_sent():
    with pytest.raises(frames.FrameInvalid):
        frames.encode({}, {"a": np.array(["2026-01-01"], "datetime64[D]")})
    with pytest.raises(frames.FrameInvalid):
        frames.encode({"answer": float("nan")}, {})


def test_a_frame_kept_as_bytes_is_read_as_one_that_was_sent_and_never_in_part():
    tensors = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "names": np.array([b"a", b""], object)}
    data = b"".join(frames.encode({"wrong": [[1, "no"]]}, tensors))
    header, found = frames.unpacked(data)
    assert header == {"wrong": [[1, "no"]]}
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in tensors.items()
    }
    for broken in (data[:-1], data + b"x", data[:10], b"", b"x" + data[1:]):
        with pytest.raises(frames.FrameInvalid):
            frames.unpacked(broken)
