"""Golden samples: what is kept of them, that it comes back as it was, and what the file refuses to carry."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_store import golden
from model_store.golden import GoldenInvalid, chosen, pack, unpack
from model_store.signature import Signature, Tensor, Tensors, TensorSpec
from tests.dialect_kit import same

ROW = Signature((TensorSpec("x", "float32", (None, 3)),), (TensorSpec("y", "float32", (None, 1)),))
# As bfloat16 is, which numpy knows from a package only.
HALVES = np.zeros(3, "V2")
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda name: not name.endswith(".npy")
)
NUMBERS = arrays.arrays(
    st.sampled_from([np.dtype(name) for name in ("bool", "int8", "uint16", "int64", "float16", "float32", "float64")]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
TEXTS = st.lists(st.binary(max_size=9).filter(lambda text: not text.endswith(b"\0")), max_size=5).map(
    lambda texts: objects(*texts)
)
TENSORS = st.dictionaries(NAMES, NUMBERS | TEXTS, max_size=3)


def objects(*texts: bytes) -> Tensor:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def pair(rows: int, width: int = 3) -> tuple[Tensors, Tensors]:
    x = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    return {"x": x}, {"y": x.sum(1, keepdims=True)}


@given(TENSORS, TENSORS)
@settings(max_examples=60, deadline=None)
def test_what_was_packed_comes_back_and_the_same_samples_are_the_same_bytes(inputs: Tensors, outputs: Tensors):
    data = pack(inputs, outputs)
    assert pack({name: tensor.copy("F") for name, tensor in inputs.items()}, outputs) == data
    for before, after in zip((inputs, outputs), unpack(data), strict=True):
        assert list(after) == list(before)
        for name, tensor in before.items():
            found = after[name]
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert found.tolist() == tensor.tolist() if tensor.dtype == object else same(found, tensor)


def test_numpy_reads_the_file_without_our_code_and_without_pickle():
    with np.load(io.BytesIO(pack({"words": objects(b"a", b"bcd")}, {"y": np.ones(2, ">f4")}))) as found:
        assert found["inputs/words"].tolist() == [b"a", b"bcd"]
        assert found["outputs/y"].dtype == np.dtype("<f4")


@pytest.mark.parametrize(
    "inputs",
    [{"a\0": np.ones(1)}, {"a.npy": np.ones(1)}, {"t": objects(b"a\0")}, {"\ud800": np.ones(1)}, {"x": HALVES}],
    ids=[
        "nul_in_a_name",
        "a_name_that_would_be_cut",
        "a_text_that_ends_with_nul",
        "a_name_that_is_no_text",
        "a_foreign_dtype",
    ],
)
def test_what_would_not_come_back_as_it_was_is_refused(inputs: Tensors):
    with pytest.raises(GoldenInvalid):
        pack(inputs, {})


def test_what_is_too_large_is_refused():
    with pytest.raises(GoldenInvalid, match="more than"):
        pack({"x": np.zeros(golden.MOST_BYTES + 1, np.uint8)}, {})
    # One long text among many short ones would be padded to the length of each.
    with pytest.raises(GoldenInvalid, match="more than"):
        pack({"t": objects(b"a" * (golden.MOST_BYTES // 2), b"b", b"c")}, {})


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive", pack({}, {})[:-3]], ids=["none", "mark", "text", "cut"])
def test_what_is_no_file_of_samples_is_refused(data: bytes):
    with pytest.raises(GoldenInvalid):
        unpack(data)


def head(text: str, values: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + values


HOSTILE = {
    "a_terabyte": head("{'descr': '<f4', 'fortran_order': False, 'shape': (274877906944,)}"),
    "an_overflow": head("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
    "texts_of_nothing": head("{'descr': '|S0', 'fortran_order': False, 'shape': (9999999999999,)}"),
    "a_negative_shape": head("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}", bytes(4)),
    "a_list_for_a_key": head("{[]: 1}"),
    "records": head("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4)),
    "no_head": b"\x93NUMPY\x01\x00",
}


@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE)
def test_what_an_array_announces_takes_no_memory(member: bytes):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inputs/x.npy", member)
    with pytest.raises(GoldenInvalid):
        unpack(file.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_samples_are_none(method: int):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("inputs/x.npy", head("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", bytes(4)))
    with pytest.raises(GoldenInvalid):
        unpack(file.getvalue())


def test_a_pickle_in_it_is_not_read():
    file = io.BytesIO()
    np.savez(file, **{"inputs/x": np.array([print], object)})  # type: ignore[arg-type] # what numpy itself would take
    with pytest.raises(GoldenInvalid):
        unpack(file.getvalue())


def test_instances_of_all_pairs_are_put_together_where_they_do_not_mix():
    pairs = [pair(1), pair(5)]
    data = chosen(pairs, ROW, row_wise=True)
    assert data is not None
    inputs, outputs = unpack(data)
    assert inputs["x"].shape == (6, 3)
    assert outputs["y"].ravel().tolist() == [3, 3, 12, 21, 30, 39]


def test_a_batch_stays_as_it_was_where_its_instances_mix_or_differ_in_form():
    mixing = chosen([pair(1), pair(5)], ROW, row_wise=False)
    differing = chosen([pair(1, 2), pair(5, 4)], ROW, row_wise=True)
    for data, shape in ((mixing, (5, 3)), (differing, (5, 4))):
        assert data is not None
        assert unpack(data)[0]["x"].shape == shape


def test_large_instances_are_fewer_and_one_that_is_huge_is_not_kept():
    width = golden.FULL_BYTES // 4 // 2
    few = chosen([pair(1, width), pair(5, width)], ROW, row_wise=True)
    single = chosen([pair(1, 3 * width), pair(5, 3 * width)], ROW, row_wise=False)
    for data in (few, single):
        assert data is not None
        assert unpack(data)[0]["x"].shape[0] == 1
    huge = pair(1, golden.MOST_BYTES // 4 + 1)
    assert chosen([huge], ROW, row_wise=True) is None
