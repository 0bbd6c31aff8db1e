"""Gateways that are killed in the middle of an upload and of an answer: what their caller does next comes out right."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import random
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from sqlalchemy import func, select

from model_store import registry
from model_store.database import transaction
from model_store.tables import Version
from tests.chaos.callers import ended, signed_in
from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.chaos.process_faults import signalled
from tests.live_gateway import KERAS
from workers.drafts import FILE
from workers.tables import Job

MODEL = "double"
UPLOAD_BYTES = 3 * 1024 * 1024
# Much more than lies in the buffers between a gateway and a caller that does not read.
ANSWER_BYTES = 24 * 1024 * 1024
RECEIVE_BYTES = 64 * 1024
ROWS = 500
# What was sent has arrived, and is being worked on.
ARRIVED_SECONDS = 0.5
AGAIN_SECONDS = 60.0


class GatewayKilledInBetween(Fault):
    """One of the gateways, with a caller of its own in the middle of something."""

    case = "C10"

    def begin(self, on: Installation, chance: random.Random) -> None:
        first, second = chance.sample(range(len(on.urls)), 2)
        with (
            contextlib.closing(signed_in(on, f"uploader-{chance.randrange(10**9)}", MODEL)) as caller,
            httpx.Client(base_url=on.urls[second], headers=caller.headers, timeout=30) as other,
        ):
            caller.base_url = httpx.URL(on.urls[first])
            self.interrupt(on, caller, other, chance)

    def interrupt(self, on: Installation, caller: httpx.Client, other: httpx.Client, chance: random.Random) -> None:
        """Begin something with `caller`, kill its gateway, and go on with `other`."""
        raise NotImplementedError

    @staticmethod
    def kill(on: Installation, caller: httpx.Client) -> None:
        number = on.urls.index(str(caller.base_url).rstrip("/"))
        signalled([on.process(on.names("gateway")[number])], signal.SIGKILL)


class GatewayKilledInModelUpload(GatewayKilledInBetween):
    """A gateway is killed in the middle of a model's upload, which goes on at another."""

    def interrupt(self, on: Installation, caller: httpx.Client, other: httpx.Client, chance: random.Random) -> None:
        data = KERAS + chance.randbytes(UPLOAD_BYTES)
        kept, sent = len(data) // 3, 2 * len(data) // 3
        begun = caller.post(f"/admin/models/{MODEL}/uploads", json={"size_bytes": len(data)})
        place = begun.headers["location"]
        answer = caller.put(place, content=data[:kept], headers=piece(0, kept, data))
        assert answer.status_code == 308, answer.text
        with interrupted(caller, "PUT", place, data[kept:], sent - kept, piece(kept, len(data), data)):
            self.kill(on, caller)
        told = again(other, "PUT", place, headers={"content-range": f"bytes */{len(data)}"})
        assert told.status_code == 308, told.text
        came = int(told.headers["range"].rpartition("-")[2]) + 1
        assert kept <= came <= sent, f"{came} bytes are kept, of {kept} that were confirmed and {sent} that were sent"
        answer = again(other, "PUT", place, content=data[came:], headers=piece(came, len(data), data))
        assert answer.status_code in (200, 202), answer.text
        self._require_one(on, hashlib.sha256(data).hexdigest())

    @staticmethod
    def _require_one(on: Installation, digest: str) -> None:
        with transaction(on.sessions) as session:
            versions = session.scalars(select(Version.number).where(Version.digest == digest)).all()
            assert len(versions) == 1, f"one upload became the versions {versions}"
            # Nobody here prepares it.
            registry.refuse(session, MODEL, versions[0], code="format_unknown", message="of a trial", report={})


