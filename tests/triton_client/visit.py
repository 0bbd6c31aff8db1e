"""What a user of `tritonclient.http` does with a gateway: run in an environment of its own, without ours.

`python visit.py` reads `{"url", "token", "poor_token", "hurried_token"}` as JSON from standard input and writes what it
found as JSON to standard output. Everything is done twice: by the client that blocks, and by that of asyncio.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import tritonclient.http as blocking
import tritonclient.http.aio as asynchronous
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ROWS = np.array([[1.0, 2.0], [3.0, -4.5]], np.float32)
MANY = np.arange(40_000, dtype=np.float32).reshape(-1, 2)
CODINGS = ("gzip", "deflate")


async def called(function: Callable[..., object], *args: object, **named: object) -> object:
    """What a method gives, whether or not it has to be waited for."""
    found = function(*args, **named)
    return await found if inspect.isawaitable(found) else found


async def refused(function: Callable[..., object], *args: object, **named: object) -> list[str]:
    """Status and text of the exception that the client makes of a refusal."""
    try:
        await called(function, *args, **named)
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return []


class Visit:
    """One client with one token."""

    def __init__(self, module: object, url: str, token: str) -> None:
        self.module = module
        self.client = module.InferenceServerClient(url)  # type: ignore[attr-defined]
        # A copy goes with each call: the client writes its own headers into it, which would come with the next one.
        self.headers = {"Authorization": f"Bearer {token}"}

    async def ask(self, name: str, *args: object, **named: object) -> object:
        return await called(getattr(self.client, name), *args, headers=dict(self.headers), **named)

    async def refused(self, name: str, *args: object, **named: object) -> list[str]:
        return await refused(getattr(self.client, name), *args, headers=dict(self.headers), **named)

    def input(self, name: str, tensor: np.ndarray, *, binary: bool = True) -> object:
        made = self.module.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))  # type: ignore[attr-defined]
        made.set_data_from_numpy(tensor, binary_data=binary)
        return made

    def output(self, name: str, **named: object) -> object:
        return self.module.InferRequestedOutput(name, **named)  # type: ignore[attr-defined]

    async def infer(
        self, model: str, tensor: np.ndarray, *, name: str = "x", binary: bool = True, **named: object
    ) -> object:
        return await self.ask("infer", model, [self.input(name, tensor, binary=binary)], **named)


async def predictions(visit: Visit) -> dict[str, object]:
    """Every mix of JSON and bytes, packed bodies, and what the answers were."""
    found: dict[str, object] = {}
    for name, binary in (("bytes", True), ("json", False)):
        for answer, wanted in (("", None), (" answered as bytes", True), (" answered as json", False)):
            outputs = None if wanted is None else [visit.output("y", binary_data=wanted)]
            result = await visit.infer("double", ROWS, binary=binary, outputs=outputs, request_id="order-0815")
            found[name + answer] = result.as_numpy("y").tolist()  # type: ignore[attr-defined]
    response = result.get_response()  # type: ignore[attr-defined]
    found["answer"] = [response["id"], response["model_name"], response["model_version"]]
    for coding in CODINGS:
        for binary in (True, False):
            result = await visit.infer(
                "double",
                MANY,
                binary=binary,
                outputs=[visit.output("y", binary_data=False)],
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            same = np.array_equal(result.as_numpy("y"), 2 * MANY)  # type: ignore[attr-defined]
            found[f"{coding} of {'bytes' if binary else 'json'}"] = [same, coding]
    result = await visit.infer("times", ROWS, model_version="1")
    found["version"] = result.get_response()["model_version"]  # type: ignore[attr-defined]
    whole = np.array([[1, -2, 2**61 + 1]], np.int64)
    result = await visit.infer("whole", whole, name="n")
    found["integers"] = result.as_numpy("doubled").tolist()  # type: ignore[attr-defined]
    words = np.array([["B\u00e4r".encode()], ["a\0\u00ff".encode()]], object)
    result = await visit.infer("texts", words)
    found["strings"] = [element.hex() for element in result.as_numpy("y").reshape(-1)]  # type: ignore[attr-defined]
    result = await visit.infer("double", ROWS, outputs=[visit.output("y", class_count=1)])
    found["classes"] = [element.decode() for element in result.as_numpy("y").reshape(-1)]  # type: ignore[attr-defined]
    result = await visit.infer("double", ROWS, priority=1, timeout=30_000_000, parameters={"mine": "ignored"})
    found["scheduled"] = result.as_numpy("y").tolist()  # type: ignore[attr-defined]
    return found


async def metadata(visit: Visit) -> dict[str, object]:
    """Health, metadata, configuration, statistics."""
    client, model = visit.client, await visit.ask("get_model_metadata", "times", "1")
    configured = await visit.ask("get_model_config", "double")
    before = await visit.ask("get_inference_statistics", "double")
    await visit.infer("double", ROWS)
    [old] = before["model_stats"]  # type: ignore[index]
    new = await executed(visit, old["inference_count"] + len(ROWS))
    return {
        "live": await called(client.is_server_live),
        "ready": await called(client.is_server_ready),
        "model ready": await visit.ask("is_model_ready", "double"),
        "version ready": await visit.ask("is_model_ready", "times", "1"),
        "unknown ready": await visit.ask("is_model_ready", "unknown"),
        "server": (await visit.ask("get_server_metadata"))["name"],  # type: ignore[index]
        "extensions": sorted((await visit.ask("get_server_metadata"))["extensions"]),  # type: ignore[index]
        "versions": model["versions"],  # type: ignore[index]
        "inputs": model["inputs"],  # type: ignore[index]
        "configured": [configured["input"], configured["max_batch_size"] > 1],  # type: ignore[index]
        "durations": [name for name, duration in new["inference_stats"].items() if duration["ns"]],
        "batch sizes": min(row["batch_size"] for row in new["batch_stats"]),
        "successes": new["inference_stats"]["success"]["count"] - old["inference_stats"]["success"]["count"],
    }


async def executed(visit: Visit, instances: int) -> dict[str, object]:
    """The figures once workers have told that so many instances were executed, which they do once a second."""
    until = time.monotonic() + 20
    while True:
        [found] = (await visit.ask("get_inference_statistics", "double", "1"))["model_stats"]  # type: ignore[index]
        if found["inference_count"] >= instances:
            return found
        assert time.monotonic() < until, found
        await asyncio.sleep(0.1)


async def repository(visit: Visit) -> dict[str, object]:
    """The index, and a model out of service and back."""

    async def state() -> list[str]:
        index = await visit.ask("get_model_repository_index")
        return [row["state"] for row in index if row["name"] == "spare"]  # type: ignore[attr-defined]

    found: dict[str, object] = {"before": await state()}
    await visit.ask("unload_model", "spare")
    found["unloaded"] = [await visit.ask("is_model_ready", "spare"), (await state())[0] != "READY"]
    await visit.ask("load_model", "spare")
    found["loaded"] = [await visit.ask("is_model_ready", "spare"), await state()]
    found["with files"] = await visit.refused("load_model", "spare", config="{}", files={"file:1/model.onnx": b"x"})
    return found


async def refusals(visit: Visit, poor: Visit, hurried: Visit, stranger: Visit) -> dict[str, object]:
    """What the client makes of refusals: each has a text that it could read."""
    inputs = [visit.input("x", ROWS)]
    found = {
        "no token": await refused(visit.client.infer, "double", inputs),
        "bad token": await stranger.refused("infer", "double", inputs),
        "no right": await poor.refused("unload_model", "double"),
        "no grant": await poor.refused("infer", "times", [poor.input("x", ROWS)]),
        "no model": await visit.refused("infer", "unknown", inputs),
        "no version": await visit.refused("infer", "times", inputs, model_version="9"),
        "no fit": await visit.refused("infer", "double", [visit.input("x", ROWS.astype(np.float64))]),
        "no sequence": await visit.refused("infer", "double", inputs, sequence_id=7, sequence_start=True),
        "no shared memory": await visit.refused("get_system_shared_memory_status"),
        "too soon": await visit.refused("infer", "slow", [visit.input("x", ROWS)], timeout=1),
    }
    many = [await hurried.refused("infer", "double", [hurried.input("x", ROWS)]) for _ in range(5)]
    return found | {"too many": many[-1]}


async def main() -> None:
    asked = json.load(sys.stdin)
    url = asked["url"].removeprefix("http://")
    found = {}
    for name, module in (("blocking", blocking), ("asyncio", asynchronous)):
        tokens = (asked["token"], asked["poor_token"], asked["hurried_token"], "no-token")
        visits = [Visit(module, url, token) for token in tokens]
        found[name] = {
            "predictions": await predictions(visits[0]),
            "metadata": await metadata(visits[0]),
            "repository": await repository(visits[0]),
            "refusals": await refusals(*visits),
        }
        for visit in visits:
            await called(visit.client.close)
    sys.stdout.write(json.dumps(found))


asyncio.run(main())
