"""Predictions through the Python client, with threads and with asyncio: what is given, how it is sent, what comes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from auth.grants import Action, GrantSpec
from model_store.signature import Signature, TensorSpec
from sluice import BodyBroken, Client, FileUnknown, InputInvalid, ModelNotFound
from sluice.described_model import ModelDescription, TensorDescription, fitted, read_description
from sluice.exchange import Asked
from sluice.given_inputs import content_type, request_of, tensors_of
from sluice.targets import Target
from tests.client_kit import CLIENTS, login
from tests.processes import Cluster, wait_for
from tests.queue_kit import doubling_model, serve_model
from tests.serving import whole_numbers

MODELS = ("double", "table", "times", "whole", "picture", "words")


@pytest.fixture(params=CLIENTS, ids=("threads", "asyncio"), scope="module")
def sluice(request: pytest.FixtureRequest, serving: Cluster) -> Iterator[Any]:
    with request.param(*login(serving, *MODELS)) as made:
        yield made


def sent(given: Any, description: Any = None) -> Asked:  # noqa: ANN401 - whatever predict takes
    return request_of(Target("m"), given, description, None, "predict")


def test_an_array_comes_back_as_an_array_of_the_models_elements(sluice: Any):  # noqa: ANN401 - either client
    # given 64-bit numbers, as NumPy makes them, for a model of 32-bit ones
    answered = sluice.predict("double", np.array([[1.0, 2.0], [0.1, -3.5]]))
    assert answered.dtype == np.float32
    assert answered.tolist() == np.array([[2, 4], [0.2, -7]], np.float32).tolist()
    answered *= 2  # it is the caller's own
    assert sluice.predict("whole", np.array([[1, 2, 3]], np.int8)).dtype == np.int64
    assert sluice.predict("table", np.array([3, 0])).tolist() == [3.5, 0.5]


def test_lists_and_objects_and_arrays_are_answered_alike(sluice: Any):  # noqa: ANN401 - either client
    given = [[0.1, 2.0], [1e-8, 3.0]]
    answers = [
        sluice.predict("double", one)
        for one in (np.array(given), [np.array(row) for row in given], given, {"x": np.array(given)}, {"x": given})
    ]
    for answered in answers:
        assert answered.dtype == np.float32
        assert answered.tobytes() == answers[0].tobytes()


def test_a_version_and_a_label_are_asked_for_in_every_form(sluice: Any):  # noqa: ANN401 - either client
    for given in (np.ones((1, 2)), [[1.0, 1.0]]):
        assert sluice.predict("times", given).tolist() == [[3, 3]]
        assert sluice.predict("times", given, version=1).tolist() == [[2, 2]]
        assert sluice.predict("times", given, label="stable").tolist() == [[2, 2]]


def test_outputs_are_chosen_by_name(sluice: Any):  # noqa: ANN401 - either client
    for given in (np.ones((1, 2)), [[1.0, 1.0]]):
        assert sluice.predict("double", given, outputs="y").tolist() == [[2, 2]]
        assert {name: one.tolist() for name, one in sluice.predict("double", given, outputs=["y"]).items()} == {
            "y": [[2, 2]]
        }
    with pytest.raises(InputInvalid, match="unexpected inference output"):
        sluice.predict("double", np.ones((1, 2)), outputs="z")
    with pytest.raises(ValueError, match="the model gives y, not z"):
        sluice.predict("double", [[1.0, 1.0]], outputs=["z"])


def test_texts_are_sent_as_texts_and_come_back_as_str(sluice: Any):  # noqa: ANN401 - either client
    assert sluice.predict("words", "größe").tolist() == [["größe"]]
    assert sluice.predict("words", ["a", "", "b\n"]).tolist() == [["a"], [""], ["b\n"]]
    assert sluice.predict("words", [["a"]]).tolist() == [["a"]]
    # A column of a table has one dimension; NumPy's own texts would lose the zero byte.
    assert sluice.predict("words", np.array(["a", "b"], object)).tolist() == [["a"], ["b"]]
    column = np.array(["a"], object)[:, None]
    assert sluice.predict("words", {"x": column}).tolist() == [["a"]]


def test_files_are_sent_as_they_are(sluice: Any, tmp_path: Path):  # noqa: ANN401 - either client
    image = tmp_path / "picture.without-a-known-ending"
    Image.fromarray(np.full((4, 6, 3), 255, np.uint8)).save(image, "png")
    alone = sluice.predict("picture", image)
    assert alone.shape == (1, 4, 6, 3)
    assert np.allclose(alone[0, 0, 0], [0.9, 0.8, 0.7])
    assert (sluice.predict("picture", image.read_bytes()) == alone).all()
    assert (sluice.predict("picture", bytearray(image.read_bytes())) == alone).all()
    # Several are one request in JSON.
    assert (sluice.predict("picture", [image, image]) == np.concatenate([alone, alone])).all()
    text = tmp_path / "text.txt"
    text.write_text("ABC")
    assert sluice.predict("words", text).tolist() == [["abc"]]


def test_what_does_not_fit_is_refused_in_the_gateways_words(sluice: Any):  # noqa: ANN401 - either client
    with pytest.raises(InputInvalid) as refused:
        sluice.predict("double", np.ones((1, 3)))
    assert "takes FP32 of shape [-1,2]" in str(refused.value)
    assert refused.value.status == 400
    assert refused.value.request_id
    with pytest.raises(InputInvalid, match=r"datatype is \"?'?FP64"):
        sluice.predict("whole", np.array([[0.5, 1, 2]]))
    with pytest.raises(InputInvalid, match=r"datatype is \"?'?BYTES"):
        sluice.predict("double", np.array([["a", "b"]], object))
    with pytest.raises(ModelNotFound) as unknown:
        sluice.predict("nosuch", np.ones((1, 2)))
    assert (unknown.value.status, unknown.value.code) == (404, "model_not_found")
    with pytest.raises(ModelNotFound) as nowhere:
        sluice.predict("double", [[1.0, 2.0]], label="nosuch")
    assert (nowhere.value.status, nowhere.value.code) == (400, "label_not_found")


def test_what_is_refused_as_json_is_sent_once(serving: Cluster):
    with Client(*login(serving, "double")) as sluice:
        sluice.predict("double", np.ones((1, 2)))
        asked: list[str] = []
        sluice._link._http.event_hooks["request"].append(lambda request: asked.append(request.url.path))
        for given in ([[1.0]], ([1.0] for _ in range(3))):
            with pytest.raises(InputInvalid, match="unexpected size"):
                sluice.predict("double", given)
    assert asked == ["/v1/models/double:predict"] * 2


def test_a_version_and_a_label_at_once_are_refused(sluice: Any):  # noqa: ANN401 - either client
    with pytest.raises(ValueError, match="not both"):
        sluice.predict("times", np.ones((1, 2)), version=1, label="stable")


def test_a_client_that_may_not_see_the_model_predicts_all_the_same(serving: Cluster):
    blind = GrantSpec("double", actions=frozenset({Action.PREDICT}))
    with Client(*login(serving, blind)) as sluice:
        assert np.allclose(sluice.predict("double", np.array([[1, 0.5]], np.float32)), [[2, 1]])


def test_a_model_describes_itself(sluice: Any):  # noqa: ANN401 - either client
    found = sluice.metadata("times", label="stable")
    assert (found.name, found.version) == ("times", 1)
    assert found.inputs == {"x": TensorDescription("x", "float32", (None, 2))}
    assert set(sluice.models()) == set(MODELS)


def test_a_dry_run_tells_what_would_be_read_and_what_would_work(sluice: Any):  # noqa: ANN401 - either client
    for given in (np.ones((3, 2)), np.ones((3, 2)).tolist()):
        assert sluice.check("double", given)["instances"] == 3
    with pytest.raises(InputInvalid) as refused:
        sluice.check("double", [[1.0]])
    assert refused.value.answer["expected"] == [{"name": "x", "dtype": "float32", "shape": [None, 2]}]


def test_an_explanation_is_arrays_and_pictures(sluice: Any):  # noqa: ANN401 - either client
    (found,) = sluice.explain("double", np.array([[1.0, -3.0]]), options={"class": 1})
    assert (found.method, found.output, found.class_number, found.score) == ("occlusion", "y", 1, -6.0)
    assert found.attributions["x"].tolist() == [0, -6]
    (image,) = sluice.explain("picture", np.ones((1, 4, 6, 3)), options={"patch": 2})
    assert image.attributions["x"].shape[:2] == (4, 6)
    assert image.overlays["x"].startswith(b"\x89PNG")
    assert len(sluice.explain("double", {"x": [[1.0, 2.0], [3.0, 4.0]]})) == 2


def test_a_model_whose_inputs_are_called_otherwise_by_now_is_asked_again(serving: Cluster, tmp_path: Path):
    model = doubling_model(tmp_path / "double.onnx")
    serve_model(serving.sessions, serving.artifacts, model, "renamed")
    other = Signature((TensorSpec("n", "int64", (None, 3)),), (TensorSpec("doubled", "int64", (None, 3)),))
    with Client(*login(serving, "renamed")) as sluice:
        wait_for(lambda: "renamed" in sluice.models(), 10)
        assert sluice.predict("renamed", np.array([[1, 2]])).tolist() == [[2, 4]]
        serve_model(
            serving.sessions, serving.artifacts, whole_numbers(tmp_path / "whole.onnx"), "renamed", signature=other
        )
        wait_for(lambda: sluice.metadata("renamed").version == 2, 10)
        assert sluice.predict("renamed", np.array([[1, 2, 3]])).tolist() == [[2, 4, 6]]
        assert sluice.predict("renamed", np.array([[1, 2]]), version=1).dtype == np.float32


def test_elements_are_changed_only_where_nothing_but_digits_is_lost():
    for given, dtype, expected in (
        (np.array([1.5, 1e300]), "float32", "float32"),
        (np.array([1, 2]), "float32", "float32"),
        (np.array([1, 2]), "uint8", "uint8"),
        (np.array([1, 256]), "uint8", "int64"),
        (np.array([-1, 2]), "uint64", "int64"),
        (np.array([1.0]), "int64", "float64"),
        (np.array([True]), "float32", "bool"),
        (np.array(["a"]), "float32", "<U1"),
        (np.array([1.0]), "string", "float64"),
        (np.array([], np.int64), "int8", "int8"),
    ):
        assert fitted(given, dtype).dtype == np.dtype(expected), (given, dtype)


def test_what_is_given_decides_how_it_is_sent():
    document = {
        "model_spec": {"name": "m", "signature_name": "", "version": "7"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {
                            "x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}
                        },
                        "outputs": {"y": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}]}}},
                    }
                }
            }
        },
    }
    description = read_description(document)
    assert description.outputs["y"] == TensorDescription("y", "string", (None,))
    for given in (np.ones((1, 2)), [np.ones(2)], {"x": np.ones((1, 2))}):
        asked = sent(given, description)
        head = json.loads(asked.content[: int(asked.headers["Inference-Header-Content-Length"])])
        assert asked.path == "/v2/models/m/infer"
        assert head["inputs"] == [
            {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
        ]
    for given, body in (
        ([[1.0, 2.0]], {"instances": [[1.0, 2.0]]}),
        ({"x": [[1.0]]}, {"inputs": {"x": [[1.0]]}}),
        ([{"x": np.ones(1)}], {"instances": [{"x": [1.0]}]}),
        ([b"abc"], {"instances": [{"b64": "YWJj"}]}),
        ("no model of texts", {"instances": ["no model of texts"]}),
        ({"x": np.ones(1), "file": [b"abc"]}, {"inputs": {"x": [1.0], "file": [{"b64": "YWJj"}]}}),
    ):
        asked = sent(given, description)
        assert (asked.path, json.loads(asked.content)) == ("/v1/models/m:predict", body)


def test_texts_keep_the_zeros_that_they_end_with():
    texts = TensorDescription("t", "string", (None,))
    description = ModelDescription("m", 1, {"t": texts, "n": TensorDescription("n", "int64", (None,))}, {})
    found = tensors_of({"t": ["a\0", "b"], "n": np.ones(2, int)}, description)
    assert found is not None
    assert found["t"].tolist() == ["a\0", "b"]


def test_files_are_known_by_how_they_begin(tmp_path: Path):
    for kind in ("png", "jpeg", "webp"):
        buffer = io.BytesIO()
        Image.new("L", (2, 2)).save(buffer, kind)
        assert content_type(buffer.getvalue(), None) == f"image/{kind}"
    assert content_type(b"RIFF\x24\0\0\0WAVEfmt ", None) == "audio/wav"
    assert content_type(b"fLaC", None) == "audio/flac"
    assert content_type(b"", Path("a.TXT")) == "text/plain"
    with pytest.raises(FileUnknown, match="no PNG, JPEG"):
        content_type(b"....WAVE", None)
    with pytest.raises(FileUnknown, match=r"a\.pdf"):
        content_type(b"%PDF", Path("a.pdf"))
    with pytest.raises(FileNotFoundError):
        sent(tmp_path / "nothing")


def test_what_is_too_large_is_not_sent_again_and_again(sluice: Any):  # noqa: ANN401 - either client
    with pytest.raises((InputInvalid, BodyBroken)) as refused:
        sluice.predict("double", np.zeros((3_000_000, 2), np.float32))
    # The refusal may be lost with the connection, which the gateway closes without having read the body.
    assert "may be more than it takes" in str(refused.value) or refused.value.code == "body_too_large"
    assert sluice.predict("double", np.ones((1, 2))).tolist() == [[2, 2]]
