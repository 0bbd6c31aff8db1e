"""Explanations: which parts of an instance its score is owed to (KServe's verb `:explain`).

A request is one of TensorFlow Serving's in rows or columns, with options beside it. What runs are the instances and
their copies with a part taken away, as one request of so many instances: the queue and the workers know nothing of it.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec
from workers.errors import PredictionFailed
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.errors import invalid, shown_name
from workers.protocols.explain_options import ExplainOptions, number_of, read_options, size_of
from workers.protocols.json_text import parse_json
from workers.protocols.occlusion import Falls, Parts, Patches, parts_of, require_one_input
from workers.protocols.overlay import overlay
from workers.protocols.tensor_text import tensor_text
from workers.protocols.tensorflow_serving import format_predict, parse_document
from workers.protocols.top_classes import name_of

# What all copies of a request may take in memory, and what the model may answer them.
MOST_BYTES = 128 * 1024**2
# Of all attributions of an answer, each a number of up to 20 characters.
MOST_VALUES = 1_000_000


@dataclass(frozen=True, slots=True)
class Explained:
    """One input that is explained, and its parts."""

    spec: TensorSpec
    parts: Parts


# Without slots: the copies are made once.
@dataclass(frozen=True)
class ExplainRequest:
    """A request for explanations; `unchanged` are its own instances, `own` of them, which copies follow one by one.

    `starts` says where each instance begins among all that run: itself, then its copies, input by input.
    """

    unchanged: Tensors
    own: int
    row_form: bool
    options: ExplainOptions
    explained: tuple[Explained, ...]
    starts: tuple[int, ...]
    instances: int

    @functools.cached_property
    def tensors(self) -> Tensors:
        """The instances with all copies, made when they are asked for: who only checks a request needs none."""
        counts = np.diff((*self.starts, self.instances))
        found = {name: np.repeat(tensor, counts, axis=0) for name, tensor in self.unchanged.items()}
        for instance, start in enumerate(self.starts):
            at = start + 1
            for one in self.explained:
                count = one.parts.count(instance)
                one.parts.take_away(found[one.spec.name][at : at + count], instance)
                at += count
        return found

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        """The predictions of the instances themselves, and the explanation of each."""
        unchanged = {name: tensor[list(self.starts)] for name, tensor in outputs.items()}
        predictions = format_predict(unchanged, contract.signature, self.row_form)
        scores = outputs[self.options.output.name].reshape(self.instances, -1)
        if not scores.size:
            raise PredictionFailed(f"output '{shown_name(self.options.output.name)}' has no values to be explained")
        parts = np.split(scores, self.starts[1:])
        listed = [self._explanation(number, own, contract) for number, own in enumerate(parts)]
        return Body(b'%s,"explanations":%s}' % (predictions[:-1], orjson.dumps(listed)), Dialect.EXPLAIN)

    def _explanation(self, number: int, scores: Tensor, contract: Contract) -> dict[str, object]:
        """Of one instance, whose `scores` come first, those of its copies next."""
        target = _target(scores[0], self.options, contract.class_names)
        column: Falls = scores[:, target].astype(np.float64)
        found: dict[str, object] = {
            "method": self.options.method,
            "output": self.options.output.name,
            "class": target,
        }
        name = name_of(target, contract.class_names, scores.shape[1])
        found |= {} if name is None else {"class_name": name}
        found |= {"score": _numbers(column[0, ...]), "attributions": {}}
        at = 1
        for one in self.explained:
            count = one.parts.count(number)
            # Infinity less infinity is NaN, and is told so.
            with np.errstate(invalid="ignore"):
                falls = column[0] - column[at : at + count]
            at += count
            _add(found, one, number, falls, self.unchanged[one.spec.name][number], self.options)
        return found


def _add(
    found: dict[str, object], one: Explained, number: int, falls: Falls, value: Tensor, options: ExplainOptions
) -> None:
    """Adds what is told of one input to an explanation."""
    told: dict[str, object] = {one.spec.name: _numbers(one.parts.attributions(number, falls))}
    found["attributions"] = _members(found, "attributions") | told
    words = one.parts.words(number)
    if words is not None:
        found["words"] = _members(found, "words") | {one.spec.name: words}
    drawn = overlay(value, one.parts.heat(falls)) if options.overlay and isinstance(one.parts, Patches) else None
    if drawn is not None:
        found["overlays"] = _members(found, "overlays") | {one.spec.name: {"b64": base64.b64encode(drawn).decode()}}


def _numbers(values: Falls) -> orjson.Fragment:
    """Numbers as JSON. Scores may be NaN, and so may what follows: bare tokens, as everywhere in this dialect.

    Of a million, Python's own writer would keep every other thread waiting for half a second.
    """
    return orjson.Fragment(tensor_text(values, as_base64=False))


def _members(found: dict[str, object], key: str) -> dict[str, object]:
    known = found.get(key)
    return known if isinstance(known, dict) else {}


def _target(scores: Tensor, options: ExplainOptions, class_names: tuple[str, ...]) -> int:
    """The class that is explained: what was asked for, else the best; raises InputInvalid."""
    if options.target is None:
        return int(np.argmax(np.nan_to_num(scores.astype(np.float64), nan=-np.inf)))
    if isinstance(options.target, str):
        return number_of(options.target, class_names, len(scores))
    if options.target >= len(scores):
        raise invalid(f"explain.class is {options.target}, but the model gave {len(scores)} values")
    return options.target


def parse(body: Body, contract: Contract) -> ExplainRequest:
    """The request in a body of a caller of one version; raises InputInvalid."""
    signature = contract.signature
    if not signature.batched:
        raise invalid("explain: the model takes no several instances at once, of which explanations are made")
    document = parse_json(body.data)
    predict = parse_document(document, signature, contract.max_instances, contract)
    options = read_options(document, signature, contract.class_names)
    explained = _explained(predict.tensors, signature, options)
    starts, total = [], 0
    for number in range(predict.instances):
        starts.append(total)
        total += 1 + sum(one.parts.count(number) for one in explained)
    _require_few(predict.instances, total, contract)
    _require_room(predict.tensors, explained, np.diff((*starts, total)))
    _require_room_for_answers(signature, total)
    _require_short_answer([predict.tensors[one.spec.name] for one in explained])
    return ExplainRequest(
        predict.tensors, predict.instances, predict.row_form, options, explained, tuple(starts), total
    )


def _explained(tensors: Tensors, signature: Signature, options: ExplainOptions) -> tuple[Explained, ...]:
    specs = signature.inputs if options.input is None else (options.input,)
    if options.patch is not None:
        require_one_input(options.patch, specs)
    require_one_input(options.baseline, specs)
    return tuple(Explained(spec, parts_of(spec, tensors[spec.name], options)) for spec in specs)


def _require_few(own: int, total: int, contract: Contract) -> None:
    if total > contract.max_instances:
        raise invalid(
            f"explain: {own} instances with a copy for each of their parts are {total}, but this version takes at most "
            f"{contract.max_instances} in one request; ask for fewer instances, a larger explain.patch, or one input"
        )


def _require_room(tensors: Tensors, explained: Sequence[Explained], counts: npt.NDArray[np.int64]) -> None:
    """Each instance counts as often as it runs: of texts the longest has the most words, and so the most copies."""
    own = len(counts)
    size = sum(int(np.dot(_bytes(tensor, own), counts)) for tensor in tensors.values())
    size += sum(one.parts.put_bytes(number) for one in explained for number in range(own))
    if size > MOST_BYTES:
        raise invalid(
            f"explain: the copies of {own} instances would take {size} bytes, of {MOST_BYTES} that they may; ask for "
            "fewer instances, a larger explain.patch, or a smaller image"
        )


def _require_room_for_answers(signature: Signature, total: int) -> None:
    """Of a model that answers an image with images, the answers of all copies are more than the copies."""
    size = sum(
        (size_of(spec.shape[1:]) or 0) * np.dtype(spec.dtype).itemsize
        for spec in signature.outputs
        if spec.dtype != STRING
    )
    if size * total > MOST_BYTES:
        raise invalid(
            f"explain: the model's answers to {total} instances and copies would take {size * total} bytes, of "
            f"{MOST_BYTES} that they may; ask for fewer instances, or a larger explain.patch"
        )


def _require_short_answer(tensors: Sequence[Tensor]) -> None:
    values = sum(tensor.size for tensor in tensors)
    if values > MOST_VALUES:
        raise invalid(
            f"explain: {values} attributions would be told, of {MOST_VALUES}; ask for fewer instances at once"
        )


def _bytes(tensor: Tensor, own: int) -> npt.NDArray[np.int64]:
    """How many bytes each of an input's `own` instances takes."""
    found = np.full(own, tensor.nbytes // own)
    if tensor.dtype == object:
        found += [sum(map(len, instance)) for instance in tensor.reshape(own, -1).tolist()]
    return found
