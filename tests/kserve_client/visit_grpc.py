"""What a user of `kserve.InferenceGRPCClient` does with a gateway: run in an environment of its own, without ours.

`python visit_grpc.py` reads `{"address", "token"}` as JSON from standard input and writes what it found as JSON to
standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

ROWS = np.array([[1.0, 2.0], [3.0, -4.5]], np.float32)


def request_for(model: str, tensor: np.ndarray, datatype: str, *, raw: bool) -> InferRequest:
    one = InferInput("n" if model == "whole" else "x", list(tensor.shape), datatype)
    one.set_data_from_numpy(tensor, binary_data=raw)
    return InferRequest(model, [one], request_id="order-0815")


async def visited(asked: dict[str, str]) -> dict[str, object]:
    headers = (("authorization", f"Bearer {asked['token']}"),)
    found: dict[str, object] = {}
    async with InferenceGRPCClient(asked["address"], retries=0) as client:
        found["live"] = await client.is_server_live(headers=headers)
        found["ready"] = await client.is_server_ready(headers=headers)
        found["model ready"] = await client.is_model_ready("double", headers=headers)
        found["unknown ready"] = await client.is_model_ready("unknown", headers=headers)
        for raw in (True, False):
            name = "raw" if raw else "typed"
            answer = await client.infer(request_for("double", ROWS, "FP32", raw=raw), headers=headers)
            found[name] = answer.outputs[0].as_numpy().tolist()
            found["answer"] = [answer.id, answer.model_name, answer.model_version]
            whole = np.array([[1, -2, 2**61 + 1]], np.int64)
            answer = await client.infer(request_for("whole", whole, "INT64", raw=raw), headers=headers)
            found[f"{name} integers"] = answer.outputs[0].as_numpy().tolist()
        refusals = {}
        for name, model, with_headers in (("no token", "double", None), ("no model", "unknown", headers)):
            try:
                await client.infer(request_for(model, ROWS, "FP32", raw=True), headers=with_headers)
            except grpc.RpcError as error:
                refusals[name] = [error.code().name, error.details()]
        found["refusals"] = refusals
    return found


if __name__ == "__main__":
    json.dump(asyncio.run(visited(json.load(sys.stdin))), sys.stdout)
