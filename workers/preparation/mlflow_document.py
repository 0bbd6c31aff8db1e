"""The file `MLmodel` of an MLflow model folder: YAML read under limits, and what of it says how to read the model.

YAML is more than the document needs: aliases repeat a part any number of times, tags name types to be made. Neither is
taken, and what is read is bounded in size, depth and number before any of it becomes a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_store.parameters import ParametersUnreadable, read_parameters
from workers.preparation.findings import refused, shown

# Signatures and examples of many columns; nothing larger says how to load a model.
SIZE_LIMIT_BYTES = 256 * 1024
EVENTS_LIMIT = 20_000
DEPTH_LIMIT = 20
# Those that are read, the one that says most first.
FLAVORS = ("keras", "tensorflow", "onnx")
# What these flavors name themselves as the way to load them in Python: nothing of the uploader's own.
LOADERS = frozenset(f"mlflow.{flavor}" for flavor in FLAVORS)
# Of the flavor python_function: each is a pickle, or code, that a Python server would run.
PROGRAMS = ("python_model", "cloudpickle_version", "code", "model_code_path", "artifacts", "streamable_model")

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """What an MLmodel file says; `inputs`, `outputs` and `params` are its signature's, as MLflow writes them, if any.

    `example` names the file of the input example and `example_kind` its form; `serving_example` that of the same as a
    request to MLflow's scoring server.
    """

    flavor: str
    terms: Table
    inputs: list[Table] | None
    outputs: list[Table] | None
    params: list[Table] | None
    example: str | None
    example_kind: str
    serving_example: str | None
    mlflow_version: str
    run_id: str | None


def read(data: bytes) -> Document:
    """Raises UploadRefused: mlflow_document, mlflow_flavor, and mlflow_code where a program belongs to the model."""
    if len(data) > SIZE_LIMIT_BYTES:
        raise refused("mlflow_document", f"MLmodel is larger than {SIZE_LIMIT_BYTES:,} bytes")
    document = _table(_parsed(data), "MLmodel")
    flavors = _table(document.get("flavors"), "flavors")
    flavor = next((name for name in FLAVORS if name in flavors), None)
    _require_no_program(flavors)
    if flavor is None:
        named = ", ".join(sorted(shown(name) for name in flavors)[:8])
        raise refused("mlflow_flavor", f"the flavors are {named or 'none'}; one of {', '.join(FLAVORS)} is needed")
    signature = _table(document.get("signature") or {}, "signature")
    example = _table(document.get("saved_input_example_info") or {}, "saved_input_example_info")
    return Document(
        flavor,
        _table(flavors[flavor], flavor),
        _columns(signature.get("inputs"), "inputs"),
        _columns(signature.get("outputs"), "outputs"),
        _params(signature.get("params")),
        _text(example.get("artifact_path")),
        _text(example.get("type")) or "",
        _text(example.get("serving_input_path")),
        _text(document.get("mlflow_version")) or "",
        _text(document.get("run_id")),
    )


def _parsed(data: bytes) -> object:
    # Here, so that only a preparation that reads one pays for it.
    import yaml

    try:
        depth = 0
        for count, event in enumerate(yaml.parse(data, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise refused("mlflow_document", "MLmodel has an alias, which may repeat a part without end")
            if getattr(event, "tag", None) not in (None, "!"):
                raise refused("mlflow_document", "MLmodel has a tag, which names a type to be made")
            if count > EVENTS_LIMIT or depth > DEPTH_LIMIT:
                raise refused("mlflow_document", "MLmodel has more parts, or deeper ones, than are read")
        # The loader that makes plain values only.
        return yaml.load(data, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, UnicodeDecodeError) as error:
        raise refused("mlflow_document", "MLmodel is not the YAML that MLflow writes") from error


def _require_no_program(flavors: Table) -> None:
    for name, terms in flavors.items():
        if not isinstance(terms, dict):
            continue
        found = [key for key in PROGRAMS if terms.get(key)]
        if found:
            raise refused(
                "mlflow_code",
                f"the flavor {shown(name)} names {', '.join(found)}: code or pickles that would run when the model is"
                " loaded are not taken; log the model by its own flavor, without custom code",
            )
        loader = terms.get("loader_module")
        if loader is not None and loader not in LOADERS:
            raise refused("mlflow_code", f"the loader {shown(loader)} is code of its own, which is not taken")


def _columns(text: object, what: str) -> list[Table] | None:
    if text is None:
        return None
    try:
        columns = json.loads(text, parse_constant=_no_number) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        columns = None
    if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
        raise refused("mlflow_document", f"the signature's {what} are not the JSON that MLflow writes")
    return columns


def _params(text: object) -> list[Table] | None:
    rows = _columns(text, "params")
    try:
        read_parameters(rows or [])
    except ParametersUnreadable as error:
        raise refused("mlflow_document", f"the signature's params: {error}") from error
    return rows


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON's")


def _table(value: object, what: str) -> Table:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise refused("mlflow_document", f"{what} is no table of names and values")
    return value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
