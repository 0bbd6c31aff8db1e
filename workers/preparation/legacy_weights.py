"""Weights of a legacy `.h5` file, given to a model layer by layer in their order; runs in a runner only.

The format is that of keras/src/legacy/saving/legacy_h5_format.py: `model_weights` lists its layers in the attribute
`layer_names`, each layer's group lists its datasets in `weight_names`; long lists are cut into `layer_names0`, … .
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import h5py
import numpy as np

from model_store.signature import Tensor
from workers.preparation.findings import refused, shown

if TYPE_CHECKING:
    import keras

GROUP = "model_weights"
_TOP_LEVEL = "top_level_model_weights"
_NAMES_LIMIT = 50_000


def assign(model: keras.Model, file: h5py.File, groups: set[str], datasets: set[str]) -> None:
    """Assigns all weights of a checked file, of which `groups` and `datasets` are the paths.

    Raises UploadRefused: weights_mismatch, h5_attr, h5_link.
    """
    weights = _Weights(file, groups, datasets)
    layers = [layer for layer in model.layers if _variables(layer)]
    names = [name for name in weights.names(GROUP, "layer_names") if weights.of_layer(name)]
    if len(layers) != len(names):
        raise refused("weights_mismatch", f"{len(layers)} layers of the model have weights, {len(names)} of the file")
    for layer, name in zip(layers, names, strict=True):
        _assign(_variables(layer), weights, name)
        # Normalization derives constants from its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    if weights.of_layer(_TOP_LEVEL):
        # Only a class of one's own has weights beside those of its layers.
        raise refused("weights_mismatch", "the file has weights of the model itself", _TOP_LEVEL)


class _Weights:
    """The lists of names in a checked file; only what the check listed is ever opened."""

    def __init__(self, file: h5py.File, groups: set[str], datasets: set[str]) -> None:
        self._file = file
        self._groups = groups
        self._datasets = datasets

    def of_layer(self, layer: str) -> list[str]:
        """Paths of the layer's datasets, in the order of its weights."""
        place = f"{GROUP}/{layer}"
        return [f"{place}/{name}" for name in self.names(place, "weight_names")] if place in self._groups else []

    def names(self, place: str, attribute: str) -> list[str]:
        attributes = self._file[place].attrs
        if attribute in attributes:
            return _texts(attributes[attribute], place)
        names: list[str] = []
        for index in itertools.count():
            part = f"{attribute}{index}"
            if part not in attributes:
                break
            names += _texts(attributes[part], place)
        return names

    def read(self, path: str) -> Tensor:
        if path not in self._datasets:
            raise refused("weights_mismatch", "the file names a dataset that it does not hold", path)
        return np.asarray(self._file[path])


def _texts(values: object, place: str) -> list[str]:
    names = np.asarray(values).reshape(-1).tolist()
    if len(names) > _NAMES_LIMIT:
        raise refused("h5_attr", "too many names", place)
    texts = [name.decode("utf-8", errors="replace") if isinstance(name, bytes) else name for name in names]
    if not all(isinstance(text, str) for text in texts):
        raise refused("h5_attr", "a list of names that are not texts", place)
    return texts


def _variables(layer: keras.Layer) -> list[keras.Variable]:
    """The layer's variables in the order of the format: trainable ones first."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _assign(variables: list[keras.Variable], weights: _Weights, layer: str) -> None:
    paths = weights.of_layer(layer)
    if len(variables) != len(paths):
        raise refused(
            "weights_mismatch", f"{len(variables)} weights in the model, {len(paths)} in the file", shown(layer)
        )
    for variable, path in zip(variables, paths, strict=True):
        value = weights.read(path)
        if tuple(variable.shape) != value.shape:
            raise refused("weights_mismatch", f"shape {value.shape} where the model has {tuple(variable.shape)}", path)
        variable.assign(value)
