"""What a runner can be asked to do: the name of each command and the function that carries it out in the child.

A command is `(held, arguments, tensors) -> (answer, tensors)`: `held` is a dictionary that lives as long as the runner
(a loaded model is kept there), `arguments` and `answer` are JSON objects without NaN. The names are the only way in:
a parent never sends code or the name of a function.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from model_store.signature import Tensors

Command = Callable[[dict[str, Any], dict[str, Any], Tensors], tuple[dict[str, Any], Tensors]]

COMMANDS: dict[str, str] = {
    "load_savedmodel": "workers.runner.savedmodel:load",
    "predict_savedmodel": "workers.runner.savedmodel:predict",
    "preparation_rebuild_keras": "workers.preparation.canonical:rebuild_keras",
    "preparation_read_config": "workers.preparation.canonical:read_config",
    "preparation_rebuild_h5": "workers.preparation.canonical:rebuild_h5",
    "preparation_rebuild_onnx": "workers.preparation.onnx_gate:rebuild_onnx",
    "preparation_load": "workers.preparation.loading:load",
    "preparation_predict": "workers.preparation.loading:predict",
    "preparation_export_savedmodel": "workers.preparation.convert:export_savedmodel",
    "preparation_export_onnx": "workers.preparation.convert:export_onnx",
    "preparation_open_mlflow": "workers.preparation.mlflow_folder:open_mlflow",
    "preparation_open_savedmodel": "workers.preparation.savedmodel_gate:open_savedmodel",
    "preparation_rebuild_savedmodel": "workers.preparation.savedmodel_gate:rebuild_savedmodel",
    "preparation_load_savedmodel": "workers.preparation.savedmodel_loading:load_known",
    "preparation_predict_savedmodel": "workers.preparation.savedmodel_loading:predict_known",
    "preparation_convert_savedmodel": "workers.preparation.savedmodel_loading:convert_known",
    "preparation_load_torchscript": "workers.preparation.torchscript_loading:load",
    "preparation_predict_torchscript": "workers.preparation.torchscript_loading:predict",
    "preparation_convert_torchscript": "workers.preparation.torchscript_loading:convert",
    "decoding_open_parquet": "workers.decoding.parquet:open_file",
    "decoding_read_parquet": "workers.decoding.parquet:read_rows",
    "decoding_open_images": "workers.decoding.images:open_file",
    "decoding_read_images": "workers.decoding.images:read_rows",
    "decoding_open_recordings": "workers.decoding.archived:open_recordings",
    "decoding_read_recordings": "workers.decoding.archived:read_rows",
    "decoding_open_texts": "workers.decoding.archived:open_texts",
    "decoding_read_texts": "workers.decoding.archived:read_rows",
    "decoding_read_files": "workers.decoding.given:read_files",
    "variant_halve": "workers.preparation.onnx_variants:halve",
    "variant_quantise": "workers.preparation.onnx_variants:quantise",
    "variant_prune": "workers.preparation.onnx_variants:prune",
    "variant_litert": "workers.preparation.litert:convert",
    "trial_start_litert": "workers.preparation.litert:start",
    "trial_load_litert": "workers.preparation.litert:load",
    "trial_predict_litert": "workers.preparation.litert:predict",
    "trial_time_litert": "workers.preparation.litert:time",
    "trial_start_onnx": "workers.preparation.trial:start_onnx",
    "trial_load_onnx": "workers.preparation.trial:load_onnx",
    "trial_predict_onnx": "workers.preparation.trial:predict_onnx",
    "trial_time_onnx": "workers.preparation.trial:time_onnx",
    "trial_load_plain": "workers.preparation.trial:load_plain",
    "trial_predict_plain": "workers.preparation.trial:predict_plain",
}


def find(commands: Mapping[str, str], name: str) -> Command:
    """The function behind a name, its module imported only now; KeyError for a name that is not listed."""
    module, _, function = commands[name].partition(":")
    found: Command = getattr(importlib.import_module(module), function)
    return found
