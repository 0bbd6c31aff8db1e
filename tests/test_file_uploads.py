"""Uploads of files: what one client may keep, in bytes and in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from gateway import file_uploads
from tests.quiet_gateway import QuietGateway
from tests.submit_kit import MODEL, caller, submitting

ROW = b"[1.0,2.0]\n"
Send = Callable[[str, bytes], httpx.Response]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    with submitting(tmp_path, files_bytes=3 * len(ROW)) as made:
        yield made


@pytest.fixture
def send(gateway: QuietGateway) -> Send:
    """Sends a file as a client of this name."""
    known = {name: caller(gateway, name) for name in ("one", "other")}

    def post(name: str, data: bytes) -> httpx.Response:
        return gateway.http.post(f"/v1/models/{MODEL}:batch?format=jsonl", content=data, headers=known[name])

    return post


def stored(gateway: QuietGateway) -> int:
    return len(list((gateway.parts.artifacts.root / "files").glob("*")))


def test_files_of_a_client_are_bounded_in_bytes_and_a_refused_one_leaves_nothing(gateway: QuietGateway, send: Send):
    assert send("one", 2 * ROW).status_code == 202
    refused = send("one", 2 * ROW)
    assert (refused.status_code, stored(gateway)) == (413, 1)
    assert "more than 30 bytes" in refused.text
    assert [send(name, ROW).status_code for name in ("one", "one", "other")] == [202, 413, 202]


def test_files_of_a_client_are_bounded_in_number_however_small_they_are(
    gateway: QuietGateway, send: Send, monkeypatch: pytest.MonkeyPatch
):
    # A job has two: what was uploaded, and its result.
    monkeypatch.setattr(file_uploads, "MOST_FILES", 2)
    assert [send(name, b"1\n").status_code for name in ("one", "one", "other")] == [202, 413, 202]
    assert stored(gateway) == 2
