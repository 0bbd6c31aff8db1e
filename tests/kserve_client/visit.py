"""What a user of KServe's `InferenceRESTClient` does with a gateway: run in an environment of its own, without ours.

`python visit.py` reads `{"url", "token", "hurried_token"}` as JSON from standard input and writes what it found as
JSON to standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ROWS = np.array([[1.0, 2.0], [3.0, -4.5]], np.float32)


def request(tensor: np.ndarray, datatype: str, *, binary: bool, **more: object) -> InferRequest:
    given = InferInput(name="x", shape=list(tensor.shape), datatype=datatype)
    given.set_data_from_numpy(tensor, binary_data=binary)
    return InferRequest(model_name="double", infer_inputs=[given], **more)


async def refused(asked: Awaitable[object]) -> list[object]:
    """Status and text of the exception that the client makes of a refusal."""
    try:
        await asked
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]
    return []


async def version_two(url: str, headers: dict[str, str]) -> dict[str, object]:
    """The Open Inference Protocol."""
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found: dict[str, object] = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model ready": await client.is_model_ready(url, "double", headers=headers),
            "unknown ready": await client.is_model_ready(url, "unknown", headers=headers),
        }
        for name, binary in (("bytes", True), ("json", False)):
            for answer, wanted in ((" answered as bytes", True), (" answered as json", False)):
                outputs = [RequestedOutput(name="y", parameters={"binary_data": wanted})]
                asked = request(ROWS, "FP32", binary=binary, request_id="order-0815", request_outputs=outputs)
                result = await client.infer(url, asked, model_name="double", headers=dict(headers))
                found[name + answer] = result.outputs[0].as_numpy().tolist()
        found["answer"] = [result.id, result.model_name]
        asked = request(ROWS, "FP32", binary=True, parameters={"binary_data_output": True, "priority": 1})
        result = await client.infer(url, asked, model_name="double", headers=dict(headers))
        found["by parameter"] = result.outputs[0].as_numpy().tolist()
        plain = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
        result = await client.infer(url, plain, model_name="double", headers=dict(headers))
        found["as a dict"] = result.outputs[0].data
        half = request(ROWS.astype(np.float16), "FP16", binary=True)
        found["no fit"] = await refused(client.infer(url, half, model_name="double", headers=dict(headers)))
        found["no model"] = await refused(
            client.infer(url, request(ROWS, "FP32", binary=False), model_name="unknown", headers=dict(headers))
        )
        return found


async def version_one(url: str, headers: dict[str, str], hurried: dict[str, str]) -> dict[str, object]:
    """KServe's own protocol, the client's default."""
    rows = {"instances": ROWS.tolist()}
    async with InferenceRESTClient(RESTConfig(retries=1)) as client:
        return {
            "live": await client.is_server_live(url),
            "model ready": await client.is_model_ready(url, "double", headers=headers),
            "unready ready": await refused(client.is_model_ready(url, "unknown", headers=headers)),
            "predictions": await client.infer(url, rows, model_name="double", headers=headers),
            "no token": await refused(client.infer(url, rows, model_name="double")),
            "no grant": await refused(client.infer(url, rows, model_name="times", headers=hurried)),
            "no model": await refused(client.infer(url, rows, model_name="unknown", headers=headers)),
            "no fit": await refused(client.infer(url, {"instances": [[1]]}, model_name="double", headers=headers)),
            "too many": await refused(client.infer(url, rows, model_name="double", headers=hurried)),
        }


async def main() -> None:
    asked = json.load(sys.stdin)
    headers = {name: {"Authorization": f"Bearer {asked[name]}"} for name in ("token", "hurried_token")}
    found = {
        "v1": await version_one(asked["url"], headers["token"], headers["hurried_token"]),
        "v2": await version_two(asked["url"], headers["token"]),
    }
    sys.stdout.write(json.dumps(found))


asyncio.run(main())
