"""The JSON of an inference request: which inputs come, in which shapes and from where, and what is asked for.

Sources: specification/protocol/inference_rest.md of the Open Inference Protocol; docs/protocol/extension_binary_data.md
of Triton's server. Members that neither knows are ignored; what would change the answer and is not done is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from model_store.signature import STRING, Tensor, TensorSpec
from model_store.tensors import element_type
from workers.protocols.contract import Contract, common_count, instance_count
from workers.protocols.errors import excerpt, invalid, json_type, shown_name
from workers.protocols.file_inputs import SETTING, takes_files
from workers.protocols.json_tensors import Place, decoded_base64, tensor_of
from workers.protocols.open_inference_answer import Asked, Form, form_of, opening_of
from workers.protocols.open_inference_schedule import schedule_in
from workers.protocols.signature_names import PREDICT_METHOD, SIGNATURE_NAME, check_signature_name, terms_named
from workers.protocols.top_classes import asked_count, require_scores

HALF = "float16"
# The upper half of a float32's bits: no signature has it, and inputs of float32 take it as well.
SHORT_FLOAT = "BF16"
BYTES = "BYTES"
SHOWN_SIZES = 8
# More than any body can hold: larger numbers are refused where they are read, and need no thought anywhere else.
MOST_ELEMENTS = 2**31 - 1
MOST_BYTES = 2**32 - 1
CLASSIFICATION = "classification"
SHARED_MEMORY = "shared_memory_region"

MOST_ID_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Described:
    """One input as the request describes it: `data` in the JSON, or `size` bytes behind it."""

    spec: TensorSpec
    place: str
    shape: tuple[int, ...]
    count: int
    data: object
    size: int | None
    # The elements are files, from which the input's numbers are read.
    as_files: bool = False
    # The elements are BF16.
    short: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """What a request's JSON says, fitted to the version; `inputs` in the order of the request, all there and once."""

    inputs: tuple[Described, ...]
    instances: int
    opening: bytes
    form: Form


def read_head(document: object, contract: Contract, *, bytes_follow: bool) -> Head:
    """What a parsed request asks for; raises InputInvalid with the first place that does not fit the version."""
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {excerpt(document)} Is not object")
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise invalid(f"id must be a string, not {json_type(request_id)} {excerpt(request_id)}")
    if request_id is not None and len(request_id) > MOST_ID_CHARACTERS:
        raise invalid(f"id has {len(request_id)} characters; at most {MOST_ID_CHARACTERS} come back with an answer")
    inputs = described_inputs(document.get("inputs"), contract, bytes_follow=bytes_follow)
    counts = {found.spec.name: found.shape[0] for found in inputs if found.spec.batched}
    return Head(inputs, common_count(counts), opening_of(request_id), wanted(document, contract))


def terms_of(document: object, contract: Contract) -> Contract:
    """The terms of the signature that the request's parameter `signature_name` names; raises InputInvalid."""
    parameters = document.get("parameters") if isinstance(document, dict) else None
    if not isinstance(parameters, dict) or SIGNATURE_NAME not in parameters:
        return contract
    terms = terms_named(parameters, contract, PREDICT_METHOD)
    check_signature_name(parameters, terms.signature, PREDICT_METHOD, *terms.aliases)
    return terms


def described_inputs(listed: object, contract: Contract, *, bytes_follow: bool) -> tuple[Described, ...]:
    specs = {spec.name: spec for spec in contract.signature.inputs}
    expected = ", ".join(shown_name(name) for name in specs)
    if not isinstance(listed, list):
        raise invalid(f"inputs must be a list with the tensors {expected}")
    found: dict[str, Described] = {}
    for number, document in enumerate(listed):
        place = f"inputs[{number}]"
        name = name_in(document, place)
        if name not in specs:
            raise invalid(f"{place}: unexpected inference input {excerpt(name)}; the model takes {expected}")
        if name in found:
            raise invalid(f"{place}: input {excerpt(name)} already exists in request")
        found[name] = described_input(document, specs[name], place, contract, bytes_follow=bytes_follow)
    missing = [shown_name(name) for name in specs if name not in found]
    if missing:
        raise invalid(f"expected {len(specs)} inputs but got {len(found)}: {', '.join(missing)} missing")
    return tuple(found.values())


