"""Values in a configuration that stand for Python objects without being classes: tensors, slices, bytes, shapes."""

from __future__ import annotations

from collections.abc import Callable

from workers.preparation import fields
from workers.preparation.findings import refused

ITEMS_LIMIT = 100_000
RANK_LIMIT = 32
DTYPES = frozenset({"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})
DTYPES |= {"float16", "bfloat16", "float32", "float64", "complex64", "complex128"}

Json = dict[str, object]


def check_length(items: list[object], place: str) -> None:
    """Refuses a list that is too long for a literal; vocabularies are not literals."""
    if len(items) > ITEMS_LIMIT:
        raise refused("literal_size", f"a list of more than {ITEMS_LIMIT} values", place)


def shapes(value: object, place: str) -> object:
    """A copy of a `build_config`: shapes by name, also nested; no classes."""
    if isinstance(value, dict):
        if "class_name" in value:
            raise refused("config_field", "a class where only shapes may stand", place)
        return {fields.check_key(key, place): shapes(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        check_length(value, place)
        return [shapes(item, place) for item in value]
    fields.check(value, "shape", place)
    return value


def slice_bounds(node: Json, place: str) -> Json:
    """A slice whose bounds are integers, or tensors of the graph."""
    bounds = _config(node, {"start", "stop", "step"}, place)
    return _literal(node, {name: _bound(bound, f"{place}.{name}") for name, bound in bounds.items()})


def _bound(bound: object, place: str) -> object:
    if bound is None or type(bound) is int:
        return bound
    if isinstance(bound, dict) and bound.get("class_name") == "__keras_tensor__":
        return _graph_tensor(bound, place)
    raise refused("literal", "not a bound of a slice", place)


def _graph_tensor(node: Json, place: str) -> Json:
    config = _config(node, {"shape", "dtype", "keras_history"}, place)
    shape, history = config["shape"], config["keras_history"]
    if not (isinstance(shape, list) and len(shape) <= RANK_LIMIT and all(_is_dimension(size) for size in shape)):
        raise refused("literal", "not a tensor's shape", place)
    if not _is_dtype(config["dtype"]) and config["dtype"] != "string":
        raise refused("literal", "not a tensor's dtype", place)
    if not (isinstance(history, list) and len(history) == 3 and all(type(item) is int for item in history[1:])):
        raise refused("literal", "not a tensor's history", place)
    fields.layer_name(history[0], place)
    return _literal(node, {"shape": list(shape), "dtype": config["dtype"], "keras_history": list(history)})


def _constant(node: Json, place: str) -> Json:
    """An array of numbers with its dtype."""
    config = _config(node, {"value", "dtype"}, place)
    if not _is_dtype(config["dtype"]):
        raise refused("literal", "an array has an unknown dtype", place)
    if _count_numbers(config["value"], place) > ITEMS_LIMIT:
        raise refused("literal_size", f"an array of more than {ITEMS_LIMIT} numbers", place)
    return _literal(node, {"value": config["value"], "dtype": config["dtype"]})


def _bytes(node: Json, place: str) -> Json:
    config = _config(node, {"value"}, place)
    if not isinstance(config["value"], str) or len(config["value"]) > fields.STRING_LIMIT:
        raise refused("literal", "not a short byte string", place)
    fields.text(config["value"], place)
    return _literal(node, {"value": config["value"]})


def _ellipsis(node: Json, place: str) -> Json:
    return _literal(node, _config(node, set(), place))


def _config(node: Json, keys: set[str], place: str) -> Json:
    config = node.get("config")
    if node.keys() != {"class_name", "config"} or not isinstance(config, dict) or config.keys() != keys:
        raise refused("literal", "not written as Keras writes it", place)
    return config


def _literal(node: Json, config: Json) -> Json:
    return {"class_name": node["class_name"], "config": config}


def _is_dtype(name: object) -> bool:
    return isinstance(name, str) and name in DTYPES


def _is_dimension(size: object) -> bool:
    return size is None or (type(size) is int and 0 <= size <= fields.SHAPE_LIMIT)


def _count_numbers(value: object, place: str) -> int:
    if isinstance(value, list):
        return sum(_count_numbers(item, place) for item in value)
    if type(value) not in (bool, int, float):
        raise refused("literal", "an array holds something else than numbers", place)
    return 1


READERS: dict[str, Callable[[Json, str], Json]] = {
    "__keras_tensor__": _graph_tensor,
    "__tensor__": _constant,
    "__numpy__": _constant,
    "__bytes__": _bytes,
    "__ellipsis__": _ellipsis,
}
