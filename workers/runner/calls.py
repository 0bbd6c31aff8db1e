"""Calls in the child: one request frame in, one answer frame out; errors become data that the parent turns back."""

from __future__ import annotations

import errno
import socket
import traceback
from collections.abc import Mapping
from typing import Any

from model_store.errors import SluiceError
from model_store.signature import Tensors
from workers.errors import UploadRefused, brief
from workers.runner import frames
from workers.runner.commands import find
from workers.runner.limits import tells_of_memory

# What a parent makes of a failed call: the classes are named in workers/runner/process.py.
REFUSED, FAILED, MEMORY, DISK = "refused", "prediction_failed", "runner_memory", "runner_disk"


def serve(channel: socket.socket, commands: Mapping[str, str], answer_bytes: int) -> None:
    """Answer one call after the other; returns when the parent closes the channel."""
    held: dict[str, Any] = {}
    while True:
        try:
            request, tensors = frames.receive(channel, frames.REQUEST_BYTES)
        except EOFError:
            return
        frame = _answer(commands, held, request, tensors)
        if sum(buffer.nbytes for buffer in frame[1:]) > answer_bytes:
            frame = frames.encode({"error": {"kind": FAILED, "message": "the answer is too large"}}, {})
        frames.send(channel, frame)


def _answer(
    commands: Mapping[str, str], held: dict[str, Any], request: frames.Header, tensors: Tensors
) -> list[memoryview]:
    try:
        answer, outputs = find(commands, request["command"])(held, request["arguments"], tensors)
        return frames.encode({"answer": answer}, outputs)
    except Exception as error:  # noqa: BLE001 - the process's edge: whatever a model raises becomes an answer
        traceback.print_exc()  # into the parent's bounded record of stderr
        return frames.encode({"error": _described(error)}, {})


def _described(error: Exception) -> dict[str, str]:
    if isinstance(error, UploadRefused):
        return {"kind": REFUSED, "code": error.code, "message": error.message}
    if isinstance(error, SluiceError):
        return {"kind": FAILED, "code": error.code, "message": error.message}
    if _is_memory(error):
        return {"kind": MEMORY, "code": MEMORY, "message": "out of memory"}
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
        return {"kind": DISK, "code": DISK, "message": "no room for a file"}
    return {"kind": FAILED, "code": FAILED, "message": brief(error)}


def _is_memory(error: Exception) -> bool:
    # TensorFlow's class by its name: importing TensorFlow to ask for it would take seconds.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return (isinstance(error, OSError) and error.errno == errno.ENOMEM) or tells_of_memory(str(error))
