"""The Open Inference Protocol (KServe V2, Triton's REST interface) with Triton's binary tensor data extension.

A request is JSON, or JSON (its head) in front of tensors as bytes, or one tensor as bytes alone. Callers send the same
JSON again and again, and only the numbers differ: what the JSON says is worked out once, and remembered as a plan by
its text. In a request that is all JSON, the plan is remembered by what stands around the only tensor's data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from model_store.signature import STRING, Tensor, Tensors, TensorSpec
from workers.errors import InputInvalid
from workers.protocols.body import TEXT, Body
from workers.protocols.byte_strings import read_strings
from workers.protocols.contract import Contract, Request, by_terms
from workers.protocols.errors import invalid, shown_name
from workers.protocols.file_inputs import places_of, tensor_of_files
from workers.protocols.json_text import parse_json
from workers.protocols.number_buffer import ERRORS, NumberBuffer, parsed
from workers.protocols.number_text import NUMBER_AND_SPACE, REMEMBERED_BYTES, grid_shape
from workers.protocols.open_inference_answer import Asked, Form, form_of, opening_of, write_answer
from workers.protocols.open_inference_head import HALF, Described, Head, read_head, takes, tensor_in, terms_of
from workers.protocols.top_classes import with_labels

PLANS = 512
DATA = b'"data"'
SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that fits the signature; `form` and `opening` say how it wants to be answered."""

    tensors: Tensors
    instances: int
    form: Form
    opening: bytes

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        if self.form.ranking:
            outputs = with_labels(outputs, self.form.ranking, contract.class_names)
        return write_answer(self.form, self.opening, outputs)


@dataclass(frozen=True, slots=True)
class Part:
    """Where one input's tensor lies: in `tensor` already, or in `size` bytes from `start` on, counted from the head."""

    spec: TensorSpec
    place: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    start: int
    size: int
    tensor: Tensor | None
    short: bool = False

    def read(self, data: bytes, head: int) -> Tensor:
        """A view of the bytes, perhaps not aligned; strings, booleans and BF16 are copied."""
        if self.tensor is not None:
            return self.tensor
        at = head + self.start
        if self.spec.dtype == STRING:
            view = memoryview(data)[at : at + self.size]
            return read_strings(view, math.prod(self.shape), self.place).reshape(self.shape)
        found: Tensor = np.ndarray(self.shape, self.dtype, data, at)
        if self.short:
            return (found.astype(np.uint32) << 16).view(np.float32)
        # A byte that is neither 0 nor 1 is no boolean that a runtime could take as it is.
        return found.astype(bool) if self.spec.dtype == "bool" else found


@dataclass(frozen=True, slots=True)
class Plan:
    """How to read the requests with one head: parts in the signature's order, and the bytes that follow in all."""

    parts: tuple[Part, ...]
    size: int
    instances: int
    form: Form
    opening: bytes
    files: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class TextPlan:
    """How to read the requests with one text around the only tensor's data, flat or nested."""

    spec: TensorSpec
    shape: tuple[int, ...]
    count: int
    numbers: NumberBuffer
    instances: int
    form: Form
    opening: bytes


def parse(body: Body, contract: Contract) -> Request:
    """The request in a body of a caller of one version; raises InputInvalid."""
    data, head = body.data, body.head
    if head == TEXT:
        return parse_text(data, contract)
    if head > len(data):
        raise invalid(f"Inference-Header-Content-Length is {head}, but the body has {len(data)} bytes")
    if head == 0:
        plan = raw_plan(len(data), contract)
    else:
        plan = (remembered_plan if head <= REMEMBERED_BYTES else plan_of)(data[:head], contract)
    if len(data) - head != plan.size:
        raise invalid(f"{len(data) - head} bytes follow the JSON, but its inputs have {plan.size} bytes of binary data")
    tensors = {part.spec.name: part.read(data, head) for part in plan.parts}
    if plan.files:
        read_files(tensors, plan.files, contract)
    request = InferRequest(tensors, plan.instances, plan.form, plan.opening)
    return of_signature(request, contract) if plan.form.named else request


def of_signature(request: InferRequest, contract: Contract) -> Request:
    """A request to the signature that the form of its answer names."""
    return by_terms(request, contract.further[request.form.named])


def plan_of(text: bytes, contract: Contract) -> Plan:
    """The plan of a head; raises InputInvalid, which is not remembered."""
    document = parse_json(text)
    terms = terms_of(document, contract)
    head = read_head(document, terms, bytes_follow=True)
    parts, start = {}, 0
    for found in head.inputs:
        parts[found.spec.name] = part_of(found, start)
        start += found.size or 0
    ordered = tuple(parts[spec.name] for spec in terms.signature.inputs)
    return Plan(ordered, start, head.instances, head.form, head.opening, files_in(head))


remembered_plan = lru_cache(maxsize=PLANS)(plan_of)


def part_of(found: Described, start: int) -> Part:
    tensor = None
    if found.size is None:
        tensor = tensor_in(found)
        tensor.flags.writeable = False  # it may serve many requests
    # What files become is not remembered: the input specification may change.
    spec = TensorSpec(found.spec.name, STRING, found.shape) if found.as_files else found.spec
    dtype = np.dtype("<u2") if found.short else stored_dtype(spec)
    return Part(spec, found.place, found.shape, dtype, start, found.size or 0, tensor, short=found.short)


def stored_dtype(spec: TensorSpec) -> np.dtype[np.generic]:
    """How elements lie in the bytes: little-endian, a boolean in one byte."""
    return np.dtype(np.uint8) if spec.dtype == "bool" else spec.numpy_dtype().newbyteorder("<")


