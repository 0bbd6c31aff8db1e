"""The gate for configurations: strict JSON and the walk against the allow-list."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.keras_archives import Json, dense, layer, sequential
from tests.models import ModelFile
from workers.errors import UploadRefused
from workers.preparation import allowed_classes, strict_json, structure
from workers.preparation.keras_uploads import check_version

# Left out by decision; everything else that Keras exports is either allowed or unknown to us, which fails below.
REFUSED = {
    "keras.layers": {"FlaxLayer", "JaxLayer", "Lambda", "Pipeline", "TFSMLayer", "TorchModuleWrapper", "Wrapper"},
    "keras": {"Initializer", "InputSpec", "Layer", "Quantizer", "Regularizer"},
    "keras.constraints": {"Constraint"},
    "keras.quantizers": {"AWQConfig", "GPTQConfig", "QuantizationConfig"},
    "keras.src.ops.numpy": {"Arange", "Array", "EmptyLike", "Full", "Geomspace", "Linspace", "Logspace", "Meshgrid"},
    "keras.src.ops.math": {"SegmentReduction"},
    "keras.src.ops.linalg": {"JVP"},
    "keras.src.ops.core": {
        "AssociativeScan", "Cond", "ForiLoop", "Map", "Scan", "Switch", "VectorizedMap", "WhileLoop",
    },
}  # fmt: skip


def refusal(document: object, *, legacy: bool = False) -> str:
    with pytest.raises(UploadRefused) as caught:
        structure.inspect(document, legacy=legacy)
    return caught.value.code


@pytest.fixture(scope="module")
def configs(model_files: dict[str, ModelFile]) -> dict[str, Any]:
    """What Keras says about its own classes and layers."""
    found: dict[str, Any] = json.loads((model_files["dense"].path.parent / "configs.json").read_text())
    return found


def test_every_class_that_keras_exports_is_allowed_or_refused_by_decision(configs: dict[str, Any]):
    for module, names in configs["exported"].items():
        assert set(names) - {"Operation"} - allowed_classes.ALLOWED.get(module, frozenset()) == REFUSED.get(
            module, set()
        )
    assert set(configs["activations"]) == allowed_classes.ACTIVATIONS


def test_every_allowed_class_exists_in_keras(configs: dict[str, Any]):
    for module in configs["exported"]:
        allowed = allowed_classes.ALLOWED.get(module, frozenset()) - {"Sequential"}
        assert allowed <= set(configs["exported"][module])


def test_honest_layers_of_all_kinds_pass_unchanged(configs: dict[str, Any]):
    for index, written in enumerate(configs["layers"]):
        written["config"]["name"] = f"layer_{index}"
    model = structure.inspect(sequential(*configs["layers"]))
    config: Any = model["config"]
    assert config["layers"][1:] == configs["layers"]


def test_the_training_configuration_is_dropped():
    assert "compile_config" not in structure.inspect(sequential(dense()))


@pytest.mark.parametrize("value", ["...x,xy->...y", "b (h two) ... -> b ...", "int4/128", "int4/-1_from_float32"])
def test_what_only_looks_like_a_path_passes(value: str):
    structure.inspect(sequential(dense(note=value)))


@pytest.mark.parametrize("value", ["..", "x..y", ".../x", "int4/../x", "int8/128", "~x"])
def test_what_could_be_a_path_is_refused(value: str):
    assert refusal(sequential(dense(note=value))) == "path_string"


def bomb(value: object) -> Json:
    """A function reference as Keras would resolve it, around a value."""
    return {"module": "builtins", "class_name": "function", "config": value, "registered_name": "function"}


def literal(class_name: str, **config: object) -> Json:
    return {"class_name": class_name, "config": config}


LAMBDA = layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEAAAA="}})
HOSTILE: dict[str, tuple[Json, str]] = {
    "lambda": (LAMBDA, "class_not_allowed"),
    "lambda in a wrapper": (layer("TimeDistributed", layer=LAMBDA), "class_not_allowed"),
    "lambda in a recurrent cell": (layer("RNN", cell=LAMBDA), "class_not_allowed"),
    "lambda in a nested model": (sequential(LAMBDA), "class_not_allowed"),
    "saved model": (layer("TFSMLayer", filepath="x"), "class_not_allowed"),
    "torch module": (layer("TorchModuleWrapper", module="AAAA"), "class_not_allowed"),
    "jax layer": (layer("JaxLayer", call_fn="x"), "class_not_allowed"),
    "downloader": (layer("get_file", "keras.utils"), "class_not_allowed"),
    "module of the interpreter": (layer("system", "os"), "class_not_allowed"),
    "other spelling of a layer": (layer("Dense", "keras.src.layers.core.dense", units=3), "class_not_allowed"),
    "hub": (layer("Backbone", "keras_hub.models"), "class_not_allowed"),
    "creating operation": (layer("Full", "keras.src.ops.numpy", shape=[9]), "class_not_allowed"),
    "no module": ({"class_name": "Dense", "config": {"name": "d", "units": 3}}, "class_not_allowed"),
    "null module": ({**dense(), "module": None}, "class_not_allowed"),
    "registered class": ({**dense(), "registered_name": "pkg>Dense"}, "registered_name"),
    "activation function object": (dense(activation=bomb("relu")), "activation"),
    "activation of keras": (dense(activation={**bomb("plot"), "module": "keras.visualization"}), "activation"),
    "activation by path": (dense(activation="keras.utils.get_file"), "activation"),
    "activation unknown": (dense(activation="system"), "activation"),
    "activation class": (dense(activation={"class_name": ["Dense"], "config": {}}), "activation"),
    "recurrent activation": (layer("LSTM", units=2, recurrent_activation=bomb("tanh")), "activation"),
    "vocabulary from a file": (layer("StringLookup", vocabulary="/etc/hostname"), "vocabulary"),
    "vocabulary from the net": (layer("IntegerLookup", vocabulary="http://127.0.0.1:9/v"), "vocabulary"),
    "vocabulary of objects": (layer("TextVectorization", vocabulary=[{"a": 1}]), "vocabulary"),
    "standardize function": (layer("TextVectorization", standardize=bomb("lower")), "text_option"),
    "split function": (layer("TextVectorization", split="re.split"), "text_option"),
    "type specification": (dense(kernel_initializer={"class_name": "__typespec__", "config": []}), "class_not_allowed"),
    "initializer function": (dense(kernel_initializer=bomb("zeros")), "class_not_allowed"),
    "path": (dense(note="../secrets"), "path_string"),
    "address": (dense(note="gs://bucket/x"), "path_string"),
    "home": (dense(note="~"), "path_string"),
    "layer name with a path": (dense(name="../../x"), "layer_name"),
    "layer name with a slash": (dense(name="a/b"), "layer_name"),
    "layer name with a NUL": (dense(name="a\0"), "layer_name"),
    "long layer name": (dense(name="x" * 10_000), "layer_name"),
    "layer name of dots": (dense(name=".."), "layer_name"),
    "huge units": (dense(10**8), "size_field"),
    "units as text": (dense("3"), "config_field"),
    "negative units": (dense(-1), "config_field"),
    "units as float": (dense(1e9), "config_field"),
    "units as boolean": (dense(True), "config_field"),
    "huge shape": (layer("Reshape", target_shape=[10**9]), "size_field"),
    "huge constant": (layer("Constant", "keras.initializers", value=[0] * 200_000), "literal_size"),
    "array of text": (dense(x=literal("__numpy__", value=["a"], dtype="float32")), "literal"),
    "array of objects": (dense(x=literal("__tensor__", value=[1], dtype="object")), "literal"),
    "literal with extras": (dense(x={"class_name": "__bytes__", "config": {}, "module": "os"}), "literal"),
    "class without configuration": ({**dense(), "config": None}, "config_field"),
    "class in a shape": ({**dense(), "build_config": {"input_shape": dense()}}, "config_field"),
    "unknown part": ({**dense(), "__reduce__": "x"}, "config_key"),
    "odd key": (dense(**{"a b": 1}), "config_key"),
    "two names": ({**dense(), "name": "other"}, "layer_name"),
    "long text": (dense(note="x" * 5000), "config_string"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_is_refused(name: str):
    hostile, code = HOSTILE[name]
    assert refusal(sequential(dense(), hostile)) == code


@pytest.mark.parametrize("name", ["lambda", "saved model", "registered class", "activation unknown", "huge units"])
def test_a_hostile_layer_is_refused_in_the_legacy_dialect_too(name: str):
    hostile, code = copy.deepcopy(HOSTILE[name])
    hostile.pop("module")
    assert refusal(sequential(dense(), hostile), legacy=True) == code


def test_a_function_named_as_a_class_is_refused_in_the_legacy_dialect():
    hostile = {"class_name": "deserialize", "config": {"name": "x"}}
    assert refusal(sequential(hostile), legacy=True) == "class_not_allowed"


def test_the_place_of_a_finding_is_told():
    with pytest.raises(UploadRefused, match=r"^config\.layers\[2\]\.config\.layer.*'Lambda'"):
        structure.inspect(sequential(dense(), layer("TimeDistributed", layer=LAMBDA)))


def test_a_legacy_file_that_lacks_an_adapted_vocabulary_says_what_to_do():
    words = layer("TextVectorization", vocabulary=None)
    with pytest.raises(UploadRefused, match=r"save as \.keras"):
        structure.inspect(sequential(words), legacy=True)
    structure.inspect(sequential(words))


@pytest.mark.parametrize("document", [3, [], "x", None, {}, {"class_name": 3}, dense()])
def test_a_document_that_is_no_model_is_refused(document: object):
    assert refusal(document).startswith("config_")


def test_two_layers_of_one_name_are_refused():
    assert refusal(sequential(dense(), dense())) == "layer_name"


def test_too_many_layers_are_refused():
    assert refusal(sequential(*(dense(name=f"d{index}") for index in range(2001)))) == "config_layers"


def test_a_configuration_of_keras_2_is_brought_up_to_date():
    kernel = {"class_name": "GlorotUniform", "config": {"seed": None}, "shared_object_id": 1}
    written = {"class_name": "Dense", "config": {"name": "d", "units": 2, "kernel_initializer": kernel}, "name": "d"}
    inputs = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "i"}, "name": "i"}
    document = {
        "class_name": "Model",
        "config": {
            "name": "model",
            "layers": [{**inputs, "inbound_nodes": []}, {**written, "inbound_nodes": [[["i", 0, 0, {}]]]}],
            "input_layers": [["i", 0, 0]],
            "output_layers": [["d", 0, 0]],
        },
    }
    model = structure.inspect(document, legacy=True)
    config: Any = model["config"]
    assert (model["module"], model["class_name"]) == ("keras.src.models.functional", "Functional")
    assert config["layers"][0]["config"] == {"batch_shape": [None, 4], "name": "i"}
    assert config["layers"][1]["config"]["kernel_initializer"]["module"] == "keras.initializers"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"[" * 100_000, "json_depth"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "json_depth"),
        (b"[" + b"0," * 1_000_000 + b"0]", "json_nodes"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "json_duplicate_key"),
        (b"[NaN]", "json_number"),
        (b"[-Infinity]", "json_number"),
        (b"[1e400]", "json_number"),
        (b"[" + b"9" * 5000 + b"]", "json_number"),
        (b"[9007199254740993]", "json_number"),
        (b'["\\ud800"]', "json_encoding"),
        (b'["\xff"]', "json_encoding"),
        (b"\xef\xbb\xbf{}", "json_encoding"),
        ('{"a": 1}'.encode("utf-16"), "json_encoding"),
        (b"", "json_syntax"),
        (b"{}}", "json_syntax"),
        (b"{'a': 1}", "json_syntax"),
        (b'"[[[[', "json_syntax"),
        (b" " * (17 * 1024**2), "json_size"),
    ],
)
def test_json_that_parsers_could_read_differently_is_refused(text: bytes, code: str):
    with pytest.raises(UploadRefused) as caught:
        strict_json.parse(text, "config.json")
    assert caught.value.code == code


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON)
def test_plain_json_is_read_as_the_standard_library_reads_it(value: object):
    text = json.dumps(value).encode()
    if b"\\ud" not in text:  # lone surrogates, which hypothesis leaves out, and pairs of them
        assert strict_json.parse(text, "x") == json.loads(text)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), value=JSON)
def test_whatever_stands_in_a_configuration_it_passes_or_is_refused(data: st.DataObject, value: object):
    document: Any = sequential(dense(), layer("LSTM", units=2, vocabulary=["a"]), layer("Embedding", input_dim=3))
    place = document
    while isinstance(place, (dict, list)) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            place[key] = value
            break
        place = place[key]
    with contextlib.suppress(UploadRefused):
        structure.inspect(document, legacy=data.draw(st.booleans()))


@pytest.mark.parametrize("version", ["99.0.0", "2.15.0", "3", "", None, 3])
def test_a_file_of_an_unknown_keras_is_refused(version: object):
    with pytest.raises(UploadRefused) as caught:
        check_version({"keras_version": version})
    assert caught.value.code == "keras_version"


def test_files_of_older_versions_of_keras_3_are_taken():
    check_version({"keras_version": "3.0.5"})
