"""The dialects of `:classify` and `:regress`: examples to tensors, outputs to results, and what is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.grpc_services.messages import message
from model_store.signature import Signature, Tensor, TensorSpec
from tests.dialect_kit import TWO_INPUTS, same, signature_of
from tests.file_kit import image
from workers.errors import InputInvalid, PredictionFailed
from workers.protocols.answers import AnswerUnreadable, outputs_of
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.dialects import GRAMMARS
from workers.protocols.file_reading import UNREAD

SCORES = (TensorSpec("y", "float32", (None, 3)),)
VALUE = (TensorSpec("y", "float32", (None, 1)),)
LABELLED = (TensorSpec("classes", "string", (None, 2)), TensorSpec("scores", "float32", (None, 2)))


def contract(signature: Signature, *names: str) -> Contract:
    return Contract("m", 1, signature, 8, names)


def taking(dtype: str, *shape: int | None) -> Signature:
    return signature_of(TensorSpec("x", dtype, shape), outputs=VALUE)


def read(
    signature: Signature, *examples: object, dialect: Dialect = Dialect.REGRESS, **more: object
) -> dict[str, Tensor]:
    body = json.dumps({"examples": examples, **more}).encode()
    return GRAMMARS[dialect].parse(Body(body, dialect), contract(signature)).tensors


def refusal(signature: Signature, body: object, dialect: Dialect = Dialect.REGRESS) -> str:
    with pytest.raises(InputInvalid) as caught:
        GRAMMARS[dialect].parse(Body(json.dumps(body).encode(), dialect), contract(signature))
    assert len(caught.value.message) <= 300
    return caught.value.message


def results(signature: Signature, outputs: dict[str, Tensor], dialect: Dialect, *names: str) -> object:
    examples = [{"x": 1}] * len(next(iter(outputs.values())))
    known = contract(signature, *names)
    request = GRAMMARS[dialect].parse(Body(json.dumps({"examples": examples}).encode(), dialect), known)
    answer = request.format(outputs, known)
    assert answer.dialect == dialect
    return json.loads(answer.data)["results"]


# Features


@pytest.mark.parametrize(
    ("signature", "value", "expected"),
    [
        pytest.param(taking("float32", None), 1.5, np.array([1.5], np.float32), id="a number"),
        pytest.param(taking("float32", None), [1], np.array([1], np.float32), id="a list of one, widened"),
        pytest.param(taking("float32", None, 1), 2.5, np.array([[2.5]], np.float32), id="one number for a vector"),
        pytest.param(taking("float32", None, 2), [1, 2.5], np.array([[1, 2.5]], np.float32), id="a vector"),
        pytest.param(taking("float32", None, 2), [1e39, 0], np.array([[np.inf, 0]], np.float32), id="overflow"),
        pytest.param(
            taking("float32", None, 2), [10**400, 0.5], np.array([[np.inf, 0.5]], np.float32), id="huge integer"
        ),
        pytest.param(taking("int64", None, 2, 2), [1, 2, 3, 4], np.array([[[1, 2], [3, 4]]]), id="flat rows"),
        pytest.param(taking("int64", None, 2, 2), [[1, 2], [3, 4]], np.array([[[1, 2], [3, 4]]]), id="nested rows"),
        pytest.param(taking("int64", None, None, 2), [1, 2, 3, 4], np.array([[[1, 2], [3, 4]]]), id="rows by length"),
        pytest.param(taking("int64", None), True, np.array([1]), id="true is an integer"),
        pytest.param(
            taking("bool", None, 3), [True, 0, 1], np.array([[True, False, True]]), id="integers are booleans"
        ),
    ],
)
def test_an_input_is_filled_from_the_feature_of_its_name(signature: Signature, value: object, expected: Tensor):
    assert same(read(signature, {"x": value, "unused": "a"})["x"], expected)


def test_a_feature_of_numbers_may_be_a_file_where_there_is_an_input_specification():
    said = json.dumps({"kind": "image", "resize": "none", "range": [0, 1], "channels": 1, "height": 4, "width": 6})
    signature = taking("float32", None, 4, 6)
    terms = replace(contract(signature), input_specification=said, files=UNREAD)
    file = {"b64": base64.b64encode(image(np.zeros((4, 6), np.uint8))).decode()}
    body = json.dumps({"examples": [{"x": file}, {"x": [file]}]}).encode()
    assert GRAMMARS[Dialect.REGRESS].parse(Body(body, Dialect.REGRESS), terms).tensors["x"].shape == (2, 4, 6)
    assert "examples[0].x is a file, " in refusal(signature, {"examples": [{"x": file}]})


def test_bytes_are_text_or_base64():
    signature = taking("string", None, 2)
    assert read(signature, {"x": ["a", {"b64": "/w=="}]})["x"].tolist() == [[b"a", b"\xff"]]
    assert read(taking("string", None), {"x": {"b64": "/w=="}})["x"].tolist() == [b"\xff"]


def test_a_context_counts_for_every_example_that_does_not_say_otherwise():
    found = read(
        TWO_INPUTS, {"word": "a"}, {"size": [3, 4], "word": "b"}, context={"size": [1, 2]}, dialect=Dialect.CLASSIFY
    )
    assert found["size"].tolist() == [[1, 2], [3, 4]]
    assert found["word"].tolist() == [b"a", b"b"]


def test_not_a_number_and_infinities_are_bare_tokens():
    body = b'{"examples": [{"x": [NaN, -Infinity]}]}'
    request = GRAMMARS[Dialect.REGRESS].parse(Body(body, Dialect.REGRESS), contract(taking("float32", None, 2)))
    assert np.isnan(request.tensors["x"][0, 0])
    assert request.tensors["x"][0, 1] == -np.inf


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([], "Is not object"),
        ({}, "When method is regress, key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number at examples[0]"),
        ({"context": [], "examples": [{}]}, "Example must be JSON object but got JSON Array at context"),
        (
            {"examples": [{"x": [1, 2]}, {}]},
            "Feature: x (data type: float) is required but could not be found at examples[1]",
        ),
        ({"examples": [{"x": []}]}, "Feature: x (data type: float) is required but could not be found"),
        ({"examples": [{"x": [1, 2, 3]}]}, "unexpected size: 3 at level: 1 expected size: 2 at examples[0].x"),
        (
            {"examples": [{"x": [1, "2"]}]},
            'JSON Value: "2" Type: String is not of expected type: float at examples[0].x[1]',
        ),
        ({"examples": [{"x": [1, None]}]}, "Type: Null is not of expected type: float"),
        ({"examples": [{"x": [1, 2]}] * 9}, "9 instances in one request, but this version takes at most 8"),
        ({"signature_name": "other", "examples": [{}]}, "use 'serving_default' or 'regression'"),
        ({"signature_name": "classification", "examples": [{}]}, "not found in signature def"),
        ({"signature_name": 1, "examples": [{}]}, "'signature_name' key must be a string value."),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_with_its_place(body: object, text: str):
    assert text in refusal(taking("float32", None, 2), body)


def test_a_flat_feature_cannot_have_two_free_dimensions():
    assert "write the feature as nested lists" in refusal(
        taking("int64", None, None, None), {"examples": [{"x": [1, 2]}]}
    )
    assert "3 values at examples[0].x" in refusal(taking("int64", None, None, 2), {"examples": [{"x": [1, 2, 3]}]})


def test_an_input_without_a_first_dimension_is_not_filled_from_examples():
    assert "without a dimension for them" in refusal(taking("float32"), {"examples": [{"x": 1}]})


@pytest.mark.parametrize("name", ["", "serving_default", "names", "regression", "tensorflow/serving/regress"])
def test_a_signature_goes_by_its_own_name_and_that_of_the_method(name: str):
    signature = Signature((TensorSpec("x", "float32", (None,)),), VALUE, "names")
    assert read(signature, {"x": 1}, signature_name=name)["x"].tolist() == [1]


# Examples that a model parses itself


SERIALIZED = signature_of(TensorSpec("inputs", "string", (None,)), outputs=LABELLED)


def test_a_model_that_parses_examples_gets_them_as_tensorflow_writes_them():
    example: Any = message("tensorflow.Example")
    features = {"f": [1, 2.5], "i": [1, -2, True], "b": ["é", {"b64": "/w=="}], "one": 7, "none": []}
    found = read(SERIALIZED, {"i": 3}, {}, context=features, dialect=Dialect.CLASSIFY)["inputs"]
    first, second = (example.FromString(text).features.feature for text in found)
    assert list(first["i"].int64_list.value) == [3]
    assert list(second["i"].int64_list.value) == [1, -2, 1]
    assert list(second["f"].float_list.value) == [1, 2.5]
    assert list(second["b"].bytes_list.value) == ["é".encode(), b"\xff"]
    assert list(second["one"].int64_list.value) == [7]
    assert second["none"].WhichOneof("kind") is None


def test_a_text_of_that_name_is_still_a_feature():
    assert read(SERIALIZED, {"inputs": "as it is"}, dialect=Dialect.CLASSIFY)["inputs"].tolist() == [b"as it is"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "Feature: f has element with unexpected JSON type: Null at examples[0]"),
        ([[1]], "Feature: f has element with unexpected JSON type: Array"),
        ([1, "a"], "Feature: f has element with unexpected JSON type: String"),
        (2**63, "Feature: f has an element out of the range of int64"),
        ({"b64": "?"}, "Feature: f: Unable to base64 decode at examples[0]"),
    ],
)
def test_what_no_example_holds_is_refused(value: object, text: str):
    assert text in refusal(SERIALIZED, {"examples": [{"f": value}]}, Dialect.CLASSIFY)


# Results


def test_classes_are_all_told_in_order_with_labels_where_they_are_known():
    outputs = {"y": np.array([[0.1, 0.7, 0.2], [np.nan, 0, 1]], np.float32)}
    plain = results(signature_of(TensorSpec("x", "float32", (None,)), outputs=SCORES), outputs, Dialect.CLASSIFY)
    assert str(plain) == "[[['', 0.1], ['', 0.7], ['', 0.2]], [['', nan], ['', 0.0], ['', 1.0]]]"
    named = signature_of(TensorSpec("x", "float32", (None,)), outputs=SCORES)
    assert str(results(named, outputs, Dialect.CLASSIFY, "a", 'b"', "c")).startswith(
        """[[['a', 0.1], ['b"', 0.7], ['c'"""
    )


def test_a_models_own_labels_come_before_class_names():
    signature = signature_of(TensorSpec("x", "float32", (None,)), outputs=LABELLED)
    outputs = {"classes": np.array([[b"cat", b"dog"]], object), "scores": np.array([[0.25, 0.75]], np.float32)}
    assert results(signature, outputs, Dialect.CLASSIFY, "a", "b") == [[["cat", 0.25], ["dog", 0.75]]]
    alone = signature_of(TensorSpec("x", "float32", (None,)), outputs=LABELLED[:1])
    assert results(alone, {"classes": outputs["classes"]}, Dialect.CLASSIFY) == [[["cat", 0.0], ["dog", 0.0]]]
    with pytest.raises(PredictionFailed, match="another number of classes"):
        results(signature, outputs | {"scores": np.zeros((1, 3), np.float32)}, Dialect.CLASSIFY)


@pytest.mark.parametrize("shape", [(None,), (None, 1)])
def test_a_regression_is_one_number_an_example(shape: tuple[int | None, ...]):
    signature = signature_of(TensorSpec("x", "float32", (None,)), outputs=(TensorSpec("y", "float32", shape),))
    values = np.array([42, 0.2, np.inf], np.float32).reshape([-1 if size is None else size for size in shape])
    assert str(results(signature, {"y": values}, Dialect.REGRESS)) == "[42.0, 0.2, inf]"


def test_of_several_outputs_the_one_that_tensorflow_serving_looks_for_is_told():
    both = (TensorSpec("extra", "float32", (None, 5)), TensorSpec("outputs", "float16", (None,)))
    signature = signature_of(TensorSpec("x", "float32", (None,)), outputs=both)
    found = {"extra": np.zeros((1, 5), np.float32), "outputs": np.array([0.5], np.float16)}
    assert results(signature, found, Dialect.REGRESS) == [0.5]


@pytest.mark.parametrize(
    ("dialect", "outputs"),
    [
        pytest.param(Dialect.CLASSIFY, (TensorSpec("y", "float32", (None,)),), id="one number is no scores"),
        pytest.param(Dialect.CLASSIFY, (TensorSpec("y", "string", (None, 3)),), id="texts without the name classes"),
        pytest.param(Dialect.CLASSIFY, (*SCORES, TensorSpec("z", "float32", (None, 3))), id="which of two"),
        pytest.param(Dialect.CLASSIFY, (TensorSpec("scores", "float32", (None, 3, 3)),), id="scores of rank 3"),
        pytest.param(Dialect.REGRESS, SCORES, id="three numbers are no value"),
        pytest.param(Dialect.REGRESS, (TensorSpec("outputs", "string", (None,)),), id="a text is no value"),
        pytest.param(Dialect.REGRESS, (*VALUE, TensorSpec("z", "float32", (None,))), id="which value of two"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused_with_what_it_answers(
    dialect: Dialect, outputs: tuple[TensorSpec, ...]
):
    signature = signature_of(TensorSpec("x", "float32", (None,)), outputs=outputs)
    message = refusal(signature, {"examples": [{"x": 1}]}, dialect)
    assert message.startswith("Expected ")
    assert f"'{outputs[0].name}' (" in message


def test_results_are_read_back_for_comparisons():
    classes = outputs_of(Body(b'{"results":[[["a",0.5],["b",NaN]],[["a",1.0],["b",0.0]]]}', Dialect.CLASSIFY))
    assert classes["classes"].tolist() == [["a", "b"], ["a", "b"]]
    assert str(classes["scores"].tolist()) == "[[0.5, nan], [1.0, 0.0]]"
    assert outputs_of(Body(b'{"results":[0.5,2]}', Dialect.REGRESS))[""].tolist() == [0.5, 2.0]
    with pytest.raises(AnswerUnreadable):
        outputs_of(Body(b'{"results":[[["a",0.5,1]]]}', Dialect.CLASSIFY))
