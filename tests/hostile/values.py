"""M29 to M35, M56: configurations whose values no model has, and JSON that two parsers would read differently."""

from __future__ import annotations

import json

from tests.hostile.bait import Case, archive
from tests.hostile.foreign import after_dense
from tests.keras_archives import Json, dense, layer, sequential

GOOD = json.dumps(sequential(dense()))


def _case(id: str, what: str, code: str, hostile: Json, place: str = "", known: str = "") -> Case:
    return Case(id, what, code, f"config.layers{place or '[2]'}", after_dense(lambda _: hostile), known=known)


def _whole(id: str, what: str, code: str, document: object, place: str = "") -> Case:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Case(id, what, code, place, lambda _: archive(text))


def _literal(name: str, **config: object) -> Json:
    return {"class_name": name, "config": config}


def _initialised(value: object) -> Json:
    constant = {"module": "keras.initializers", "class_name": "Constant", "config": {"value": value}}
    return dense(name="other", kernel_initializer=constant)


def _twice(key: str, value: str) -> bytes:
    """The good configuration with one of its keys written a second time, in front."""
    return GOOD.replace(f'"{key}":', f'"{key}": {value}, "{key}":', 1).encode()


def _with_text(value: bytes) -> bytes:
    return GOOD.encode().replace(b'"relu"', value)


DEEP = "[2].config.kernel_initializer.config.value"

CASES = (
    *(_case("M29", f"a layer named {name[:20]!r}", "layer_name", dense(name=name), "[2].config.name", "CVE-2026-12479")
      for name in ("../../x", "/abs", "a/b", "a\0b", "x" * 10_000, "..")),
    _case("M29", "two layers of one name", "layer_name", dense(), "[2].config.name: a second layer"),
    _case("M30", "a constant of 200,000 numbers", "literal_size", _initialised([0] * 200_000), DEEP),
    _case("M30", "an array of 200,000 numbers", "literal_size",
          _initialised(_literal("__numpy__", value=[0] * 200_000, dtype="float32")), DEEP),
    _case("M30", "a tensor of texts", "literal",
          _initialised(_literal("__tensor__", value=["a"], dtype="string")), DEEP),
    _case("M30", "an array of objects", "literal",
          _initialised(_literal("__numpy__", value=[1], dtype="object")), DEEP),
    _case("M31", "a type specification of a foreign module", "class_not_allowed",
          _initialised({"class_name": "__typespec__", "config": [], "module": "os", "spec_name": "system"}), DEEP),
    _whole("M32", "a configuration that is not JSON", "json_syntax", b"not JSON", "config.json"),
    *(_whole("M32", f"a configuration that is {json.dumps(document)}", "config_model", document)
      for document in (3, "x", [])),
    _whole("M32", "a configuration without a class", "config_field", {"config": {}}),
    _whole("M32", "a configuration of a layer", "config_model", dense()),
    *(_case("M32", f"units of {units!r}", "config_field", dense(units, name="other"), "[2].config.units")
      for units in ("3", -1, 0, 1e9, True)),
    _whole("M33", "100,000 lists in each other", "json_depth", b"[" * 100_000, "config.json"),
    _whole("M33", "1,000 objects in each other", "json_depth", b'{"a":' * 1000 + b"1" + b"}" * 1000, "config.json"),
    _whole("M33", "a list of a million", "json_nodes", b"[" + b"0," * 1_000_000 + b"0]", "config.json"),
    _whole("M34", "class_name twice", "json_duplicate_key", _twice("class_name", '"Lambda"'), "config.json"),
    _whole("M34", "config twice", "json_duplicate_key", _twice("config", "{}"), "config.json"),
    *(_whole("M35", f"the number {number[:8].decode()}", "json_number", _with_text(number), "config.json")
      for number in (b"NaN", b"-Infinity", b"1e400", b"9" * 5000, b"9007199254740993")),
    _whole("M35", "half of a surrogate pair", "json_encoding", _with_text(b'"\\ud800"'), "config.json"),
    _whole("M35", "bytes that are not UTF-8", "json_encoding", _with_text(b'"\xff"'), "config.json"),
    _whole("M35", "UTF-16", "json_encoding", GOOD.encode("utf-16"), "config.json"),
    _whole("M35", "a byte order mark", "json_encoding", b"\xef\xbb\xbf" + GOOD.encode(), "config.json"),
    _case("M56", "a layer of 10^8 units", "size_field", dense(10**8, name="other"), "[2].config.units"),
    _case("M56", "a million units with twelve weights", "weights_mismatch", dense(10**6, name="other"), "[2]"),
    _case("M56", "an embedding of 10^9 numbers", "weights_mismatch",
          layer("Embedding", input_dim=10**6, output_dim=1000), "[2]"),
    _case("M72", "a path among a layer's values", "path_string", dense(name="other", note="../secret"), "[2].config"),
    _case("M72", "a key that is no name", "config_key", dense(name="other", **{"a b": 1}), "[2].config"),
    _case("M72", "a class in a shape", "config_field",
          {**dense(name="other"), "build_config": {"input_shape": dense()}}, "[2].build_config"),
    _case("M72", "a further part of a class", "config_key", {**dense(name="other"), "__reduce__": "x"}),
)  # fmt: skip