class GatewayKilledInFileUpload(GatewayKilledInBetween):
    """A gateway is killed in the middle of a batch's upload, which is sent again with its key."""

    def interrupt(self, on: Installation, caller: httpx.Client, other: httpx.Client, chance: random.Random) -> None:
        rows = [[float(number), float(chance.randrange(10**6))] for number in range(ROWS)]
        data = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        path, headers = f"/v1/models/{MODEL}:batch", {"content-type": "application/jsonl", "idempotency-key": '"file"'}
        with interrupted(caller, "POST", path, data, len(data) // 2, headers):
            self.kill(on, caller)
        accepted = again(other, "POST", path, content=data, headers=headers)
        assert accepted.status_code == 202, accepted.text
        replayed = again(caller, "POST", path, content=data, headers=headers)
        assert replayed.json()["id"] == accepted.json()["id"], "one key stands for two jobs"
        job = accepted.json()["id"]
        found = ended(other, job, AGAIN_SECONDS)
        assert found["state"] == "succeeded", found
        lines = [json.loads(line) for line in again(other, "GET", f"/v1/jobs/{job}/result").text.splitlines()]
        wanted = [{"row": number, "predictions": [[2 * x for x in row]]} for number, row in enumerate(rows)]
        assert lines == wanted, f"{len(lines)} lines answer {ROWS} rows, and are not theirs"
        with transaction(on.sessions, write=False) as session:
            client_id = session.scalars(select(Job.client_id).where(Job.id == job)).one()
            mine = select(func.count()).select_from(Job).where(Job.client_id == client_id, Job.kind == FILE)
            assert session.scalars(mine).one() == 1, "one key became several jobs"


class GatewayKilledInAnswer(GatewayKilledInBetween):
    """A gateway is killed in the middle of a long answer, which is asked of another."""

    def interrupt(self, on: Installation, caller: httpx.Client, other: httpx.Client, chance: random.Random) -> None:
        data = chance.randbytes(ANSWER_BYTES // 2).hex().encode()
        form = {"data": {"purpose": "batch"}, "files": {"file": ("long.jsonl", data)}}
        file = again(caller, "POST", "/v1/files", **form).json()["id"]
        path = f"/v1/files/{file}/content"
        with interrupted(caller, "GET", path, b"", 0, {}) as connection:
            answer = connection.getresponse()
            received = answer.read(RECEIVE_BYTES)
            self.kill(on, caller)
            with contextlib.suppress(http.client.IncompleteRead, OSError):
                received += answer.read()
        assert len(received) < len(data), "the answer was complete before its gateway was killed"
        assert received == data[: len(received)], "what came before the kill is not how the answer begins"
        assert again(other, "GET", path).content == data, "another gateway answers otherwise"
        assert again(other, "DELETE", f"/v1/files/{file}").status_code == 200


def piece(first: int, end: int, data: bytes) -> dict[str, str]:
    return {"content-range": f"bytes {first}-{end - 1}/{len(data)}"}


@contextlib.contextmanager
def interrupted(
    caller: httpx.Client, method: str, path: str, body: bytes, sent: int, headers: Mapping[str, str]
) -> Iterator[http.client.HTTPConnection]:
    """A request of which so many bytes of the body are sent and have arrived; the connection is closed at the end."""
    address = urlsplit(str(caller.base_url))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    with contextlib.closing(connection):
        connection.connect()
        # Little of a long answer fits into it.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        connection.putrequest(method, path)
        for name, value in {"authorization": caller.headers["authorization"], **headers}.items():
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders()
        connection.send(body[:sent])
        time.sleep(ARRIVED_SECONDS)
        yield connection


def again(caller: httpx.Client, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
    """The answer to a request, which is sent again while nobody answers or only says that it could not be served."""
    until = time.monotonic() + AGAIN_SECONDS
    while True:
        try:
            answer = caller.request(method, path, **request)
            if answer.status_code < 500 and answer.status_code not in (409, 429):
                return answer
            failure = f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as error:
            failure = type(error).__name__
        assert time.monotonic() < until, f"{method} {path}: {failure}"
        time.sleep(0.2)
