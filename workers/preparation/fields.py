"""Fields of a configuration: what a value under a certain name may be, wherever in the model it stands."""

from __future__ import annotations

import re
from collections.abc import Callable

from workers.preparation.findings import refused, shown

# Keras allocates what a field asks for before it looks at the weights: 100 million units with a tiny file took 5.4 GiB.
SIZE_LIMIT = 1_000_000
VOCABULARY_LIMIT = 50_000_000
SHAPE_LIMIT = 2**31 - 1
STRING_LIMIT = 1024
ITEM_LIMIT = 64 * 1024

LAYER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# "..." is the ellipsis of an equation ("...x,xy->...y") and leads nowhere; ".." alone is the folder above.
_PATH = re.compile(r"[/\\\x00]|(?<!\.)\.\.(?!\.)|^~")
# Keras writes the weights' blocks into the name of the policy.
_QUANTISED = re.compile(r"int4/-?[0-9]{1,6}(?:_from_[a-z0-9_]{1,32})?")

# Counts, which Keras multiplies into shapes; a float, a string or a negative one fails late and oddly.
_COUNTS = frozenset({"units", "filters", "output_dim", "num_heads", "key_dim", "value_dim", "depth_multiplier", "n"})
_COUNTS |= {"head_dim", "num_query_heads", "num_key_value_heads", "input_dim", "num_bins", "max_tokens", "num_tokens"}
_VOCABULARIES = frozenset({"input_dim", "num_bins", "max_tokens", "num_tokens", "vocabulary_size"})
_SHAPES = frozenset({"batch_shape", "batch_input_shape", "input_shape", "build_input_shape", "shape"})
# Not sizes: any integer is as good as another. `inbound_nodes` holds the constants of a graph.
_FREE = frozenset({"seed", "salt", "shared_object_id", "inbound_nodes", "args", "kwargs", "value", "mask_value"})
# Texts of the model's own that name nothing: "</s>" and "<pad/>" are ordinary tokens.
_TOKENS = frozenset({"oov_token", "mask_token"})

# Old names of classes in legacy files.
LEGACY_CLASSES = {"Model": "Functional", "Policy": "DTypePolicy", "BatchNormalizationV1": "BatchNormalization"}
# Arguments of Keras 2 that Keras 3 does not know and that change nothing where they have these values.
_LEGACY_DEFAULTS: dict[str, tuple[object, ...]] = {"time_major": (False,), "implementation": (1, 2)}


def check(value: object, key: str, place: str) -> None:
    """Raises UploadRefused unless the number, string, boolean or null may stand in the field `key`."""
    if key in _COUNTS and value is not None and (type(value) is not int or value < 1):
        raise refused("config_field", "not a positive integer", place)
    if type(value) is int:
        _check_integer(value, key, place)
    elif isinstance(value, str) and key not in _TOKENS:
        text(value, place)


def check_key(key: str, place: str) -> str:
    """The key of an object, if it is a plain name."""
    if not LAYER_NAME.fullmatch(key):
        raise refused("config_key", f"{shown(key)} is no plain name", place)
    return key


def text(value: str, place: str) -> str:
    """A string that names neither a file nor an address and is short."""
    if len(value) > STRING_LIMIT:
        raise refused("config_string", f"longer than {STRING_LIMIT} characters", place)
    if _PATH.search(value) and not _QUANTISED.fullmatch(value):
        raise refused("path_string", "looks like a path or an address", place)
    return value


def layer_name(value: object, place: str) -> str:
    """A layer's name: it becomes part of names in TensorFlow's graph and of paths in files of weights."""
    if not isinstance(value, str) or not LAYER_NAME.fullmatch(value) or ".." in value:
        raise refused("layer_name", "a layer's name has 1 to 128 letters, digits, '_', '.' and '-'", place)
    return value


def modern(config: dict[str, object], class_name: str) -> dict[str, object]:
    """A legacy class's configuration with the names of today, as keras/src/legacy/saving/saving_utils.py has them."""
    copy = {key: value for key, value in config.items() if value not in _LEGACY_DEFAULTS.get(key, ())}
    batch_shape = copy.pop("batch_input_shape", None)
    if batch_shape is not None and class_name == "InputLayer":
        copy["batch_shape"] = batch_shape
    axis = copy.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        copy["axis"] = axis[0]
    return copy


def _check_integer(value: int, key: str, place: str) -> None:
    if key in _FREE:
        return
    limit = SHAPE_LIMIT if key in _SHAPES else VOCABULARY_LIMIT if key in _VOCABULARIES else SIZE_LIMIT
    if abs(value) > limit:
        raise refused("size_field", f"{value} is beyond {limit}", place)


def _vocabulary(value: object, place: str) -> object:
    # A string would be a path that Keras opens, on this machine or any other.
    if value is None:
        return None
    if not isinstance(value, list):
        raise refused("vocabulary", "a vocabulary is a list of its terms, not a file", place)
    for term in value:
        if type(term) is not int and not (isinstance(term, str) and len(term) <= ITEM_LIMIT):
            raise refused(
                "vocabulary", f"a term is neither an integer nor a string of up to {ITEM_LIMIT} characters", place
            )
    return list(value)


def _weights_of_terms(value: object, place: str) -> object:
    if value is not None and not (isinstance(value, list) and all(type(item) in (int, float) for item in value)):
        raise refused("vocabulary", "weights of terms are a list of numbers", place)
    return value


def _one_of(*known: str) -> Callable[[object, str], object]:
    def check_option(value: object, place: str) -> object:
        if value is not None and value not in known:
            raise refused("text_option", f"only {', '.join(known)} are taken", place)
        return value

    return check_option


def _optional_name(value: object, place: str) -> object:
    return value if value is None else layer_name(value, place)


# Fields that are checked as a whole, whatever they hold.
WHOLE: dict[str, Callable[[object, str], object]] = {
    "name": _optional_name,
    "vocabulary": _vocabulary,
    "idf_weights": _weights_of_terms,
    "standardize": _one_of("lower_and_strip_punctuation", "lower", "strip_punctuation"),
    "split": _one_of("whitespace", "character"),
}
