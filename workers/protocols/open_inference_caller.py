"""The caller's side of the Open Inference Protocol: tensors into a request. protocols/answers.py reads its answer.

All is bytes behind a head of JSON (Triton's binary tensor data extension): no number is written as text on the way.
"""

from __future__ import annotations

import json

from model_store.signature import Signature, Tensors
from model_store.tensors import element_type
from workers.protocols.body import Body, Dialect
from workers.protocols.open_inference_answer import as_bytes


def write_request(inputs: Tensors, signature: Signature) -> Body:
    """A request for all outputs, as bytes; `inputs` fit the signature."""
    described: list[dict[str, object]] = []
    parts: list[bytes | memoryview] = []
    for spec in signature.inputs:
        data, size = as_bytes(inputs[spec.name], spec)
        parts.append(data)
        described.append(
            {
                "name": spec.name,
                "datatype": element_type(spec.dtype).open_inference,
                "shape": list(inputs[spec.name].shape),
                "parameters": {"binary_data_size": size},
            }
        )
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    return Body(b"".join([head, *parts]), Dialect.OPEN_INFERENCE, len(head))
