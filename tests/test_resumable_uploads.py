"""Uploads in pieces: over broken connections, of two requests at once, and what is left of those given up."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select, update

from auth.grants import ADMINISTRATION, GrantSpec, set_grants
from auth.scopes import Scope
from model_store import partial_uploads
from model_store.database import transaction
from model_store.partial_uploads import MOST_UPLOADS, ModelUpload
from model_store.tables import Version
from sluice.client import Client, Refused
from tests.live_gateway import KERAS, eventually
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway
from workers.files.keeping import sweep_files

MIB = 1024 * 1024
FILE = KERAS + os.urandom(3 * MIB)
LIMIT = 64 * MIB


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway"), upload_limit_bytes=LIMIT) as made:
        yield made


def client(gateway: QuietGateway, name: str) -> httpx.Client:
    client_id, secret = gateway.client(name, [Scope.MODELS_READ, Scope.MODELS_WRITE])
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, client_id, [GrantSpec("*", actions=ADMINISTRATION)])
    gateway.parts.snapshot.refresh()
    return httpx.Client(base_url=gateway.http.base_url, headers=bearer(gateway.token(client_id, secret)), timeout=30)


@pytest.fixture
def admin(gateway: QuietGateway, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with client(gateway, request.node.name[:64]) as http:
        yield http


def begin(admin: httpx.Client, model: str, size: int = len(FILE)) -> str:
    answer = admin.post(f"/admin/models/{model}/uploads", json={"size_bytes": size})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def send(admin: httpx.Client, place: str, first: int, last: int, size: int = len(FILE)) -> httpx.Response:
    headers = {"content-range": f"bytes {first}-{last}/{size}"}
    return admin.put(place, content=FILE[first : last + 1], headers=headers)


def asked(admin: httpx.Client, place: str, size: int = len(FILE)) -> httpx.Response:
    return admin.put(place, headers={"content-range": f"bytes */{size}"})


def versions(gateway: QuietGateway, model: str) -> list[str]:
    with transaction(gateway.parts.sessions, write=False) as session:
        return list(session.scalars(select(Version.digest).where(Version.model == model)))


def files(gateway: QuietGateway) -> list[Path]:
    return [path for path in (gateway.parts.artifacts.root / "files").rglob("*") if path.is_file()]


def test_a_file_in_pieces_becomes_a_version_with_its_last_one_and_not_before(
    gateway: QuietGateway, admin: httpx.Client
):
    place = begin(admin, "pieces")
    assert asked(admin, place).headers.get("range") is None
    first = send(admin, place, 0, MIB + 99)
    assert (first.status_code, first.headers["range"]) == (308, f"bytes=0-{MIB + 99}")
    assert first.json()["received_bytes"] == MIB + 100
    assert versions(gateway, "pieces") == [], "nothing half-written is ever visible"

    last = send(admin, place, MIB + 100, len(FILE) - 1)
    assert last.status_code == 202, last.text
    assert last.headers["location"] == "/admin/models/pieces/versions/1"
    digest = hashlib.sha256(FILE).hexdigest()
    assert versions(gateway, "pieces") == [digest]
    with gateway.parts.artifacts.opened(digest) as path:
        assert path.read_bytes() == FILE
    upload_id = place.rpartition("/")[2]
    assert not [path for path in files(gateway) if path.name.startswith(upload_id)], "pieces are no longer needed"
    # whoever did not get the last answer asks again
    again = asked(admin, place)
    assert (again.status_code, again.json()["version"]) == (200, 1)


def test_what_came_before_a_connection_broke_is_kept(gateway: QuietGateway, admin: httpx.Client):
    # given a connection that breaks within the last megabyte
    place = begin(admin, "broken")
    url = urlsplit(str(admin.base_url))
    with socket.create_connection((url.hostname, url.port)) as wire:
        head = f"PUT {place} HTTP/1.1\r\nhost: x\r\ncontent-range: bytes 0-{len(FILE) - 1}/{len(FILE)}\r\n"
        head += f"content-length: {len(FILE)}\r\nauthorization: {admin.headers['authorization']}\r\n\r\n"
        wire.sendall(head.encode() + FILE[: len(FILE) - 1000])
    # then the whole megabytes before it are kept
    eventually(lambda: "range" in asked(admin, place).headers)
    kept = int(asked(admin, place).headers["range"].partition("-")[2]) + 1
    assert MIB <= kept < len(FILE)
    # and the rest makes it whole
    assert send(admin, place, kept, len(FILE) - 1).status_code == 202
    assert versions(gateway, "broken") == [hashlib.sha256(FILE).hexdigest()]


def test_the_same_file_again_is_the_version_that_it_is(gateway: QuietGateway, admin: httpx.Client):
    for status in (202, 200):
        answer = send(admin, begin(admin, "again"), 0, len(FILE) - 1)
        assert (answer.status_code, answer.json()["version"]) == (status, 1)
    assert len(versions(gateway, "again")) == 1


def test_a_piece_that_is_not_the_next_one_is_refused_and_changes_nothing(admin: httpx.Client):
    place = begin(admin, "order")
    send(admin, place, 0, 99)
    for first, last, size in ((0, 199, len(FILE)), (200, 299, len(FILE)), (100, len(FILE), len(FILE)), (100, 199, 5)):
        answer = send(admin, place, first, last, size)
        assert (answer.status_code, answer.json()["code"]) == (416, "range_invalid"), (first, last, size)
    for header in ("", "bytes 1-2", "bytes a-b/c", f"bytes {'9' * 30}-1/2", "items 0-1/2"):
        answer = admin.put(place, content=b"x", headers={"content-range": header})
        assert answer.status_code == 416, header
    longer = admin.put(place, content=b"x" * 50, headers={"content-range": f"bytes 100-101/{len(FILE)}"})
    assert longer.status_code == 416
    assert admin.get(place).json()["received_bytes"] == 100


def test_of_two_that_go_on_with_one_upload_only_the_later_is_written_down(gateway: QuietGateway, admin: httpx.Client):
    place = begin(admin, "twice")
    upload_id, sessions = place.rpartition("/")[2], gateway.parts.sessions
    with transaction(sessions) as session:
        row = session.get(ModelUpload, upload_id)
        assert row is not None
        earlier = partial_uploads.take_on(session, upload_id, "twice", row.client_id)
    send(admin, place, 0, 99)
    with pytest.raises(partial_uploads.UploadOvertaken), transaction(sessions) as session:
        partial_uploads.count(session, earlier, [])
    assert admin.get(place).json()["received_bytes"] == 100


def test_what_an_overtaken_request_wrote_does_not_stay_in_the_store(gateway: QuietGateway, admin: httpx.Client):
    # given a request that has written a megabyte, and one that goes on with the same upload meanwhile
    place = begin(admin, "junk")
    upload_id, url = place.rpartition("/")[2], urlsplit(str(admin.base_url))
    with socket.create_connection((url.hostname, url.port)) as wire:
        head = f"PUT {place} HTTP/1.1\r\nhost: x\r\ncontent-range: bytes 0-{len(FILE) - 1}/{len(FILE)}\r\n"
        head += f"content-length: {len(FILE)}\r\nauthorization: {admin.headers['authorization']}\r\n\r\n"
        wire.sendall(head.encode() + FILE[: 2 * MIB])
        eventually(lambda: any(path.stat().st_size > MIB for path in parts_of(gateway, upload_id)))
        assert send(admin, place, 0, 99).status_code == 308
    # when the first one ends, its part goes
    eventually(lambda: [path.name for path in parts_of(gateway, upload_id)] == [f"{upload_id}.2"])
    # and so does one of a request that brought nothing
    assert admin.put(place, headers={"content-range": f"bytes 100-199/{len(FILE)}"}).status_code == 308
    assert [path.name for path in parts_of(gateway, upload_id)] == [f"{upload_id}.2"]
    assert admin.get(place).json()["received_bytes"] == 100


def parts_of(gateway: QuietGateway, upload_id: str) -> list[Path]:
    return [path for path in files(gateway) if path.name.startswith(upload_id)]


def test_a_whole_file_is_put_together_by_one_request_at_a_time(gateway: QuietGateway, admin: httpx.Client):
    place = begin(admin, "whole")
    with gateway.parts.assembling.one(place.rpartition("/")[2]):
        for answer in (send(admin, place, 0, len(FILE) - 1), asked(admin, place)):
            assert (answer.status_code, answer.json()["code"]) == (503, "upload_busy")
            assert answer.headers["retry-after"] == "1"
        assert versions(gateway, "whole") == []
    assert asked(admin, place).status_code == 202
    assert len(versions(gateway, "whole")) == 1


def test_an_upload_is_nobody_elses(gateway: QuietGateway, admin: httpx.Client):
    place = begin(admin, "mine")
    with client(gateway, "another") as other:
        for answer in (other.get(place), asked(other, place), other.delete(place)):
            assert (answer.status_code, answer.json()["code"]) == (404, "upload_not_found")
    assert admin.get(place.replace("/mine/", "/other/")).status_code == 404


def test_what_no_model_could_be_is_refused_early(admin: httpx.Client):
    place = begin(admin, "text", 10)
    answer = admin.put(place, content=b"not a file", headers={"content-range": "bytes 0-9/10"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")
    too_large = admin.post("/admin/models/text/uploads", json={"size_bytes": LIMIT + 1})
    assert (too_large.status_code, too_large.json()["code"]) == (413, "artifact_too_large")
    for body in ({"size_bytes": 0}, {"size_bytes": "1"}, {}, {"size_bytes": 1, "name": "x"}):
        assert admin.post("/admin/models/text/uploads", json=body).status_code == 422
    assert admin.post("/admin/models/a b/uploads", json={"size_bytes": 1}).status_code == 422


def test_a_client_has_only_so_many_unfinished_uploads(admin: httpx.Client):
    places = [begin(admin, "many") for _ in range(MOST_UPLOADS)]
    refused = admin.post("/admin/models/many/uploads", json={"size_bytes": 1})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_uploads")
    assert admin.delete(places[0]).status_code == 204
    begin(admin, "many")


def test_uploads_that_were_given_up_leave_nothing(gateway: QuietGateway, admin: httpx.Client):
    # given one that is deleted, one that expires, and one that is still wanted
    places = [begin(admin, "given-up") for _ in range(3)]
    for place in places:
        send(admin, place, 0, 99)
    ids = [place.rpartition("/")[2] for place in places]
    assert admin.delete(places[0]).status_code == 204
    with transaction(gateway.parts.sessions) as session:
        session.execute(update(ModelUpload).where(ModelUpload.id == ids[1]).values(expires_at=1))
    assert admin.get(places[1]).status_code == 404
    # when the store is swept, however old its files are
    assert partial_uploads.purge(gateway.parts.sessions, gateway.parts.artifacts) >= 1
    for path in files(gateway):
        os.utime(path, (0, 0))
    with transaction(gateway.parts.sessions) as session:
        sweep_files(session, gateway.parts.artifacts)
    # then the pieces of the one that is wanted are there
    assert [held in {path.name.partition(".")[0] for path in files(gateway)} for held in ids] == [False, False, True]
    assert send(admin, places[2], 100, len(FILE) - 1).status_code == 202


class Cutting:
    """A way to the gateway that breaks its first `cuts` connections after so many bytes from the client."""

    def __init__(self, url: str, cuts: int, after_bytes: int) -> None:
        target = urlsplit(url)
        self._target = (str(target.hostname), int(target.port or 0))
        self._cuts, self._after_bytes = cuts, after_bytes
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.broken = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = self._server.accept()
                threading.Thread(target=self._carry, args=(wire,), daemon=True).start()

    def _carry(self, wire: socket.socket) -> None:
        with wire, socket.create_connection(self._target) as onward:
            threading.Thread(target=self._back, args=(onward, wire), daemon=True).start()
            carried = 0
            with contextlib.suppress(OSError):
                while data := wire.recv(65536):
                    onward.sendall(data)
                    carried += len(data)
                    if self.broken < self._cuts and carried > self._after_bytes:
                        self.broken += 1
                        # Closing alone would leave it open for as long as the other thread reads.
                        onward.shutdown(socket.SHUT_RDWR)
                        return

    def _back(self, onward: socket.socket, wire: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := onward.recv(65536):
                wire.sendall(data)

    def close(self) -> None:
        self._server.close()


def test_the_client_goes_on_by_itself_where_its_connections_break(gateway: QuietGateway, tmp_path: Path):
    # given a file of 10 MiB, and connections of which the first two break within it
    file = tmp_path / "large.keras"
    file.write_bytes(KERAS + os.urandom(10 * MIB))
    client_id, secret = gateway.client("pusher", [Scope.MODELS_READ, Scope.MODELS_WRITE])
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, client_id, [GrantSpec("*", actions=ADMINISTRATION)])
    gateway.parts.snapshot.refresh()
    way = Cutting(str(gateway.http.base_url), cuts=2, after_bytes=3 * MIB)
    seen: list[int] = []
    with contextlib.closing(way), Client(way.url, client_id, secret) as sluice:
        # when it is pushed
        answer = sluice.upload("pushed", file, progress=lambda sent, _: seen.append(sent))
    # then it is one whole version, of which not everything was sent three times
    assert (answer["version"], way.broken) == (1, 2)
    assert versions(gateway, "pushed") == [hashlib.sha256(file.read_bytes()).hexdigest()]
    assert seen[-1] == file.stat().st_size
    assert seen.count(min(seen)) == 1, "the beginning was sent once"


def test_the_client_says_what_is_wrong_with_a_large_file(gateway: QuietGateway, tmp_path: Path):
    file = tmp_path / "large.txt"
    file.write_bytes(b"x" * 9 * MIB)
    client_id, secret = gateway.client("writer", [Scope.MODELS_READ, Scope.MODELS_WRITE])
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, client_id, [GrantSpec("*", actions=ADMINISTRATION)])
    gateway.parts.snapshot.refresh()
    url = str(gateway.http.base_url)
    with Client(url, client_id, secret) as sluice, pytest.raises(Refused) as caught:
        sluice.upload("refused", file)
    assert caught.value.code == "unsupported_format"


def test_what_a_gateway_wrote_that_died_is_swept_and_never_read(gateway: QuietGateway, admin: httpx.Client):
    place = begin(admin, "died")
    stray = gateway.parts.artifacts.root / "files" / "up_00000000000000000000000000000000.1"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x")
    os.utime(stray, (0, 0))
    with transaction(gateway.parts.sessions) as session:
        assert sweep_files(session, gateway.parts.artifacts) == 1
    assert admin.delete(place).status_code == 204


def test_where_uploads_are_signed_those_in_pieces_are_too(tmp_path: Path):
    with quiet_gateway(tmp_path, upload_signatures="required") as gateway, client(gateway, "signer") as admin:
        unsigned = admin.post("/admin/models/signed/uploads", json={"size_bytes": len(FILE)})
        assert (unsigned.status_code, unsigned.json()["code"]) == (422, "signature_missing")
        # what is signed is the file: that is known, and asked about, once all of it is there
        begun = admin.post(
            "/admin/models/signed/uploads",
            json={"size_bytes": len(FILE)},
            headers={"sluice-signature": f"{'k' * 43}.{'A' * 86}"},
        )
        answer = send(admin, begun.headers["location"], 0, len(FILE) - 1)
        assert (answer.status_code, answer.json()["code"]) == (422, "signature_invalid")
        assert versions(gateway, "signed") == []
