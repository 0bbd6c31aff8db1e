"""Whether answers are right, before and under load: compared with ONNX Runtime's own, computed here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from benchmarks.bodies import Images, binary_answer, binary_request, json_answer, json_request, rounded
from benchmarks.failures import BenchmarkFailed
from benchmarks.system import HOST, System
from model_store import registry
from model_store.artifacts import Artifacts
from model_store.database import transaction
from model_store.registry import Served
from model_store.settings import StoreSettings
from workers.runtimes.onnx import OnnxPredictor

TOLERANCE = 1e-4
BATCH = 64
MOST_SECONDS = 150.0

Answer = Callable[[Mapping[str, str], bytes], Images]


def as_json(_: Mapping[str, str], body: bytes) -> Images:
    return json_answer(body)


def served(system: System, model: str) -> Served:
    """The highest version of a model, which a bare name means."""
    with transaction(system.sessions, write=False) as session:
        return registry.served(session, model, registry.load_catalog(session).resolve(model).number)


def predictor(system: System, model: str) -> OnnxPredictor:
    """The version that the worker serves, loaded here; raises BenchmarkFailed where it is none of ONNX Runtime's."""
    found = served(system, model)
    if found.runtime != "onnx":
        raise BenchmarkFailed(f"{model} is not served by ONNX Runtime")
    settings = StoreSettings()
    store = Artifacts(system.folder.root / "store", settings.upload_limit_bytes)
    return OnnxPredictor(store.path(found.digest), found.signature, found.memory_bytes)


def expected(loaded: OnnxPredictor, images: Images) -> Images:
    """By ONNX Runtime in this process: one row of probabilities for each image."""
    [spec] = loaded.signature.inputs
    [output] = loaded.signature.outputs
    rows = [loaded.run({spec.name: images[start : start + BATCH]}) for start in range(0, len(images), BATCH)]
    return np.concatenate([row[output.name] for row in rows]).astype(np.float32)


def verify(system: System, model: str, images: Images, token: str, *, connections: int, binary: bool = False) -> int:
    """Ask for each image once, over some connections, and compare each answer with its own right one.

    Returns how many were right, which is all of them; raises BenchmarkFailed at the first that is not.
    """
    loaded, images = predictor(system, model), rounded(images)
    right = expected(loaded, images)
    [spec] = loaded.signature.inputs

    def request(number: int) -> bytes:
        image = images[number : number + 1]
        return binary_request(model, spec, image, token) if binary else json_request(model, image, token)

    read: Answer = binary_answer if binary else as_json
    return asyncio.run(_ask_all(system.port, request, read, right, connections))


async def _ask_all(port: int, request: Callable[[int], bytes], read: Answer, right: Images, connections: int) -> int:
    waiting = iter(range(len(right)))

    async def connection(numbers: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection(HOST, port, limit=2**20)
        for number in numbers:
            writer.write(request(number))
            head, body = await _answer(reader)
            if not head.startswith("HTTP/1.1 200"):
                raise BenchmarkFailed(f"image {number} was answered with {head[:40]!r} {body[:200]!r}")
            found = read(_headers(head), body)
            if found.shape != (1, right.shape[1]) or np.abs(found[0] - right[number]).max() > TOLERANCE:
                raise BenchmarkFailed(f"image {number} has a wrong answer: {body[:200]!r}")
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(MOST_SECONDS):
        await asyncio.gather(*(connection(waiting) for _ in range(min(connections, len(right)))))
    return len(right)


async def _answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    return head, await reader.readexactly(int(_headers(head)["content-length"]))


def _headers(head: str) -> dict[str, str]:
    lines = head.split("\r\n")[1:-2]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
