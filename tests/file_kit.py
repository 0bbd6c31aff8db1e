"""Files for tests: images and recordings made of numbers, and every way in which a request can carry them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import soundfile
from PIL import Image

from tests.open_inference_kit import HEAD_LENGTH
from workers.protocols.byte_strings import write_strings

BOUNDARY = "edge-of-a-part"


def image(pixels: np.ndarray, format: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    """An image of uint8 pixels, shape (height, width) or (height, width, 3)."""
    made = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(made, format, **options)
    return made.getvalue()


def recording(frames: np.ndarray, rate: int, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """A recording of frames from -1 to 1, shape (frames,) or (frames, channels)."""
    made = io.BytesIO()
    soundfile.write(made, frames, rate, format=format, subtype=subtype)
    return made.getvalue()


@dataclass(frozen=True, slots=True)
class Sending:
    """One request with files; its answer is an object with `predictions`, or one of the Open Inference Protocol."""

    way: str
    path: str
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


def form(parts: Sequence[tuple[str, bytes]]) -> tuple[bytes, str]:
    """A form with a part for each, and its Content-Type."""
    pieces = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{number}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for number, (name, data) in enumerate(parts)
    ]
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def ways(model: str, files: Sequence[bytes], content_type: str, name: str = "x") -> Iterator[Sending]:
    """The same files as instances of one input, in every dialect that takes them."""
    predict, infer = f"/v1/models/{model}:predict", f"/v2/models/{model}/infer"
    coded = [base64.b64encode(data).decode() for data in files]
    objects = [{"b64": text} for text in coded]
    yield Sending("b64 in rows", predict, json.dumps({"instances": objects}).encode())
    yield Sending("b64 in named rows", predict, json.dumps({"instances": [{name: one} for one in objects]}).encode())
    yield Sending("b64 in columns", predict, json.dumps({"inputs": {name: objects}}).encode())
    if len(files) == 1:
        yield Sending("raw", predict, files[0], {"content-type": content_type})
    content, kind = form([(name, data) for data in files])
    yield Sending("form", predict, content, {"content-type": kind})
    described = {"name": name, "datatype": "BYTES", "shape": [len(files)]}
    yield Sending("BYTES in JSON", infer, json.dumps({"inputs": [described | {"data": coded}]}).encode())
    elements = np.empty(len(files), object)
    elements[:] = files
    data = write_strings(elements)
    head = json.dumps({"inputs": [described | {"parameters": {"binary_data_size": len(data)}}]}).encode()
    yield Sending("BYTES behind JSON", infer, head + data, {HEAD_LENGTH: str(len(head))})


def numbers_in(document: dict, shape: Sequence[int]) -> np.ndarray:
    """The only output of an answer in any of these dialects, as float32."""
    listed = document["predictions"] if "predictions" in document else document.get("outputs")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        listed = listed[0]["data"]
    return np.array(listed, np.float32).reshape(shape)
