"""A real S3-protocol server in an environment of its own, with a way to it that can be made to fail."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from model_store.artifacts import Artifacts
from model_store.settings import StoreSettings
from sluice.listening_ports import free_port
from tests.chaos.proxy import Mode, Proxy, to_port
from tests.environments import ROOT, install

BUCKET = "models"
START_SECONDS = 60
REQUIREMENTS = Path(__file__).resolve().parent / "s3_server" / "requirements.txt"
CREDENTIALS = {"store_access_key": "tests", "store_secret_key": "not-a-secret", "store_region": "us-east-1"}


@dataclass(frozen=True)
class S3Server:
    """The server's address, and the same through a proxy that breaks connections when it is told to."""

    direct: str
    endpoint: str
    proxy: Proxy

    def settings(self, folder: Path, prefix: str, **more: object) -> dict[str, object]:
        """Settings of a store in the bucket, whose local folder is `folder`."""
        place = {"store_dir": folder, "store_url": f"s3://{BUCKET}/{prefix}", "store_endpoint": self.endpoint}
        return {**place, **CREDENTIALS, "store_seconds": 15.0, **more}

    def artifacts(self, folder: Path, prefix: str, **more: object) -> Artifacts:
        """What one machine has of the store."""
        return Artifacts.of(StoreSettings(**self.settings(folder, prefix, **more)))

    @contextlib.contextmanager
    def failing(self, mode: Mode) -> Iterator[None]:
        """The way to the server behaves so for the block."""
        self.proxy.set(mode)
        try:
            yield
        finally:
            self.proxy.set(Mode.PASS)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """The server with an empty bucket; what it keeps is in memory."""
    python = install(REQUIREMENTS, ROOT / "build" / "s3-server")
    port, near = free_port(), free_port()
    with (folder / "s3-server.log").open("wb") as log:
        server = subprocess.Popen(
            [python.with_name("moto_server"), "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
    proxy = Proxy(to_port(port), delay_seconds=0.05)
    proxy.listen(port=near)
    direct = f"http://127.0.0.1:{port}"
    try:
        _make_bucket(server, direct)
        yield S3Server(direct, f"http://127.0.0.1:{near}", proxy)
    finally:
        proxy.close()
        server.terminate()
        server.wait(10)


def _make_bucket(server: subprocess.Popen[bytes], url: str) -> None:
    # Signatures are not looked at, only which service they are for.
    headers = {"authorization": "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/s3/aws4_request"}
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.put(f"{url}/{BUCKET}", headers=headers, timeout=5).raise_for_status()
            return
        except httpx.TransportError:
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)


def settings_for(endpoint: str, **more: object) -> StoreSettings:
    place = {"store_url": "s3://models/full", "store_endpoint": endpoint, "store_seconds": 15.0}
    return StoreSettings(**{**place, **CREDENTIALS, **more})


class refusing:  # noqa: N801 - read as a verb where it is used
    """A server that answers everything with one error of S3's."""

    def __init__(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # which answers `Expect: 100-continue`

            def handle_any(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_POST = handle_any  # noqa: N815 - names of http.server's

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
