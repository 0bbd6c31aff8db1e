"""Examples in TensorFlow Serving's messages and in the bodies of `:classify` and `:regress`, and their results."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import grpc

from gateway.errors import RequestTooLarge
from gateway.grpc_services.calls import Reply
from gateway.grpc_services.failures import CallFailed
from gateway.grpc_services.messages import Fields, message
from workers.protocols.example_features import CONTEXT, EXAMPLES
from workers.protocols.signature_names import SIGNATURE_NAME

# About what an example, a feature, or a value takes as JSON.
PART_BYTES = 8

ClassificationResult = message("tensorflow.serving.ClassificationResult")
RegressionResult = message("tensorflow.serving.RegressionResult")


def body_of(given: Fields, signature_name: str, limit_bytes: int) -> bytes:
    """The JSON of an Input; raises CallFailed where it is empty, and RequestTooLarge."""
    kind = given.WhichOneof("kind")
    if kind is None:
        raise CallFailed(grpc.StatusCode.INVALID_ARGUMENT, "Input is empty")
    listed = getattr(given, kind)
    context = [listed.context] if kind == "example_list_with_context" else []
    _require_room([*context, *listed.examples], limit_bytes)
    document: dict[str, object] = {EXAMPLES: [_features(example) for example in listed.examples]}
    if context:
        document[CONTEXT] = _features(listed.context)
    if signature_name:
        document[SIGNATURE_NAME] = signature_name
    return json.dumps(document).encode()


def classification_of(reply: Reply) -> Fields:
    """The ClassificationResult of an answer; an empty one of a job."""
    made: Fields = ClassificationResult()
    for classes in _results(reply):
        row = made.classifications.add()
        for label, score in classes:
            row.classes.add(label=_label(label), score=score)
    return made


def regression_of(reply: Reply) -> Fields:
    """The RegressionResult of an answer; an empty one of a job."""
    made: Fields = RegressionResult()
    for value in _results(reply):
        made.regressions.add(value=value)
    return made


def _require_room(examples: Sequence[Fields], limit_bytes: int) -> None:
    # In a message an example takes two bytes, a feature five and a number one.
    parts = sum(
        1 + sum(1 + len(getattr(feature, feature.WhichOneof("kind") or "bytes_list").value) for feature in features)
        for features in (example.features.feature.values() for example in examples)
    )
    if parts * PART_BYTES > limit_bytes:
        raise RequestTooLarge(f"the examples are larger than {limit_bytes} bytes")


def _features(example: Fields) -> dict[str, object]:
    return {name: _values(feature) for name, feature in example.features.feature.items()}


def _values(feature: Fields) -> list[object]:
    kind = feature.WhichOneof("kind")
    if kind is None:
        return []
    values = list(getattr(feature, kind).value)
    if kind != "bytes_list":
        return values
    return [{"b64": base64.b64encode(value).decode()} for value in values]


def _results(reply: Reply) -> Fields:
    return [] if reply.status == 202 else reply.json()["results"]


def _label(label: Fields) -> str:
    # A text that is no UTF-8 has no place in a message: its base64 is what can be told of it.
    return label if isinstance(label, str) else str(label["b64"])
