"""The structure walk: a model's configuration against the allow-list, rewritten from nothing but what was understood.

Keras resolves names in a configuration to classes and functions, and calls them with what the configuration says
(keras/src/saving/serialization_lib.py). So every value is looked at, in every position, and what comes out is a new
tree: known keys only, `compile_config` dropped, classes of legacy files given their module.
"""

from __future__ import annotations

from workers.preparation import fields, literals
from workers.preparation.allowed_classes import ACTIVATION_LAYERS, ACTIVATIONS, FUNCTIONAL, is_allowed, legacy_module
from workers.preparation.findings import refused, shown

LAYERS_LIMIT = 2_000
_KEYS = frozenset({"module", "class_name", "config", "registered_name", "shared_object_id"})
_KEYS |= {"name", "inbound_nodes", "build_config", "compile_config"}
_LEGACY_KEYS = _KEYS | {"__passive_serialization__"}
_WITH_VOCABULARY = frozenset({"TextVectorization", "StringLookup", "IntegerLookup"})
_MODELS = frozenset({("keras", "Sequential"), (FUNCTIONAL, "Functional")})
_REFUSED_SPECIALS = {
    "__lambda__": "a Python function is code",
    "__typespec__": "type specifications are not taken",
    "function": "functions by name are not taken",
}

Json = dict[str, object]


def inspect(document: object, *, legacy: bool = False) -> Json:
    """The configuration to build the model from; `legacy` is the dialect of `.h5` files, which names no modules.

    Raises UploadRefused with the place in its message: class_not_allowed, registered_name, activation, vocabulary,
    text_option, path_string, layer_name, literal, literal_size, size_field, config_field, config_string, config_key,
    config_layers, config_model.
    """
    if not isinstance(document, dict):
        raise refused("config_model", "the configuration is not an object")
    walk = _Walk(legacy)
    model = walk.named_class(document, "", "")
    if (model["module"], model["class_name"]) not in _MODELS:
        raise refused(
            "config_model", f"the configuration describes {model['class_name']}, not a Sequential or functional model"
        )
    return model


