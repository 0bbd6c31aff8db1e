"""What a user of `tritonclient.grpc` does with a gateway: run in an environment of its own, without ours.

`python visit.py` reads `{"address", "token", "poor_token", "hurried_token"}` as JSON from standard input and writes
what it found as JSON to standard output. Everything but streams is done twice: by the client that blocks, and by that
of asyncio.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import queue
import sys
from collections.abc import Callable

import numpy as np
import tritonclient.grpc as blocking
import tritonclient.grpc.aio as asynchronous
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ROWS = np.array([[1.0, 2.0], [3.0, -4.5]], np.float32)
MANY = np.arange(2000, dtype=np.float32).reshape(-1, 2)


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


def input_of(name: str, tensor: np.ndarray) -> blocking.InferInput:
    made = blocking.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
    made.set_data_from_numpy(tensor)
    return made


class Visit:
    """One client with one token."""

    def __init__(self, module: object, address: str, token: str) -> None:
        self.module = module
        self.client = module.InferenceServerClient(address)  # type: ignore[attr-defined]
        self.headers = {"authorization": f"Bearer {token}"}

    async def ask(self, name: str, *args: object, **named: object) -> object:
        return await called(getattr(self.client, name), *args, headers=self.headers, **named)

    async def refused(self, name: str, *args: object, **named: object) -> list[str]:
        return await refused(getattr(self.client, name), *args, headers=self.headers, **named)

    async def infer(self, model: str, name: str, tensor: np.ndarray, **named: object) -> object:
        return await self.ask("infer", model, [input_of(name, tensor)], **named)

    async def predictions(self) -> dict[str, object]:
        found: dict[str, object] = {}
        doubled = await self.infer("double", "x", ROWS, request_id="order-0815")
        message = doubled.get_response()
        found["doubled"] = doubled.as_numpy("y").tolist()
        found["answer"] = [message.id, message.model_name, message.model_version]
        found["version"] = (await self.infer("times", "x", ROWS, model_version="1")).get_response().model_version
        found["integers"] = (
            (await self.infer("whole", "n", np.array([[1, -2, 2**61 + 1]], np.int64))).as_numpy("doubled").tolist()
        )
        texts = np.array([["B\u00e4r".encode()], ["a\0\u00ff".encode()]], np.object_)
        answered = (await self.infer("texts", "x", texts)).as_numpy("y")
        found["strings"] = [element.hex() for element in answered.reshape(-1)]
        for coding in ("gzip", "deflate"):
            many = await self.infer("double", "x", MANY, compression_algorithm=coding)
            found[coding] = bool((many.as_numpy("y") == MANY * 2).all())
        wanted = [blocking.InferRequestedOutput("y", class_count=1)]
        classes = await self.infer("double", "x", ROWS, outputs=wanted, priority=1, timeout=20_000_000)
        found["classes"] = [text.decode() for text in classes.as_numpy("y").reshape(-1)]
        headers = {**self.headers, "prefer": "respond-async"}
        job = await called(self.client.infer, "double", [input_of("x", ROWS)], headers=headers)
        found["job"] = job.get_response().parameters["sluice_job_id"].string_param
        return found

    async def metadata(self) -> dict[str, object]:
        server = await self.ask("get_server_metadata", as_json=True)
        model = await self.ask("get_model_metadata", "times", as_json=True)
        configured = await self.ask("get_model_config", "double", as_json=True)
        counted = await self.ask("get_inference_statistics", "whole", as_json=True)
        return {
            "live": await self.ask("is_server_live"),
            "ready": await self.ask("is_server_ready"),
            "model ready": await self.ask("is_model_ready", "double"),
            "version ready": await self.ask("is_model_ready", "times", "1"),
            "unknown ready": await self.ask("is_model_ready", "unknown"),
            "server": server["name"],
            "extensions": server["extensions"],
            "versions": model["versions"],
            "inputs": model["inputs"],
            "configured": configured["config"]["input"],
            "counted": counted["model_stats"][0]["name"],
        }

    async def repository(self) -> dict[str, object]:
        async def states() -> list[str]:
            index = await self.ask("get_model_repository_index", as_json=True)
            return [one["state"] for one in index["models"] if one["name"] == "spare"]

        found: dict[str, object] = {"before": await states()}
        await self.ask("unload_model", "spare")
        found["unloaded"] = [await self.ask("is_model_ready", "spare"), await states() != ["READY"]]
        for _ in range(100):
            # It is being taken out of service, until nothing needs it.
            if not await self.refused("load_model", "spare"):
                break
            await asyncio.sleep(0.1)
        for _ in range(100):
            if await self.ask("is_model_ready", "spare"):
                break
            await asyncio.sleep(0.1)
        found["loaded"] = [await self.ask("is_model_ready", "spare"), await states()]
        found["with files"] = await self.refused("load_model", "spare", config="{}", files={"file:1/m.onnx": b"x"})
        return found

    async def refusals(self, poor: Visit, hurried: Visit) -> dict[str, list[str]]:
        rows = [input_of("x", ROWS)]
        wrong = [input_of("x", ROWS[:, :1].copy())]
        return {
            "no token": await refused(self.client.infer, "double", rows),
            "no right": await poor.refused("unload_model", "double"),
            "no grant": await poor.refused("infer", "times", rows),
            "no model": await self.refused("infer", "unknown", rows),
            "no version": await self.refused("infer", "double", rows, model_version="9"),
            "no fit": await self.refused("infer", "double", wrong),
            "no shared memory": await self.refused("get_system_shared_memory_status"),
            "too many": await hurried.refused("infer", "double", rows),
            "too late": await self.refused("infer", "slow", rows, client_timeout=0.001),
        }


def streamed(address: str, token: str) -> list[object]:
    """The answers of a stream, in their order: outputs, or the text of an error."""
    answers: queue.Queue[object] = queue.Queue()
    with blocking.InferenceServerClient(address) as client:
        client.start_stream(
            lambda result, error: answers.put(error.message() if error else result.as_numpy("y").tolist()),
            headers={"authorization": f"Bearer {token}"},
        )
        for model in ("double", "unknown", "double"):
            client.async_stream_infer(model, [input_of("x", ROWS)])
        found = [answers.get(timeout=60) for _ in range(3)]
        client.stop_stream()
    return found


async def visited(module: object, asked: dict[str, str]) -> dict[str, object]:
    visit, poor, hurried = (
        Visit(module, asked["address"], asked[name]) for name in ("token", "poor_token", "hurried_token")
    )
    found = {
        "predictions": await visit.predictions(),
        "metadata": await visit.metadata(),
        "repository": await visit.repository(),
        "refusals": await visit.refusals(poor, hurried),
    }
    for one in (visit, poor, hurried):
        await called(one.client.close)
    return found


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    found = {
        name: asyncio.run(visited(module, asked))
        for name, module in (("blocking", blocking), ("asyncio", asynchronous))
    }
    found["streamed"] = streamed(asked["address"], asked["token"])
    json.dump(found, sys.stdout)
