"""Dry runs: `?validate_only=true` on a prediction's path tells how the request is read, and runs nothing.

A request that would be refused is refused here in the same words, with what the version takes and a body that works.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

from gateway.submit_options import OptionInvalid
from model_store.catalog import CatalogVersion
from model_store.signature import Signature
from workers.errors import InputInvalid
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.contract import Request
from workers.protocols.example_bodies import blank, example_of
from workers.protocols.explain import ExplainRequest
from workers.protocols.json_text import parse_json
from workers.protocols.received import received
from workers.protocols.signature_names import SIGNATURE_NAME

PARAMETER = "validate_only"
MOST_FIELDS = 100
# An answer that says what is wrong should fit a screen: for larger inputs it says where an example is.
EXAMPLE_CHARACTERS = 4096
# Zeros take three characters and a comma: of more values no example is even made.
MOST_VALUES = EXAMPLE_CHARACTERS // 2


def asks_for_dry_run(query: bytes) -> bool:
    """Whether a query string, which is not empty, asks for one; other parameters are not looked at.

    Raises OptionInvalid for a value that is neither true nor false: who meant to try must not have predicted.
    """
    # Escaped, it is the same name.
    if PARAMETER.encode() not in query and b"%" not in query:
        return False
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise OptionInvalid("the query has too many fields") from None
    values = {value.lower() for name, value in fields if name == PARAMETER}
    if len(values) > 1 or not values <= {"true", "false"}:
        raise OptionInvalid(f"{PARAMETER} is `true` or `false`")
    return "true" in values


def understood(model: str, version: int, dialect: Dialect, request: Request) -> bytes:
    """The body of the 200 answer: which version would answer, and what it would be given."""
    tensors = request.unchanged if isinstance(request, ExplainRequest) else request.tensors
    inputs = [
        {"name": name, "dtype": "string" if tensor.dtype == object else tensor.dtype.name, "shape": list(tensor.shape)}
        for name, tensor in tensors.items()
    ]
    return json.dumps(
        {
            "valid": True,
            "model": model,
            "version": str(version),
            "dialect": dialect.label,
            "instances": request.instances,
            "inputs": inputs,
        }
    ).encode()


def with_example(error: InputInvalid, model: str, target: CatalogVersion, body: Body) -> InputInvalid:
    """The refusal with what the version takes, what came, and a body that it would take or where there is one."""
    named = _named(body, target)
    signature = target.signature if named is None else named
    if signature is None:
        return error
    expected = [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in signature.inputs]
    example = _short_example(Dialect(body.dialect), signature, naming=named is not None)
    shown = {"example": example} if example is not None else {"example_at": document_path(model, target.number)}
    error.members = {"expected": expected, "received": received(body), **shown}
    return error


def document_path(model: str, version: int | str) -> str:
    """Where a version's own OpenAPI document is, which has examples of any size."""
    return f"/v1/models/{model}/versions/{version}/openapi.json"


def description_link(model: str, version: str) -> tuple[bytes, bytes]:
    """The header that leads from a refusal to that document (RFC 8631): texts stay as clients know them."""
    return b"link", f'<{document_path(model, version)}>; rel="service-desc"'.encode()


def _named(body: Body, target: CatalogVersion) -> Signature | None:
    """The further signature that a request names, if it does."""
    if not target.further.listed:
        return None
    try:
        document = parse_json(body.data if body.head == TEXT else body.data[: body.head])
    except InputInvalid:
        return None
    if not isinstance(document, dict):
        return None
    holder = document.get("parameters") if body.dialect == Dialect.OPEN_INFERENCE else document
    name = holder.get(SIGNATURE_NAME) if isinstance(holder, dict) else None
    return next((one.signature for one in target.further.listed if one.signature.name == name), None)


def _short_example(dialect: Dialect, signature: Signature, *, naming: bool) -> object | None:
    inputs = blank(signature) if values_of(signature) <= MOST_VALUES else None
    example = None if inputs is None else example_of(dialect, inputs, signature)
    if naming and isinstance(example, dict):
        own = {SIGNATURE_NAME: signature.name}
        given = example.get("parameters", {})
        example |= {"parameters": given | own} if dialect is Dialect.OPEN_INFERENCE else own
    return example if example is not None and len(json.dumps(example)) <= EXAMPLE_CHARACTERS else None


def values_of(signature: Signature) -> int:
    """How many values one instance has, of all inputs; 1 stands for every free dimension."""
    total = 0
    for spec in signature.inputs:
        count = 1
        for size in spec.shape:
            count *= 1 if size is None else size
        total += count
    return total