def described_input(
    document: dict[str, object], spec: TensorSpec, place: str, contract: Contract, *, bytes_follow: bool
) -> Described:
    datatype = element_type(spec.dtype).open_inference
    short = document.get("datatype") == SHORT_FLOAT and spec.dtype == "float32"
    if document.get("datatype") != datatype and not short:
        if document.get("datatype") == BYTES and spec.dtype != STRING:
            return described_files(document, spec, place, contract, bytes_follow=bytes_follow)
        raise invalid(f"{place}.datatype is {excerpt(document.get('datatype'))}; {takes(spec)}")
    shape = fitting_shape(document.get("shape"), spec, f"{place}.shape")
    if spec.batched:
        instance_count(spec, shape[0], contract.max_instances)
    count, data = math.prod(shape), document.get("data")
    size = binary_size(parameters_of(document, place), place)
    if (size is None) == (data is None):
        raise invalid(f"{place} must have either data or the parameter binary_data_size; {takes(spec)}")
    if size is None:
        if short or spec.dtype == HALF:
            raise invalid(
                f"{place}: receiving {document['datatype']} data via JSON is not supported; send it as binary data"
            )
        return Described(spec, place, shape, count, data, None)
    if not bytes_follow:
        raise invalid(f"{place} has binary data, but the request has no Inference-Header-Content-Length")
    # A string takes the four bytes of its length at least: what follows is checked when it is read.
    least = count * (4 if spec.dtype == STRING else 2 if short else spec.numpy_dtype().itemsize)
    if size < least or (size > least and spec.dtype != STRING):
        raise invalid(
            f"{place}: binary_data_size is {excerpt(size)}, but {document['datatype']} of shape {shown_shape(shape)} "
            f"takes {least} bytes{' or more' if spec.dtype == STRING else ''}"
        )
    return Described(spec, place, shape, count, None, size, short=short)


def described_files(
    document: dict[str, object], spec: TensorSpec, place: str, contract: Contract, *, bytes_follow: bool
) -> Described:
    """BYTES in the place of numbers: each element is a file, and one instance."""
    if not takes_files(contract, spec):
        raise invalid(f'{place}.datatype is "BYTES"; {takes(spec)}, and files need an input specification: {SETTING}')
    shape = document.get("shape")
    rank = len(shape) if isinstance(shape, list) else 1
    elements = TensorSpec(spec.name, STRING, (None, 1) if rank == 2 else (None,))
    found = described_input(document, elements, place, contract, bytes_follow=bytes_follow)
    return replace(found, spec=spec, as_files=True)


def name_in(document: object, place: str) -> str:
    name = document.get("name") if isinstance(document, dict) else None
    if not isinstance(name, str):
        raise invalid(f"{place} must be an object with a name")
    return name


def parameters_of(document: dict[str, object], place: str) -> dict[str, object]:
    found = document.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise invalid(f"{place}.parameters must be an object")
    if SHARED_MEMORY in found:
        raise invalid(f"{place}.parameters: {SHARED_MEMORY} is not supported")
    return found


def binary_size(parameters: dict[str, object], place: str) -> int | None:
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or not 0 <= size <= MOST_BYTES):
        raise invalid(f"{place}.parameters: binary_data_size must be a number of bytes, not {excerpt(size)}")
    return size


