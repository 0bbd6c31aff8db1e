"""Answers of `:classify` and `:regress`: which of a version's outputs they tell, and how they are written.

Source: tensorflow_serving/servables/tensorflow/classifier.cc and regressor.cc for the names and shapes of outputs;
MakeJsonFromClassificationResult and MakeJsonFromRegressionResult of util/json_tensor.cc for the bodies, whose key is
`results` (the documentation says `result`).
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec
from workers.errors import PredictionFailed
from workers.protocols.tensor_text import string_values
from workers.protocols.top_classes import score_texts

CLASSES, SCORES, VALUES = "classes", "scores", "outputs"


@dataclass(frozen=True, slots=True)
class ClassOutputs:
    """The names of the outputs that hold each class's label and its score; at least one is there."""

    labels: str | None
    scores: str | None


def class_outputs(signature: Signature) -> ClassOutputs | None:
    """What `:classify` tells: outputs `classes` and `scores`, else the only output; None where nothing fits.

    Labels are texts and scores numbers, each a vector for each instance.
    """
    named = {spec.name: spec for spec in signature.outputs}
    labels, scores = named.get(CLASSES), named.get(SCORES)
    labels = labels if labels is not None and _is_vector(labels) and labels.dtype == STRING else None
    scores = scores if scores is not None and _is_vector(scores) and _is_number(scores) else None
    if labels is None and scores is None:
        only = signature.outputs[0]
        if len(signature.outputs) != 1 or not (_is_vector(only) and _is_number(only)):
            return None
        scores = only
    return ClassOutputs(None if labels is None else labels.name, None if scores is None else scores.name)


def value_output(signature: Signature) -> str | None:
    """The output that `:regress` tells: `outputs`, else the only one; None where it is not one number an instance."""
    named = {spec.name: spec for spec in signature.outputs}
    found = named.get(VALUES, signature.outputs[0] if len(signature.outputs) == 1 else None)
    if found is None or not _is_number(found) or found.shape[:1] != (None,) or found.shape[1:] not in {(), (1,)}:
        return None
    return found.name


def classes_text(outputs: Tensors, told: ClassOutputs, class_names: tuple[str, ...]) -> bytes:
    """`{"results": …}`: for each instance a list of all its classes, in their order, as label and score.

    Without labels among the outputs they are the version's class names, or empty; without scores, scores are 0.
    """
    found = outputs[told.scores or told.labels or ""]
    if told.labels is not None and outputs[told.labels].shape != found.shape:
        raise PredictionFailed("the model answered with another number of classes than of scores")
    count, width = found.shape
    labels = _labels(None if told.labels is None else outputs[told.labels], (count, width), class_names)
    scores = [b"0.0"] * found.size if told.scores is None else _texts(found)
    pairs = [b"[%s,%s]" % pair for pair in zip(labels, scores, strict=True)]
    rows = [b"[" + b",".join(pairs[row * width : (row + 1) * width]) + b"]" for row in range(count)]
    return _results(rows)


def values_text(values: Tensor) -> bytes:
    """`{"results": …}`: one number for each instance."""
    return _results(_texts(values))


def _labels(labels: Tensor | None, shape: tuple[int, int], class_names: tuple[str, ...]) -> list[bytes]:
    count, width = shape
    if labels is not None:
        texts = string_values(labels.reshape(-1).tolist(), as_base64=False)
        assert isinstance(texts, list)  # noqa: S101 - for the type checker: a list was given
        return [orjson.dumps(text) for text in texts]
    names = class_names if len(class_names) == width else ("",) * width
    return [orjson.dumps(name) for name in names] * count


def _texts(numbers: Tensor) -> list[bytes]:
    return score_texts(numbers) if numbers.size else []


def _results(members: list[bytes]) -> bytes:
    return b'{"results":[' + b",".join(members) + b"]}"


def _is_vector(spec: TensorSpec) -> bool:
    return len(spec.shape) == 2 and spec.batched


def _is_number(spec: TensorSpec) -> bool:
    return spec.dtype not in {STRING, "bool"}