def raw_plan(size: int, contract: Contract) -> Plan:
    """One instance of the only input as bytes alone, whose free dimension follows from their number."""
    specs = contract.signature.inputs
    if len(specs) != 1:
        raise invalid(f"Raw request must only have 1 input (found 1) to be deduced but got {len(specs)} inputs")
    spec = specs[0]
    sizes = [1 if place == 0 and spec.batched else size for place, size in enumerate(spec.shape)]
    known = math.prod(size for size in sizes if size is not None)
    if spec.dtype == STRING:
        if known != 1 or None in sizes:
            name = shown_name(spec.name)
            raise invalid(f"For BYTE datatype raw input '{name}', the model must have input shape [1]; {takes(spec)}")
    elif sizes.count(None) > 1:
        raise invalid(
            f"The shape of the raw input '{shown_name(spec.name)}' can not be deduced because there are more than one "
            f"variable-sized dimension; {takes(spec)}"
        )
    else:
        width = known * spec.numpy_dtype().itemsize
        free = size // max(width, 1) if None in sizes else 1
        if free < 1 or free * width != size:
            raise invalid(f"{size} bytes do not make up one instance; {takes(spec)}")
        sizes = [free if size is None else size for size in sizes]
    shape = tuple(1 if size is None else size for size in sizes)
    part = Part(spec, "the body", shape, stored_dtype(spec), 0, size, None)
    form = form_of(contract, tuple(Asked(place, binary=True) for place in range(len(contract.signature.outputs))))
    return Plan((part,), size, 1, form, opening_of(None))


def parse_text(text: bytes, contract: Contract) -> Request:
    """A request that is JSON from its first byte to its last."""
    if len(contract.signature.inputs) == 1 and (cut := cut_out(text)) is not None:
        frame, data = cut
        plan = remembered_text_plan(frame, contract)
        values = None if plan is None else read_values(plan, data)
        if plan is not None and values is not None:
            request = InferRequest({plan.spec.name: values}, plan.instances, plan.form, plan.opening)
            return of_signature(request, contract) if plan.form.named else request
    return parse_exactly(text, contract)


def parse_exactly(text: bytes, contract: Contract) -> Request:
    """The same for any JSON, at any speed; what `read_values` accepts gives the same tensor here."""
    document = parse_json(text)
    terms = terms_of(document, contract)
    head = read_head(document, terms, bytes_follow=False)
    found = {described.spec.name: tensor_in(described) for described in head.inputs}
    tensors = {spec.name: found[spec.name] for spec in terms.signature.inputs}
    read_files(tensors, files_in(head), contract)
    request = InferRequest(tensors, head.instances, head.form, head.opening)
    return of_signature(request, contract) if head.form.named else request


def files_in(head: Head) -> tuple[TensorSpec, ...]:
    """The inputs whose instances came as files."""
    return tuple(found.spec for found in head.inputs if found.as_files)


def read_files(tensors: Tensors, specs: Sequence[TensorSpec], contract: Contract) -> None:
    """Puts the numbers of these inputs in the place of the files that they came as; raises InputInvalid."""
    for spec in specs:
        files = tensors[spec.name].reshape(-1).tolist()
        tensors[spec.name] = tensor_of_files(contract, spec, files, places_of(spec))


def cut_out(text: bytes) -> tuple[bytes, bytes] | None:
    """What stands around the first `data`, with a 0 in its place, and the lists of numbers that it is.

    None where it is none, where the text has another `data`, or a backslash that could hide one.
    """
    key = text.find(DATA)
    start = text.find(b"[", key)
    if key < 0 or start < 0 or text[key + len(DATA) : start].strip(SPACE) != b":":
        return None
    # Lists of numbers hold neither a quote nor a brace: the first one is behind them.
    quote, brace = text.find(b'"', start), text.find(b"}", start)
    end = text.rfind(b"]", start, brace if quote < 0 or brace < quote else quote) + 1
    frame = b"%s0%s" % (text[:start], text[end:])
    if len(frame) > REMEMBERED_BYTES or frame.count(DATA) != 1 or b"\\" in frame:
        return None
    return frame, text[start:end]


@lru_cache(maxsize=PLANS)
def remembered_text_plan(frame: bytes, contract: Contract) -> TextPlan | None:
    """The plan of a frame; None where the exact way must look at the whole, which words refusals better."""
    try:
        document = parse_json(frame)
        head: Head = read_head(document, terms_of(document, contract), bytes_follow=False)
    except InputInvalid:
        return None
    found = head.inputs[0]
    numbers = NumberBuffer.of(found.spec.numpy_dtype())
    if numbers is None or found.spec.dtype == HALF or found.as_files:
        return None
    return TextPlan(found.spec, found.shape, found.count, numbers, head.instances, head.form, head.opening)


remembered_grid = lru_cache(maxsize=256)(grid_shape)


def read_values(plan: TextPlan, data: bytes) -> Tensor | None:
    """The numbers of lists of the planned structure, if they are valid JSON and fit the dtype."""
    structure = data.translate(None, NUMBER_AND_SPACE)
    sight = remembered_grid if len(structure) <= REMEMBERED_BYTES else grid_shape
    nested = structure[:2] == b"[["
    if sight(structure, len(plan.shape) if nested else 1) != (plan.shape if nested else (plan.count,)):
        return None
    try:
        values = plan.numbers.values(parsed(data))
    except ERRORS:
        return None
    # `[]` and `[1]` have one structure: only the count tells an empty list from a list of one.
    return None if values is None or values.size != plan.count else values.reshape(plan.shape)
