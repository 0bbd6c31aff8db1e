"""The dialect of TensorFlow Serving: how outputs are written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model_store.signature import Signature, Tensor, TensorSpec
from tests.dialect_kit import LINEAR, signature_of
from workers.errors import PredictionFailed
from workers.protocols.tensorflow_serving import (
    format_predict,
    rows,
)


def test_the_only_output_loses_its_name():
    signature = signature_of(LINEAR.inputs[0])
    outputs = {"y": np.array([[1, 0.2]], np.float32)}
    assert format_predict(outputs, signature, row_form=True) == b'{"predictions":[[1.0,0.2]]}'
    assert format_predict(outputs, signature, row_form=False) == b'{"outputs":[[1.0,0.2]]}'


def answering(*outputs: TensorSpec) -> Signature:
    return signature_of(LINEAR.inputs[0], outputs=outputs)


def test_several_outputs_are_objects_by_row_or_by_column():
    signature = answering(TensorSpec("a", "float32", (None,)), TensorSpec('b"', "int64", (None, 2)))
    outputs = {'b"': np.array([[1, 2], [3, 4]]), "a": np.array([0.5, np.inf], np.float32)}
    by_row = format_predict(outputs, signature, row_form=True)
    assert by_row == b'{"predictions":[{"a":0.5,"b\\"":[1,2]},{"a":Infinity,"b\\"":[3,4]}]}'
    by_column = format_predict(outputs, signature, row_form=False)
    assert by_column == b'{"outputs":{"a":[0.5,Infinity],"b\\"":[[1,2],[3,4]]}}'


def test_outputs_without_a_common_length_cannot_be_rows():
    signature = answering(TensorSpec("a", "float32", (None,)), TensorSpec("b", "float32", ()))
    outputs = {"a": np.array([0.5], np.float32), "b": np.array(1.5, np.float32)}
    with pytest.raises(PredictionFailed, match="ask with 'inputs'"):
        format_predict(outputs, signature, row_form=True)
    assert format_predict(outputs, signature, row_form=False) == b'{"outputs":{"a":[0.5],"b":1.5}}'


def test_what_is_not_finite_is_written_bare_in_its_place():
    outputs = {"y": np.array([[1, np.nan], [-np.inf, 2], [3, np.inf]], np.float32)[::-1]}
    text = format_predict(outputs, LINEAR, row_form=True)
    assert text == b'{"predictions":[[3.0,Infinity],[-Infinity,2.0],[1.0,NaN]]}'


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([True, False]), b"[true,false]"),
        (np.array([255], np.uint8), b"[255]"),
        (np.array([2**64 - 1], np.uint64), b"[18446744073709551615]"),
        (np.array([0.5, np.nan], np.float16), b"[0.5,NaN]"),
        (np.array(0.25), b"0.25"),
        (np.array(np.nan), b"NaN"),
        (np.zeros((2, 0), np.float32), b"[[],[]]"),
        (np.arange(6, dtype=np.int64).reshape(2, 3).T, b"[[0,3],[1,4],[2,5]]"),
    ],
)
def test_every_dtype_and_layout_has_its_text(array: Tensor, text: bytes):
    assert format_predict({"y": array}, answering(TensorSpec("y", "any", (None,))), row_form=False)[11:-1] == text


def test_a_dtype_that_json_has_no_form_for_is_a_failed_prediction():
    with pytest.raises(PredictionFailed, match="complex64"):
        format_predict({"y": np.zeros((1, 2), np.complex64)}, LINEAR, row_form=True)


def test_strings_are_written_raw_and_bytes_as_base64():
    words = np.array([["null", b"\xff"], ["é".encode(), b""]], object)
    raw = format_predict({"y": words}, answering(TensorSpec("y", "string", (None, 2))), row_form=True)
    assert json.loads(raw) == {"predictions": [["null", {"b64": "/w=="}], ["é", ""]]}
    encoded = format_predict(
        {"y_bytes": words[:1]}, answering(TensorSpec("y_bytes", "string", (None, 2))), row_form=True
    )
    assert json.loads(encoded) == {"predictions": [[{"b64": "bnVsbA=="}, {"b64": "/w=="}]]}


def test_strings_beside_numbers_are_rows_too():
    signature = answering(TensorSpec("label", "string", (None,)), TensorSpec("score", "float32", (None,)))
    outputs = {"label": np.array([b"null", b"b"], object), "score": np.array([np.nan, 1], np.float32)}
    text = format_predict(outputs, signature, row_form=True)
    assert text == b'{"predictions":[{"label":"null","score":NaN},{"label":"b","score":1.0}]}'


def test_rows_of_a_batch_are_views():
    batch = {"y": np.arange(6, dtype=np.float32).reshape(3, 2)}
    part = rows(batch, 1, 3)
    assert np.shares_memory(part["y"], batch["y"])
    assert format_predict(part, LINEAR, row_form=True) == b'{"predictions":[[2.0,3.0],[4.0,5.0]]}'
