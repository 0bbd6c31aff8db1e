"""Reading uploaded samples for a proof: what fits the signature, from the beginning, and never more than is taken."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from model_store.signature import Signature, Tensors, TensorSpec
from workers.errors import PredictionFailed
from workers.preparation import evidence, parity
from workers.preparation.evidence import SamplesUnfit
from workers.preparation.proof import SEVERAL, Reference
from workers.preparation.samples import Range, Samples

SIGNATURE = Signature(
    (TensorSpec("x", "float32", (None, 3)), TensorSpec("word", "string", (None,))),
    (TensorSpec("y", "float32", (None, 1)),),
)
WORDS = np.array(["a", "Zürich", "b"])


def archive(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_arrays_come_in_the_dtypes_of_the_signature_and_others_are_left_out(tmp_path: Path):
    given = archive(tmp_path / "s.npz", x=np.ones((3, 3)), word=WORDS, labels=np.arange(3))
    found = evidence.read(given, SIGNATURE)
    assert list(found) == ["x", "word"]
    assert found["x"].dtype == np.float32
    assert found["word"].tolist() == [b"a", "Zürich".encode(), b"b"]


def test_of_a_large_archive_only_the_beginning_is_read(tmp_path: Path):
    rows = np.arange(3 * 5000, dtype=np.float32).reshape(5000, 3)
    given = archive(tmp_path / "s.npz", x=rows, word=np.array([b"w"] * 5000))
    found = evidence.read(given, SIGNATURE)
    assert len(found["x"]) == len(found["word"]) == evidence.UPLOADED_INSTANCES
    assert np.array_equal(found["x"], rows[: evidence.UPLOADED_INSTANCES])


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": np.ones((2, 4), np.float32), "word": WORDS}, "x has the shape"),
        ({"x": np.ones((2, 3), np.complex64), "word": WORDS}, "x is complex64"),
        ({"x": np.ones((2, 3), np.float32)}, "they have no input word"),
        ({"x": np.ones((0, 3), np.float32), "word": WORDS}, "number of instances"),
        ({"x": np.asfortranarray(np.ones((2, 3), np.float32)), "word": WORDS}, "row by row"),
        ({"x": np.ones((2, 3), np.float32), "word": np.arange(2)}, "not texts"),
    ],
    ids=["shape", "dtype", "missing", "empty", "columns", "no texts"],
)
def test_what_does_not_fit_is_said(tmp_path: Path, arrays: dict[str, np.ndarray], why: str):
    with pytest.raises(SamplesUnfit, match=why):
        evidence.read(archive(tmp_path / "s.npz", **arrays), SIGNATURE)


def test_an_array_that_claims_more_than_it_has_takes_no_memory(tmp_path: Path):
    path = tmp_path / "s.npz"
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (900000000000, 3), }"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x.npy", header.ljust(127) + b"\n" + b"\0" * 24)
    with pytest.raises(SamplesUnfit, match="no arrays"):
        evidence.read(path, SIGNATURE)
    path.write_bytes(b"no archive")
    with pytest.raises(SamplesUnfit, match="no arrays"):
        evidence.read(path, SIGNATURE)


class Summing:
    """A model that notes how many instances it was given at once; it fails on a negative one."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def reference(self, tensors: Tensors) -> Tensors:
        self.given.append(len(tensors["x"]))
        if (tensors["x"] < 0).any():
            raise PredictionFailed("not below zero")
        return {"y": tensors["x"].sum(-1, keepdims=True)}


def test_no_more_instances_come_at_once_than_the_model_has_answered_before():
    signature = Signature(SIGNATURE.inputs[:1], SIGNATURE.outputs)
    samples = Samples(signature, [Range()], 1, np.random.default_rng(1))
    known = Reference([], True, signature, parity.SINGLE, samples)
    model = Summing()
    # what lies around zero is left out, where the model does not take it
    found = list(evidence.seeded(model, known))  # type: ignore[arg-type] # of an upload nothing else is asked for
    assert sum(len(outputs["y"]) for _, outputs in found) == evidence.MANY
    assert max(model.given) == SEVERAL
    # of uploaded ones that is told
    with pytest.raises(SamplesUnfit, match="not below zero"):
        list(evidence.uploaded(model, known, {"x": -np.ones((3, 3), np.float32)}))  # type: ignore[arg-type] # as above
