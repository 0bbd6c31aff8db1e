"""Strings of an answer that are no text: each dialect writes them as it can, and none loses a byte."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model_store.signature import Signature, TensorSpec
from tests.open_inference_kit import contract_of
from workers.protocols.answers import outputs_of
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.dialects import GRAMMARS

TEXTS = Signature((TensorSpec("x", "float32", (None,)),), (TensorSpec("y", "string", (None,)),))
WORDS = np.array(["é".encode(), b"\xff\x00"], object)
OBJECT = {"b64": "/wA="}
INFER = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}


def answer(dialect: Dialect, request: object) -> Body:
    data = request if isinstance(request, bytes) else json.dumps(request).encode()
    terms = contract_of(TEXTS)
    return GRAMMARS[dialect].parse(Body(data, dialect), terms).format({"y": WORDS}, terms)


@pytest.mark.parametrize(
    ("dialect", "request_body", "expected"),
    [
        (Dialect.TENSORFLOW_SERVING, {"instances": [1, 2]}, {"predictions": ["é", OBJECT]}),
        (Dialect.TENSORFLOW_SERVING, {"inputs": [1, 2]}, {"outputs": ["é", OBJECT]}),
        (Dialect.MLFLOW, {"inputs": [1, 2]}, {"predictions": ["é", OBJECT]}),
        (Dialect.MLFLOW_CSV, b"x\n1\n2\n", {"predictions": ["é", OBJECT]}),
    ],
    ids=["rows", "columns", "mlflow", "csv"],
)
def test_json_has_them_in_base64_as_objects(dialect: Dialect, request_body: object, expected: object):
    assert json.loads(answer(dialect, request_body).data) == expected


def test_the_open_inference_protocol_has_them_as_bytes_where_that_is_asked_for():
    text = answer(Dialect.OPEN_INFERENCE, INFER)
    assert (text.head, json.loads(text.data)["outputs"][0]["data"]) == (TEXT, ["é", OBJECT])
    binary = answer(Dialect.OPEN_INFERENCE, {**INFER, "parameters": {"binary_data_output": True}})
    assert outputs_of(binary)["y"].tolist() == WORDS.tolist()
