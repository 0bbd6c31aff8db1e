"""The best classes instead of all scores: in both dialects, with and without names, and where there are no classes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from model_store.signature import Signature, Tensor, TensorSpec
from tests.dialect_kit import refusal
from tests.open_inference_kit import binary_request, contract_of
from workers.errors import InputInvalid
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.dialects import GRAMMARS
from workers.protocols.top_classes import best

X = TensorSpec("x", "float32", (None, 3))
SCORES = Signature((X,), (TensorSpec("y", "float32", (None, 3)),))
ROWS = np.array([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]], np.float32)
NAMES = ("cat", "dog", 'a "fish"')
GIVEN = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": ROWS.tolist()}


def answer(request: object, contract: Contract, dialect: Dialect, **outputs: Tensor) -> bytes:
    body = Body(json.dumps(request).encode(), dialect, TEXT)
    return GRAMMARS[dialect].parse(body, contract).format(outputs, contract).data


def named(signature: Signature = SCORES, names: tuple[str, ...] = NAMES) -> Contract:
    return replace(contract_of(signature), class_names=names)


def test_rows_are_answered_with_their_best_classes_by_name():
    asked = {"instances": ROWS.tolist(), "top_k": 2}
    found = json.loads(answer(asked, named(), Dialect.TENSORFLOW_SERVING, y=ROWS))
    assert found == {
        "predictions": [
            [{"index": 1, "class": "dog", "score": 0.7}, {"index": 2, "class": 'a "fish"', "score": 0.2}],
            [{"index": 0, "class": "cat", "score": 0.5}, {"index": 2, "class": 'a "fish"', "score": 0.5}],
        ]
    }


@pytest.mark.parametrize("names", [(), ("cat", "dog")], ids=["none", "too-few"])
def test_without_a_name_for_each_class_only_numbers_are_told(names: tuple[str, ...]):
    asked = {"inputs": ROWS.tolist(), "top_k": 1}
    found = json.loads(answer(asked, named(names=names), Dialect.TENSORFLOW_SERVING, y=ROWS))
    assert found == {"outputs": [[{"index": 1, "score": 0.7}], [{"index": 0, "score": 0.5}]]}


def test_several_outputs_are_told_by_their_names():
    two = Signature((X,), (TensorSpec("a", "float32", (None, 3)), TensorSpec("b", "int8", (None, 2))))
    outputs: dict[str, Tensor] = {"a": ROWS, "b": np.array([[3, 3], [-1, 4]], np.int8)}
    rows = answer({"instances": ROWS.tolist(), "top_k": 1}, named(two), Dialect.TENSORFLOW_SERVING, **outputs)
    columns = answer({"inputs": ROWS.tolist(), "top_k": 1}, named(two), Dialect.TENSORFLOW_SERVING, **outputs)
    a = [[{"index": 1, "class": "dog", "score": 0.7}], [{"index": 0, "class": "cat", "score": 0.5}]]
    b = [[{"index": 0, "score": 3}], [{"index": 1, "score": 4}]]
    assert json.loads(rows) == {"predictions": [{"a": a[0], "b": b[0]}, {"a": a[1], "b": b[1]}]}
    assert json.loads(columns) == {"outputs": {"a": a, "b": b}}


def test_who_does_not_ask_is_answered_as_ever():
    found = answer({"instances": ROWS.tolist()}, named(), Dialect.TENSORFLOW_SERVING, y=ROWS)
    assert found == b'{"predictions":[[0.1,0.7,0.2],[0.5,0.0,0.5]]}'


@pytest.mark.parametrize("top_k", [0, -1, "3", 1.5, True, None], ids=repr)
def test_a_number_of_classes_that_is_none_is_refused(top_k: object):
    message = refusal(json.dumps({"instances": ROWS.tolist(), "top_k": top_k}), SCORES)
    assert message.startswith("top_k must be a number of classes, 1 or more, not ")


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("y", "float32", (None, 4, 4)),
        TensorSpec("y", "float32", (None,)),
        TensorSpec("y", "string", (None, 3)),
    ],
    ids=["images", "numbers", "strings"],
)
def test_outputs_that_are_no_scores_have_no_classes(spec: TensorSpec):
    signature = Signature((X,), (spec,))
    message = refusal(json.dumps({"instances": ROWS.tolist(), "top_k": 1}), signature)
    assert "a vector of scores for each instance, but 'y' is" in message
    asked = {"inputs": [GIVEN], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}
    with pytest.raises(InputInvalid, match="a vector of scores for each instance"):
        answer(asked, named(signature), Dialect.OPEN_INFERENCE, y=ROWS)


def test_the_open_inference_protocol_tells_classes_as_triton_does():
    asked = {"inputs": [GIVEN], "outputs": [{"name": "y", "parameters": {"classification": 2}}]}
    output = json.loads(answer(asked, named(), Dialect.OPEN_INFERENCE, y=ROWS))["outputs"][0]
    assert output == {
        "name": "y", "datatype": "BYTES", "shape": [2, 2],
        "data": ["0.7:1:dog", '0.2:2:a "fish"', "0.5:0:cat", '0.5:2:a "fish"'],
    }  # fmt: skip
    without = json.loads(answer(asked, contract_of(SCORES), Dialect.OPEN_INFERENCE, y=ROWS))["outputs"][0]
    assert without["data"] == ["0.7:1", "0.2:2", "0.5:0", "0.5:2"]


def test_classes_come_as_bytes_where_these_are_asked_for():
    parameters = {"classification": 1, "binary_data": True}
    data, head = binary_request({"x": ROWS}, outputs=[{"name": "y", "parameters": parameters}])
    request = GRAMMARS[Dialect.OPEN_INFERENCE].parse(Body(data, Dialect.OPEN_INFERENCE, head), named())
    body = request.format({"y": ROWS}, named())
    assert body.data[body.head :] == b"\x09\0\0\x000.7:1:dog\x09\0\0\x000.5:0:cat"


@pytest.mark.parametrize("classification", [0, "3", False], ids=repr)
def test_a_classification_that_is_none_is_refused(classification: object):
    asked = {"inputs": [GIVEN], "outputs": [{"name": "y", "parameters": {"classification": classification}}]}
    with pytest.raises(InputInvalid, match=r"outputs\[0\].parameters: classification must be a number of classes"):
        answer(asked, named(), Dialect.OPEN_INFERENCE, y=ROWS)


def test_a_classification_of_the_whole_request_is_refused():
    with pytest.raises(InputInvalid, match="a parameter of one requested output"):
        answer({"inputs": [GIVEN], "parameters": {"classification": 1}}, named(), Dialect.OPEN_INFERENCE, y=ROWS)


def test_more_classes_than_there_are_is_all_of_them_and_nan_is_the_last():
    scores = np.array([[np.nan, np.inf, -np.inf]], np.float16)
    found = answer({"instances": [[1, 2, 3]], "top_k": 9}, named(), Dialect.TENSORFLOW_SERVING, y=scores)
    assert found == (
        b'{"predictions":[[{"index":1,"class":"dog","score":Infinity},'
        b'{"index":2,"class":"a \\"fish\\"","score":-Infinity},{"index":0,"class":"cat","score":NaN}]]}'
    )


def test_of_no_scores_there_are_no_classes():
    free = Signature((X,), (TensorSpec("y", "float32", (None, None)),))
    nothing = np.zeros((2, 0), np.float32)
    found = answer({"instances": ROWS.tolist(), "top_k": 1}, named(free), Dialect.TENSORFLOW_SERVING, y=nothing)
    assert found == b'{"predictions":[[],[]]}'
    asked = {"inputs": [GIVEN], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}
    told = json.loads(answer(asked, named(free), Dialect.OPEN_INFERENCE, y=nothing))["outputs"][0]
    assert (told["shape"], told["data"]) == ([2, 0], [])


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", "bool"])
def test_of_equal_scores_the_lower_number_comes_first(dtype: str):
    numbers, scores = best(np.array([[0, 1, 1, 0], [1, 0, 1, 1]], dtype), 3)
    assert numbers.tolist() == [[1, 2, 0], [0, 2, 3]]
    assert scores.tolist() == [[1, 1, 0], [1, 1, 1]]
    # more of them than are sorted one by one
    assert best(np.ones((1, 500), dtype), 500)[0].tolist() == [list(range(500))]