def fitting_shape(shape: object, spec: TensorSpec, place: str) -> tuple[int, ...]:
    if not isinstance(shape, list) or any(type(size) is not int for size in shape):
        raise invalid(f"{place} must be a list of integers; {takes(spec)}")
    fits = len(shape) == len(spec.shape) and all(
        size > 0 and want in (None, size) for size, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise invalid(f"{place} is {shown_shape(shape)}; {takes(spec)}")
    if math.prod(shape) > MOST_ELEMENTS:
        raise invalid(
            f"{place} {shown_shape(shape)} causes total element count to exceed maximum size of {MOST_ELEMENTS}"
        )
    return tuple(shape)


def takes(spec: TensorSpec) -> str:
    """What the version takes, in words, such as `input 'x' takes FP32 of shape [-1,2]`."""
    shape = shown_shape([-1 if size is None else size for size in spec.shape])
    return f"input '{shown_name(spec.name)}' takes {element_type(spec.dtype).open_inference} of shape {shape}"


def shown_shape(shape: Sequence[int]) -> str:
    sizes = [excerpt(size) for size in shape[:SHOWN_SIZES]]
    return "[" + ",".join(sizes + ["…"] * (len(shape) > SHOWN_SIZES)) + "]"


def wanted(document: dict[str, object], contract: Contract) -> Form:
    """The outputs that are asked for, all where none is named; an output's own wish overrides the request's."""
    places = {spec.name: place for place, spec in enumerate(contract.signature.outputs)}
    general = parameters_of(document, "request")
    if CLASSIFICATION in general:
        raise invalid("request.parameters: classification is a parameter of one requested output")
    binary = flag(general, "binary_data_output", "request", default=False)
    listed = document.get("outputs")
    if listed is not None and not isinstance(listed, list):
        raise invalid("outputs must be a list of objects with a name")
    asked: dict[str, Asked] = {}
    for number, output in enumerate(listed or ()):
        place = f"outputs[{number}]"
        name = name_in(output, place)
        if name not in places:
            expected = ", ".join(shown_name(known) for known in places)
            raise invalid(f"{place}: unexpected inference output {excerpt(name)}; the model gives {expected}")
        if name in asked:
            raise invalid(f"{place}: output {excerpt(name)} already exists in request")
        asked[name] = asked_output(parameters_of(output, place), places[name], place, contract, binary=binary)
    asked = asked or {name: Asked(place, binary) for name, place in places.items()}
    for name, one in asked.items():
        if not one.binary and one.classes is None and contract.signature.outputs[one.place].dtype == HALF:
            raise invalid(
                f"sending FP16 data via JSON is not supported; ask for output '{shown_name(name)}' as binary data"
            )
    return form_of(contract, tuple(asked.values()), schedule_in(general))


def asked_output(parameters: dict[str, object], number: int, place: str, contract: Contract, *, binary: bool) -> Asked:
    """The output with this number in the signature, as its own parameters ask for it."""
    as_bytes = flag(parameters, "binary_data", place, default=binary)
    if CLASSIFICATION not in parameters:
        return Asked(number, as_bytes)
    where = f"{place}.parameters: {CLASSIFICATION}"
    require_scores(contract.signature.outputs[number], where)
    return Asked(number, as_bytes, asked_count(parameters[CLASSIFICATION], where))


def flag(parameters: dict[str, object], name: str, place: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"{place}.parameters: {name} must be true or false, not {excerpt(value)}")
    return value


def tensor_in(found: Described) -> Tensor:
    """The tensor whose values the JSON holds, flat in row-major order or nested by its shape."""
    spec, shape, data = found.spec, found.shape, found.data
    place = Place(f"{found.place}.data")
    if found.as_files:
        texts = tensor_in(replace(found, spec=TensorSpec(spec.name, STRING, shape), as_files=False))
        return decoded_base64(texts, place)
    if isinstance(data, list) and len(shape) > 1 and data and type(data[0]) is list:
        return tensor_of(data, TensorSpec(spec.name, spec.dtype, shape), place)
    if not isinstance(data, list) or len(data) != found.count:
        given = f"{len(data)} values" if isinstance(data, list) else json_type(data)
        raise invalid(f"{place.root} is {given}, but shape {shown_shape(shape)} takes {found.count}")
    return tensor_of(data, TensorSpec(spec.name, spec.dtype, (found.count,)), place).reshape(shape)
