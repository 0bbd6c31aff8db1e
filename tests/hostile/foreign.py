"""M15 to M28: configurations that name code, files or addresses instead of layers."""

from __future__ import annotations

import base64
import json
import marshal
from collections.abc import Callable

from tests.hostile.bait import Bait, Case, archive
from tests.keras_archives import Json, dense, layer, sequential

Make = Callable[[Bait], Json]


def bytecode(bait: Bait) -> Json:
    """A function as Keras keeps it; called, it makes the mark."""
    code = compile(f"lambda x: (open({str(bait.mark)!r}, 'w').close(), x)[1]", "<lambda>", "eval").co_consts[0]
    held = {"code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None}
    return {"class_name": "__lambda__", "config": held}


def function(module: str, name: str) -> Json:
    """A reference to a function, or to a class in a function's place."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def calling(module: str, name: str, **arguments: object) -> Make:
    return lambda _: layer("Lambda", function=function(module, name), arguments=arguments)


def lambda_layer(bait: Bait) -> Json:
    return layer("Lambda", function=bytecode(bait))


def after_dense(make: Make) -> Callable[[Bait], bytes]:
    """An archive whose third layer, after the input and a Dense one, is the one that `make` gives."""
    return lambda bait: archive(json.dumps(sequential(dense(), make(bait))).encode())


def _case(id: str, what: str, code: str, make: Make, place: str = "", known: str = "") -> Case:
    return Case(id, what, code, f"config.layers[2]{place}", after_dense(make), known=known)


def _recurrent(bait: Bait) -> Json:
    return layer("RNN", cell=lambda_layer(bait))


def _saved_model(path: str) -> Make:
    return lambda _: layer("TFSMLayer", filepath=path, call_endpoint="serve")


def _vocabulary(class_name: str, path: Callable[[Bait], str]) -> Make:
    return lambda bait: layer(class_name, vocabulary=path(bait))


def _text(**options: object) -> Make:
    return lambda _: layer("TextVectorization", vocabulary=["a"], **options)


def _dense(**changes: object) -> Make:
    return lambda _: {**dense(name="other"), **changes}


def _without_module(_: Bait) -> Json:
    return {key: value for key, value in dense(name="other").items() if key != "module"}


def _activation(value: object) -> Make:
    return lambda _: dense(name="other", activation=value)


NOT = "class_not_allowed"
CLASSES = ("keras.layers:TFSMLayer", "keras.layers:StringLookup", "keras.saving:KerasFileEditor",
           "keras.callbacks:CSVLogger")  # fmt: skip

CASES = (
    _case("M15", "a Lambda of bytecode", NOT, lambda_layer, known="CVE-2024-3660, CVE-2026-12481"),
    _case("M16", "a Lambda in TimeDistributed", NOT, lambda bait: layer("TimeDistributed", layer=lambda_layer(bait)),
          ".config.layer"),
    _case("M16", "a Lambda in Bidirectional", NOT, lambda bait: layer("Bidirectional", layer=lambda_layer(bait)),
          ".config.layer"),
    _case("M16", "a Lambda in a nested model", NOT, lambda bait: sequential(lambda_layer(bait)), ".config.layers[1]"),
    _case("M16", "a Lambda as a recurrent cell", NOT, _recurrent, ".config.cell"),
    _case("M17", "a function as output shape", NOT,
          lambda bait: layer("Reshape", target_shape=bytecode(bait)), ".config.target_shape"),
    _case("M17", "a function as mask", NOT, lambda bait: layer("Masking", mask=bytecode(bait)), ".config.mask"),
    _case("M17", "a function as initializer", NOT,
          lambda bait: dense(name="other", kernel_initializer=bytecode(bait)), ".config.kernel_initializer"),
    *(_case("M18", f"a Lambda of {module}.{name}", NOT, calling(module, name), known="CVE-2025-1550")
      for module, name in (("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"))),
    *(_case("M18", f"a layer that is {module}.{name}", NOT, lambda _, module=module, name=name: layer(name, module),
            known="CVE-2025-1550") for module, name in (("os", "system"), ("builtins", "exec"))),
    _case("M19", "a Lambda of get_file", NOT,
          lambda bait: calling("keras.utils", "get_file", origin=bait.address, extract=True)(bait),
          known="CVE-2025-8747, CVE-2025-12060, CVE-2025-12638"),
    _case("M19", "a Lambda of datasets.mnist.load_data", NOT, calling("keras.datasets.mnist", "load_data")),
    _case("M19", "a Lambda of applications.MobileNet", NOT,
          lambda bait: calling("keras.applications", "MobileNet", weights=bait.address)(bait)),
    _case("M19", "a layer that is get_file", NOT, lambda _: layer("get_file", "keras.utils"), known="CVE-2025-8747"),
    *(_case("M20", f"a Lambda of the class {name}", NOT, calling(*name.split(":"), filepath="x")) for name in CLASSES),
    *(_case("M21", f"a Lambda of keras.config.{name}", NOT, calling("keras.config", name), known=known)
      for name, known in (("set_floatx", ""), ("enable_unsafe_deserialization", "CVE-2025-9906"))),
    _case("M21", "a Lambda of set_random_seed", NOT, calling("keras.utils", "set_random_seed", seed=1)),
    _case("M21", "a Lambda of load_model without safe mode", NOT,
          calling("keras.models", "load_model", safe_mode=False), known="CVE-2025-9906"),
    _case("M21", "a Lambda of ops.ones that computes at load", NOT, calling("keras.ops", "ones", shape=[32768, 32768])),
    _case("M22", "a function as activation", "activation", _activation(function("keras.visualization", "plot")),
          ".config.activation"),
    _case("M22", "bytecode as activation", "activation",
          lambda bait: dense(name="other", activation=bytecode(bait)), ".config.activation"),
    _case("M22", "an unknown activation", "activation", _activation("system"), ".config.activation"),
    _case("M22", "a path as activation", "activation", _activation("keras.utils.get_file"), ".config.activation"),
    *(_case("M23", f"a TFSMLayer of {path}", NOT, _saved_model(path), known="CVE-2026-1462")
      for path in ("/srv/model", "gs://bucket/model", "../model")),
    _case("M24", "a TorchModuleWrapper", NOT,
          lambda bait: layer("TorchModuleWrapper", module=base64.b64encode(str(bait.mark).encode()).decode()),
          known="CVE-2025-49655"),
    *(_case("M24", f"a {name}", NOT, lambda _, name=name, module=module: layer(name, module))
      for name, module in (("JaxLayer", "keras.layers"), ("FlaxLayer", "keras.layers"), ("Pipeline", "keras.layers"),
                           ("FeatureSpace", "keras.utils"))),
    _case("M25", "a class registered by its author", "registered_name", _dense(registered_name="pkg>Dense")),
    _case("M25", "a class registered as another", "registered_name", _dense(registered_name="Lambda")),
    *(_case("M26", f"a layer of the module {module!r}", NOT, _dense(module=module))
      for module in ("keras.src.layers.core.dense", "keras_hub.layers", "keras_nlp.layers", "", None, ["keras"])),
    _case("M26", "a layer without a module", NOT, _without_module),
    *(_case("M27", f"a {name} with the vocabulary of {what}", "vocabulary", _vocabulary(name, path),
            ".config.vocabulary", "CVE-2025-12058")
      for name, what, path in (
          ("StringLookup", "a file", lambda _: "/etc/hostname"),
          ("StringLookup", "a file's address", lambda _: "file:///etc/hostname"),
          ("IntegerLookup", "a bucket", lambda _: "gs://bucket/vocabulary.txt"),
          ("TextVectorization", "an address", lambda bait: bait.address))),
    _case("M28", "bytecode that standardises", "text_option",
          lambda bait: _text(standardize=bytecode(bait))(bait), ".config.standardize"),
    _case("M28", "a function that splits", "text_option", _text(split=function("builtins", "eval")), ".config.split"),
)  # fmt: skip
