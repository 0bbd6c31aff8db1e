"""The best classes of each instance in place of all its scores, where a caller asks for them.

TensorFlow Serving's dialect has no such thing: there it is the member `top_k` beside `instances`. In the Open Inference
Protocol it is the parameter `classification` of a requested output, as Triton's server defines it
(docs/protocol/extension_classification.md).
"""

from __future__ import annotations

import numpy as np
import orjson

from model_store.signature import STRING, Tensor, Tensors, TensorSpec
from workers.protocols.errors import excerpt, invalid, shown_name
from workers.protocols.tensor_text import tensor_text

Ranking = tuple[tuple[str, int], ...]
"""Names of outputs, each with how many classes are asked for."""


def asked_count(value: object, place: str) -> int:
    """How many classes a request asks for; raises InputInvalid."""
    if type(value) is not int or value < 1:
        raise invalid(f"{place} must be a number of classes, 1 or more, not {excerpt(value)}")
    return value


def require_scores(spec: TensorSpec, place: str) -> None:
    """Raises InputInvalid unless the output is one vector of numbers for each instance."""
    if spec.dtype == STRING or len(spec.shape) != 2:
        shape = ",".join("-1" if size is None else str(size) for size in spec.shape)
        raise invalid(
            f"{place}: classes are told of outputs that are a vector of scores for each instance, but "
            f"'{shown_name(spec.name)}' is {spec.dtype} of shape [{shape}]"
        )


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Numbers of the best classes of each row, at most `count`, the best first, and their scores; both 2-D.

    Of equal scores the lower number comes first; NaN is below every score.
    """
    # What turns the order round: of integers the complement, which cannot overflow as negation does.
    keys: Tensor = np.negative(scores) if scores.dtype.kind == "f" else np.invert(scores)
    numbers = np.argsort(keys, axis=1, kind="stable")[:, :count]
    return numbers, np.take_along_axis(scores, numbers, axis=1)


def name_of(number: int, names: tuple[str, ...], classes: int) -> str | None:
    """What a class is called; names count only where there is one for each class."""
    return names[number] if len(names) == classes else None


def rows_of_classes(scores: Tensor, count: int, names: tuple[str, ...]) -> list[bytes]:
    """For each instance the JSON list of its best classes, as `{"index": 3, "class": "three", "score": 0.9}`."""
    numbers, best_scores = best(scores, count)
    if not numbers.size:
        return [b"[]"] * len(scores)
    members = [
        _member(number, name_of(number, names, scores.shape[1]), text)
        for number, text in zip(numbers.reshape(-1).tolist(), score_texts(best_scores), strict=True)
    ]
    width = numbers.shape[1]
    return [b"[" + b",".join(members[at : at + width]) + b"]" for at in range(0, len(members), width)]


def with_labels(outputs: Tensors, ranking: Ranking, names: tuple[str, ...]) -> Tensors:
    """The outputs, those of `ranking` as strings `score:index` or `score:index:label`, shape (instances, classes)."""
    return outputs | {name: _labels(outputs[name], count, names) for name, count in ranking}


def _labels(scores: Tensor, count: int, names: tuple[str, ...]) -> Tensor:
    numbers, best_scores = best(scores, count)
    found = np.empty(numbers.size, object)
    if not found.size:
        return found.reshape(numbers.shape)
    found[:] = [
        _label(number, name_of(number, names, scores.shape[1]), text)
        for number, text in zip(numbers.reshape(-1).tolist(), score_texts(best_scores), strict=True)
    ]
    return found.reshape(numbers.shape)


def score_texts(scores: Tensor) -> list[bytes]:
    """Each score as JSON writes it; one text of all of them is cut, since numbers hold no commas."""
    # Halves have no text of their own; as floats they are the same numbers.
    plain = scores.astype(np.float32) if scores.dtype == np.float16 else scores
    return tensor_text(plain.reshape(-1), as_base64=False)[1:-1].split(b",")


def _member(number: int, name: str | None, score: bytes) -> bytes:
    named = b"" if name is None else b'"class":%s,' % orjson.dumps(name)
    return b'{"index":%d,%s"score":%s}' % (number, named, score)


def _label(number: int, name: str | None, score: bytes) -> bytes:
    return b"%s:%d" % (score, number) + (b"" if name is None else b":" + name.encode())
