"""Explanations: what is taken away of an instance, and what the scores' falls say, against models that are known."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_store.input_specification import ImageInput, to_json
from model_store.signature import Signature, Tensor, Tensors, TensorSpec
from tests.dialect_kit import signature_of
from workers.errors import InputInvalid, PredictionFailed
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.explain import ExplainRequest, parse
from workers.protocols.file_reading import UNREAD
from workers.protocols.overlay import png

SCORES = TensorSpec("digit", "float32", (None, 3))
TABLE = signature_of(TensorSpec("x", "float32", (None, 4)), outputs=(SCORES,))
IMAGE = signature_of(TensorSpec("image", "float32", (None, 4, 6)), outputs=(SCORES,))
TEXT = signature_of(TensorSpec("text", "string", (None, 1)), outputs=(TensorSpec("y", "float32", (None, 1)),))
WEIGHTS = np.array([[1, -2, 0.5], [4, 0.25, -8], [2, 2, 2], [-1, 16, 3]], np.float32)

Model = Callable[[Tensors], Tensors]


def line(tensors: Tensors) -> Tensors:
    """Scores that are a weighted sum of all values."""
    [values] = tensors.values()
    flat = values.reshape(len(values), -1).astype(np.float32)
    return {"digit": flat @ np.resize(WEIGHTS, (flat.shape[1], 3)) + np.float32(7)}


def overflowing(tensors: Tensors) -> Tensors:
    """The same for numbers of which sums are none."""
    with np.errstate(all="ignore"):
        return line(tensors)


def good_words(tensors: Tensors) -> Tensors:
    """Two points for each `good`, minus one for each `bad`."""
    texts = [bytes(text) for text in tensors["text"].reshape(-1).tolist()]
    points = [2 * text.split().count(b"good") - text.split().count(b"bad") for text in texts]
    return {"y": np.array(points, np.float32).reshape(-1, 1)}


def contract(signature: Signature, names: tuple[str, ...] = (), most: int = 1000) -> Contract:
    return Contract("m", 1, signature, most, names)


def asked(signature: Signature, body: object, names: tuple[str, ...] = (), most: int = 1000) -> ExplainRequest:
    return parse(Body(json.dumps(body).encode(), Dialect.EXPLAIN), contract(signature, names, most))


def explained(
    signature: Signature, body: object, model: Model = line, names: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    request = asked(signature, body, names)
    tensors = request.tensors
    assert {len(tensor) for tensor in tensors.values()} == {request.instances}
    answer = request.format(model(tensors), contract(signature, names))
    assert answer.dialect == Dialect.EXPLAIN
    found: list[dict[str, Any]] = json.loads(answer.data)["explanations"]
    return found


def refusal(signature: Signature, body: object, names: tuple[str, ...] = (), most: int = 1000) -> str:
    with pytest.raises(InputInvalid) as caught:
        asked(signature, body, names, most)
    return caught.value.message


@pytest.mark.parametrize("baseline", [None, 2.5, [1.0, -1.0, 0.0, 0.5]], ids=["zero", "one-value", "an-instance"])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_of_a_linear_model_each_feature_is_owed_its_weight_times_what_was_taken_away(target: int, baseline: object):
    rows = [[1.0, 2.0, -3.0, 0.5], [0.25, 8.0, 1.0, -4.0]]
    options = {"class": target} | ({} if baseline is None else {"baseline": baseline})
    found = explained(TABLE, {"instances": rows, "explain": options})
    for row, explanation in zip(rows, found, strict=True):
        expected = WEIGHTS[:, target] * (np.array(row) - np.array(baseline or 0.0))
        assert explanation["attributions"]["x"] == expected.tolist()
        assert explanation["class"] == target
        assert explanation["score"] == float(np.array(row) @ WEIGHTS[:, target] + 7)
    assert "overlays" not in found[0]


def test_what_is_explained_is_the_best_class_of_each_instance_unless_one_is_named():
    rows = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    assert [found["class"] for found in explained(TABLE, {"instances": rows})] == [0, 1]
    names = ("zero", "one", "two")
    named = explained(TABLE, {"instances": rows, "explain": {"class": "two"}}, names=names)
    assert [(found["class"], found["class_name"]) for found in named] == [(2, "two"), (2, "two")]


def test_the_answer_has_the_predictions_of_the_instances_themselves():
    rows = [[1.0, 2.0, -3.0, 0.5], [0.25, 8.0, 1.0, -4.0]]
    scores = line({"x": np.array(rows, np.float32)})["digit"].tolist()
    for key, answered in (("instances", "predictions"), ("inputs", "outputs")):
        request = asked(TABLE, {key: rows})
        answer = json.loads(request.format(line(request.tensors), contract(TABLE)).data)
        assert answer[answered] == scores


def test_a_patch_of_an_image_is_taken_away_as_one():
    image = np.arange(24, dtype=np.float32).reshape(4, 6)
    found = explained(IMAGE, {"instances": [image.tolist()], "explain": {"class": 1, "patch": [2, 4]}})
    parts = image * np.resize(WEIGHTS, (24, 3))[:, 1].reshape(4, 6)
    heat = np.array(found[0]["attributions"]["image"])
    for rows in (slice(0, 2), slice(2, 4)):
        for columns in (slice(0, 4), slice(4, 6)):
            assert (heat[rows, columns] == parts[rows, columns].sum()).all()


@pytest.mark.parametrize(
    "shape",
    [(4, 6), (4, 6, 3), (4, 6, 1), (3, 4, 6)],
    ids=["grey", "colour", "one-channel", "channels-first"],
)
def test_an_image_s_overlay_is_a_picture_of_its_size(shape: tuple[int, ...]):
    signature = signature_of(TensorSpec("image", "float32", (None, *shape)), outputs=(SCORES,))
    values = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    [found] = explained(signature, {"instances": [values.tolist()], "explain": {"class": 2, "patch": 2}})
    assert np.shape(found["attributions"]["image"]) == shape
    with Image.open(io.BytesIO(base64.b64decode(found["overlays"]["image"]["b64"]))) as drawn:
        assert (drawn.format, drawn.mode, drawn.size) == ("PNG", "RGB", (6, 4))
        pixels = np.asarray(drawn).astype(int)
    heat = np.array(found["attributions"]["image"]).reshape(shape)
    plane = heat.mean(axis=0 if shape[0] == 3 else -1) if len(shape) == 3 else heat
    row, column = np.unravel_index(np.abs(plane).argmax(), plane.shape)
    red, _, blue = pixels[row, column]
    assert (red > blue) == (plane[row, column] > 0)


def test_a_picture_is_drawn_of_what_is_no_number_too():
    image = [[float("nan"), float("inf"), -3e38, 3e38, 0.0, 1.0]] * 4
    body = {"instances": [image], "explain": {"class": 0, "patch": 1}}
    [found] = explained(IMAGE, body, overflowing)
    with Image.open(io.BytesIO(base64.b64decode(found["overlays"]["image"]["b64"]))) as drawn:
        assert drawn.size == (6, 4)
    assert np.isnan(found["attributions"]["image"]).all()


def test_an_overlay_can_be_left_out():
    [found] = explained(IMAGE, {"instances": [[[1.0] * 6] * 4], "explain": {"overlay": False}})
    assert "overlays" not in found


def test_of_a_text_each_word_is_left_out_once():
    body = {"instances": [["a good  day"], ["bad bad good"], [""]]}
    found = explained(TEXT, body, good_words)
    assert [one["words"]["text"] for one in found] == [["a", "good", "day"], ["bad", "bad", "good"], []]
    assert [one["attributions"]["text"] for one in found] == [[0.0, 2.0, 0.0], [-1.0, -1.0, 2.0], []]
    assert [one["score"] for one in found] == [2.0, 0.0, 0.0]


def test_another_word_can_take_a_word_s_place():
    request = asked(TEXT, {"instances": [["a good day"]], "explain": {"baseline": "[MASK]"}})
    texts = request.tensors["text"].reshape(-1).tolist()
    assert texts == [b"a good day", b"[MASK] good day", b"a [MASK] day", b"a good [MASK]"]


def test_of_several_inputs_one_is_changed_while_the_others_stay():
    signature = signature_of(
        TensorSpec("a", "int64", (None, 2)), TensorSpec("b", "float32", (None,)), outputs=(SCORES,)
    )
    request = asked(signature, {"instances": [{"a": [3, 4], "b": 0.5}, {"a": [5, 6], "b": 1.5}]})
    tensors = request.tensors
    assert tensors["a"].tolist() == [[3, 4], [0, 4], [3, 0], [3, 4], [5, 6], [0, 6], [5, 0], [5, 6]]
    assert tensors["b"].tolist() == [0.5, 0.5, 0.5, 0.0, 1.5, 1.5, 1.5, 0.0]
    alone = asked(signature, {"inputs": {"a": [[3, 4]], "b": [0.5]}, "explain": {"input": "b", "baseline": 9}})
    assert alone.tensors["b"].tolist() == [0.5, 9.0]


def test_a_request_s_own_tensors_are_not_changed():
    request = asked(TABLE, {"instances": [[1.0, 2.0, 3.0, 4.0]]})
    before = request.unchanged["x"].copy()
    assert len(request.tensors["x"]) == 5
    assert np.array_equal(request.unchanged["x"], before)


def test_default_patches_of_a_large_image_are_few():
    signature = signature_of(TensorSpec("image", "uint8", (None, 224, 224, 3)), outputs=(SCORES,))
    values: Tensor = np.zeros((1, 224, 224, 3), np.uint8)
    assert 50 <= asked(signature, {"instances": values.tolist()}).instances <= 65


def test_a_file_of_an_image_is_explained_as_its_numbers_are():
    specification = to_json(ImageInput(kind="image", height=4, width=6, channels=1))
    terms = Contract("m", 1, IMAGE, 1000, input_specification=specification, files=UNREAD)
    file = png(np.zeros((4, 6, 3), np.uint8))
    body = {"instances": [{"b64": base64.b64encode(file).decode()}], "explain": {"patch": 2}}
    request = parse(Body(json.dumps(body).encode(), Dialect.EXPLAIN), terms)
    assert (request.instances, request.unchanged["image"].shape) == (7, (1, 4, 6))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class": 3}, "'digit' has 3 values"),
        ({"class": -1}, "number or the name"),
        ({"class": "four"}, "the name of no class"),
        ({"output": "z"}, "the model has: digit"),
        ({"input": "z"}, "the model has: x"),
        ({"method": "guess"}, "there is: occlusion"),
        ({"patch": 0}, "explain.patch"),
        ({"patch": [1, 2, 3]}, "explain.patch"),
        ({"baseline": [1.0]}, "expected size: 4"),
        ({"baseline": "word"}, "not of expected type"),
        ({"overlay": 1}, "true or false"),
        ({"colour": "red"}, "unknown member"),
        ([], "must be an object"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_options_that_cannot_be_meant_are_refused(options: object, words: str):
    body = {"instances": [[1.0, 2.0, 3.0, 4.0]], "explain": options}
    assert words in refusal(TABLE, body, names=("zero", "one", "two"))


def test_more_copies_than_a_version_takes_are_refused_with_advice():
    said = refusal(IMAGE, {"instances": [[[1.0] * 6] * 4], "explain": {"patch": 1}}, most=24)
    assert "are 25, but this version takes at most 24" in said
    assert "larger explain.patch" in said
    large = signature_of(TensorSpec("image", "float32", (None, None, None)), outputs=(SCORES,))
    assert "bytes" in refusal(large, {"instances": [[[0] * 1024] * 1024], "explain": {"patch": 64}})
    assert "are 262145" in refusal(large, {"instances": [[[0] * 512] * 512], "explain": {"patch": 1}})
    wide = {"instances": [[[0] * 1024] * 1000], "explain": {"patch": 1024}}
    assert "1024000 attributions" in refusal(large, wide)
    long = refusal(TEXT, {"instances": [["word " * 2**18]]})
    assert "not explained at once" in long


def test_models_without_numbers_for_each_instance_cannot_be_explained():
    words = signature_of(TensorSpec("x", "float32", (None, 4)), outputs=(TensorSpec("y", "string", (None,)),))
    assert "no numbers" in refusal(words, {"instances": [[1.0, 2.0, 3.0, 4.0]]})
    alone = signature_of(TensorSpec("x", "float32", (4,)))
    assert "several instances" in refusal(alone, {"inputs": [1.0, 2.0, 3.0, 4.0]})
    deep = signature_of(TensorSpec("x", "float32", (None, 1, 1, 1, 1)), outputs=(SCORES,))
    assert "4 dimensions" in refusal(deep, {"instances": [[[[[1.0]]]]]})


def test_a_name_of_a_class_is_taken_where_names_are_not_known_and_fails_where_there_are_none():
    request = asked(TABLE, {"instances": [[1.0, 2.0, 3.0, 4.0]], "explain": {"class": "two"}})
    with pytest.raises(InputInvalid, match="classes have none"):
        request.format(line(request.tensors), contract(TABLE))


def test_an_output_without_values_has_nothing_to_be_explained():
    scores = TensorSpec("digit", "float32", (None, None))
    signature = signature_of(TensorSpec("x", "float32", (None, 4)), outputs=(scores,))
    request = asked(signature, {"instances": [[1.0, 2.0, 3.0, 4.0]]})
    with pytest.raises(PredictionFailed, match="no values"):
        request.format({"digit": np.zeros((5, 0), np.float32)}, contract(signature))


def test_a_name_counts_only_where_there_is_one_for_each_value():
    body = {"instances": [[1.0, 2.0, 3.0, 4.0]], "explain": {"class": "two"}}
    assert "classes have none" in refusal(TABLE, body, names=("one", "two"))
    free = signature_of(TensorSpec("x", "float32", (None, 4)), outputs=(TensorSpec("digit", "float32", (None, None)),))
    [named] = explained(free, body, names=("zero", "one", "two"))
    assert (named["class"], named["class_name"]) == (2, "two")
    with pytest.raises(InputInvalid, match="classes have none"):
        explained(free, body, names=("one", "two"))