class _Walk:
    """One walk: counts the layers as it goes."""

    def __init__(self, legacy: bool) -> None:
        self._legacy = legacy
        self._layers = 0

    def value(self, value: object, key: str, place: str) -> object:
        """A copy of a configuration's value; `key` is the field that holds it, also for the items of a list."""
        if isinstance(value, dict):
            return self._object(value, key, place)
        if isinstance(value, list):
            literals.check_length(value, place)
            return [self.value(item, key, f"{place}[{index}]") for index, item in enumerate(value)]
        fields.check(value, key, place)
        return value

    def named_class(self, node: Json, key: str, place: str) -> Json:
        """A copy of `{"module", "class_name", "config", …}` whose class is on the allow-list."""
        if unknown := node.keys() - (_LEGACY_KEYS if self._legacy else _KEYS):
            raise refused("config_key", f"{shown(min(unknown))} is no part of a class", place)
        class_name = node.get("class_name")
        if not isinstance(class_name, str):
            raise refused("config_field", "class_name is not a string", place)
        self._check_registered_name(node.get("registered_name"), class_name, place)
        module, class_name = self._resolve(node, class_name, key, place)
        config = node.get("config")
        if not isinstance(config, dict):
            raise refused("config_field", f"the configuration of {class_name} is not an object", place)
        copy: Json = {"module": module, "class_name": class_name, "registered_name": node.get("registered_name")}
        copy["config"] = self._config(config, (module, class_name), f"{place}.config")
        return copy | self._around(node, place)

    def _object(self, node: Json, key: str, place: str) -> object:
        if "class_name" not in node:
            return {
                fields.check_key(name, place): self._field(value, name, f"{place}.{name}")
                for name, value in node.items()
            }
        special = node["class_name"]
        if isinstance(special, str) and special in _REFUSED_SPECIALS:
            code = "activation" if key.endswith("activation") else "class_not_allowed"
            raise refused(code, f"{special}: {_REFUSED_SPECIALS[special]}", place)
        if special == "__slice__":
            return literals.slice_bounds(node, place)
        if isinstance(special, str) and special in literals.READERS:
            return literals.READERS[special](node, place)
        return self.named_class(node, key, place)

    def _field(self, value: object, key: str, place: str) -> object:
        if key.endswith("activation"):
            return self._activation(value, key, place)
        if key in fields.WHOLE:
            return fields.WHOLE[key](value, place)
        return self.value(value, key, place)

    def _config(self, config: Json, kind: tuple[str, str], place: str) -> Json:
        if self._legacy and kind[1] in _WITH_VOCABULARY and config.get("vocabulary") is None:
            raise refused("vocabulary", ".h5 files lack the vocabulary of an adapted layer: save as .keras", place)
        copy: Json = {}
        for key, value in (fields.modern(config, kind[1]) if self._legacy else config).items():
            fields.check_key(key, place)
            if kind in _MODELS and key == "layers":
                copy[key] = self._model_layers(value, f"{place}.layers")
            else:
                copy[key] = self._field(value, key, f"{place}.{key}")
        return copy

    def _model_layers(self, layers: object, place: str) -> list[object]:
        if not isinstance(layers, list):
            raise refused("config_field", "not a list", place)
        self._layers += len(layers)
        if self._layers > LAYERS_LIMIT:
            raise refused("config_layers", f"the model has more than {LAYERS_LIMIT} layers", place)
        copies: list[object] = []
        names: set[str] = set()
        for index, layer in enumerate(layers):
            if not isinstance(layer, dict):
                raise refused("config_field", "a layer is not an object", f"{place}[{index}]")
            copy = self.named_class(layer, "layers", f"{place}[{index}]")
            name = _layer_name(copy, f"{place}[{index}]")
            if name in names:
                raise refused("layer_name", f"a second layer is named {shown(name)}", f"{place}[{index}].config.name")
            names.add(name)
            copies.append(copy)
        return copies

    def _around(self, node: Json, place: str) -> Json:
        """The parts of a class beside its own configuration."""
        copy: Json = {}
        if "name" in node:
            copy["name"] = fields.layer_name(node["name"], f"{place}.name")
        if "shared_object_id" in node and not self._legacy:
            copy["shared_object_id"] = self.value(
                node["shared_object_id"], "shared_object_id", f"{place}.shared_object_id"
            )
        if node.get("build_config") is not None:
            copy["build_config"] = literals.shapes(node["build_config"], f"{place}.build_config")
        if "inbound_nodes" in node:
            nodes = node["inbound_nodes"]
            if not isinstance(nodes, list):
                raise refused("config_field", "not a list", f"{place}.inbound_nodes")
            copy["inbound_nodes"] = self.value(nodes, "inbound_nodes", f"{place}.inbound_nodes")
        return copy

    def _activation(self, value: object, key: str, place: str) -> object:
        if value is None or (isinstance(value, str) and value in ACTIVATIONS):
            return value
        if isinstance(value, dict) and any(value.get("class_name") == name for name in ACTIVATION_LAYERS):
            return self._object(value, key, place)
        raise refused("activation", "not one of Keras's own activations", place)

    def _check_registered_name(self, registered: object, class_name: str, place: str) -> None:
        if registered is not None and registered != class_name:
            raise refused(
                "registered_name",
                f"{shown(class_name)} is registered as {shown(registered)}: only Keras's own classes are taken",
                place,
            )

    def _resolve(self, node: Json, class_name: str, key: str, place: str) -> tuple[str, str]:
        module = node.get("module")
        if self._legacy and "module" not in node:
            class_name = fields.LEGACY_CLASSES.get(class_name, class_name)
            module = legacy_module(class_name, key)
        if not isinstance(module, str) or not is_allowed(module, class_name):
            raise refused(
                "class_not_allowed",
                f"{shown(class_name)} of {shown(module)} is not among the classes that are taken",
                place,
            )
        return module, class_name


def _layer_name(layer: Json, place: str) -> str:
    config = layer["config"]
    own = config.get("name") if isinstance(config, dict) else None
    outer = layer.get("name", own)
    if own is not None and own != outer:
        raise refused("layer_name", "a layer has two names", place)
    return fields.layer_name(outer, f"{place}.config.name")
