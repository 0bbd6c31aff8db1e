"""Uploading a model's file: in one request where it is small, else in as many as the connections it takes last for.

A large file is announced first; when a connection breaks, the gateway is asked how much it has, and the rest follows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import httpx

from sluice.answers import Json, Refused, Unreachable, read_answer

CHUNK_BYTES = 1024 * 1024
# Sending it again takes a moment, and beginning a resumable upload another request.
SMALL_BYTES = 8 * 1024 * 1024
# After a failure the next request is short: its refusal is read then, where one cut short would look like a failure.
CAREFUL_BYTES = 1024 * 1024
PATIENCE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 8.0
AWAY = frozenset({502, 503, 504})
# What a gateway answers while more is to come.
RESUME = 308

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and in all."""


class Send(Protocol):
    """One request with a fresh token; raises Unreachable."""

    def __call__(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None,
        content: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
    ) -> httpx.Response: ...


def upload_in_pieces(
    send: Send,
    path: str,
    file: Path,
    query: dict[str, str],
    headers: dict[str, str],
    progress: Progress | None,
) -> Json:
    """What the gateway answers once it has the whole file; `path` is that of the model's uploads.

    Raises Refused, OSError, and Unreachable where for a minute nothing got through.
    """
    size = file.stat().st_size
    begin = json.dumps({"size_bytes": size}).encode()
    typed = {"Content-Type": "application/json", **headers}
    begun = read_answer(send("POST", path, query=query, content=begin, headers=typed))
    resumed = _Resumed(send, f"{path}/{begun['id']}", file, size, progress)
    return resumed.run()


class _Resumed:
    """One file on its way."""

    def __init__(self, send: Send, place: str, file: Path, size: int, progress: Progress | None) -> None:
        self._send = send
        self._place = place
        self._file = file
        self._size = size
        self._progress = progress
        self._kept = 0

    def run(self) -> Json:
        failures, patient_until = 0, time.monotonic() + PATIENCE_SECONDS
        while True:
            before, fault = self._kept, None
            try:
                found = self._again(failures) if failures else self._request(self._size)
            except (Unreachable, Refused) as error:
                if isinstance(error, Refused) and error.status not in AWAY:
                    raise
                found, fault = None, error
            if found is not None:
                return found
            if self._kept > before:
                failures, patient_until = int(fault is not None), time.monotonic() + PATIENCE_SECONDS
            elif time.monotonic() > patient_until:
                raise fault or Unreachable(f"the gateway keeps no more than {self._kept} of {self._size} bytes")
            else:
                failures += 1

    def _again(self, failures: int) -> Json | None:
        """After a pause, ask how much is there, and go on from there."""
        time.sleep(min(0.25 * 2**failures, LONGEST_PAUSE_SECONDS))
        headers = {"Content-Range": f"bytes */{self._size}"}
        found = self._read(self._send("PUT", self._place, query=None, content=b"", headers=headers))
        return found if found is not None else self._request(self._kept + CAREFUL_BYTES)

    def _request(self, last: int) -> Json | None:
        """Send what follows, up to `last`."""
        last = min(self._size, last)
        headers = {
            "Content-Length": str(last - self._kept),
            "Content-Type": "application/octet-stream",
            "Content-Range": f"bytes {self._kept}-{last - 1}/{self._size}",
        }
        content = pieces(self._file, self._kept, last, self._size, self._progress)
        return self._read(self._send("PUT", self._place, query=None, content=content, headers=headers))

    def _read(self, response: httpx.Response) -> Json | None:
        """The version's answer, or None where more is to come."""
        if response.status_code != RESUME:
            return read_answer(response)
        self._kept = int(response.json()["received_bytes"])
        return None


def pieces(file: Path, first: int, last: int, size: int, progress: Progress | None) -> Iterator[bytes]:
    """A file's bytes from `first` up to `last`, of `size` in all."""
    sent = first
    with file.open("rb") as stream:
        stream.seek(first)
        while piece := stream.read(min(CHUNK_BYTES, last - sent)):
            yield piece
            sent += len(piece)
            if progress is not None:
                progress(sent, size)
