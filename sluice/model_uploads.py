"""Sending files: a model's in one request where it is small, else in as many as the connections it takes last for.

A large file is announced first; when a connection breaks, the gateway is asked how much it has, and the rest follows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx

from sluice.answers import Json, Refused, Unreachable, read_answer
from sluice.exchange import JSON_TYPE, Asked, FilePart, Pause, Progress, Renewal, Steps, ask, ask_json

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
BYTES_TYPE = {"Content-Type": "application/octet-stream"}


def upload(
    model: str,
    file: Path,
    format: str | None,
    options: Mapping[str, str] | None,
    signature: str | None,
    progress: Progress | None,
) -> Steps[Json]:
    """What the gateway answers once it has a model's whole file.

    Raises Refused, OSError, and Unreachable where for a minute nothing got through.
    """
    format = format or ("onnx" if file.suffix.lower() == ".onnx" else None)
    path = f"/admin/models/{quote(model, safe='')}"
    headers = {} if signature is None else {"Sluice-Signature": signature}
    query = {**(options or {}), **({"format": format} if format else {})}
    if file.stat().st_size <= SMALL_BYTES:
        return send_file(Asked("POST", f"{path}/versions", query=query, headers=headers), file, progress)
    return _upload_in_pieces(Asked("POST", f"{path}/uploads", query=query, headers=headers), file, progress)


def send_file(asked: Asked, file: Path, progress: Progress | None = None) -> Steps[Json]:
    """What a request is answered whose body is the file. Raises Refused, Unreachable, OSError."""
    size = file.stat().st_size
    # A request that takes long must not outlive its token.
    yield Renewal()
    part = FilePart(file, 0, size, size, progress)
    return (yield from ask_json(Asked(asked.method, asked.path, part, {**BYTES_TYPE, **asked.headers}, asked.query)))


def _upload_in_pieces(asked: Asked, file: Path, progress: Progress | None) -> Steps[Json]:
    size = file.stat().st_size
    yield Renewal()
    content = json.dumps({"size_bytes": size}).encode()
    begun = yield from ask_json(Asked(asked.method, asked.path, content, {**JSON_TYPE, **asked.headers}, asked.query))
    return (yield from _Resumed(f"{asked.path}/{begun['id']}", file, size, progress).run())


class _Resumed:
    """One file on its way."""

    def __init__(self, place: str, file: Path, size: int, progress: Progress | None) -> None:
        self._place = place
        self._file = file
        self._size = size
        self._progress = progress
        self._kept = 0

    def run(self) -> Steps[Json]:
        failures, patient_until = 0, time.monotonic() + PATIENCE_SECONDS
        while True:
            before, fault = self._kept, None
            try:
                found = yield from (self._again(failures) if failures else self._request(self._size))
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

    def _again(self, failures: int) -> Steps[Json | None]:
        """After a pause, ask how much is there, and go on from there."""
        yield Pause(min(0.25 * 2**failures, LONGEST_PAUSE_SECONDS))
        headers = {"Content-Range": f"bytes */{self._size}"}
        found = self._read((yield from ask(Asked("PUT", self._place, b"", headers))))
        if found is not None:
            return found
        return (yield from self._request(self._kept + CAREFUL_BYTES))

    def _request(self, last: int) -> Steps[Json | None]:
        """Send what follows, up to `last`."""
        last = min(self._size, last)
        headers = {**BYTES_TYPE, "Content-Range": f"bytes {self._kept}-{last - 1}/{self._size}"}
        part = FilePart(self._file, self._kept, last, self._size, self._progress)
        return self._read((yield from ask(Asked("PUT", self._place, part, headers))))

    def _read(self, response: httpx.Response) -> Json | None:
        """The version's answer, or None where more is to come."""
        if response.status_code != RESUME:
            return read_answer(response)
        self._kept = int(response.json()["received_bytes"])
        return None


def length_of(content: bytes | FilePart | None) -> dict[str, str]:
    """The header that says how long a file's part is; of bytes httpx knows it."""
    return {"Content-Length": str(content.last - content.first)} if isinstance(content, FilePart) else {}


def content_of(part: FilePart) -> Iterator[bytes]:
    """The part's bytes, piece by piece. Raises OSError."""
    sent = part.first
    with part.file.open("rb") as stream:
        stream.seek(part.first)
        while piece := stream.read(min(CHUNK_BYTES, part.last - sent)):
            yield piece
            sent += len(piece)
            if part.progress is not None:
                part.progress(sent, part.size)
