"""The bounds of the gRPC server: what one caller costs the others, however it behaves."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.grpc_services import listening, methods, outer_connections
from gateway.grpc_services.failures import CallFailed
from gateway.grpc_services.messages import message
from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.grpc_gateway import LIMIT_BYTES, ZEROS, address, code_of, grpc_gateway, token_for
from tests.grpc_kit import OPEN_INFERENCE, GrpcCaller, Refused, connected, infer_request
from tests.live_gateway import LiveGateway, eventually, live_gateway

REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("bounds")
    with grpc_gateway(folder, redis_server.url, grpc_calls=20, grpc_calls_per_client=10) as made:
        yield made


@pytest.fixture(scope="module")
def token(gateway: LiveGateway) -> str:
    """Of a client that may do everything with `digits` and `long`."""
    return token_for(gateway, "digits", "long")


@pytest.fixture
def caller(gateway: LiveGateway, token: str) -> Iterator[GrpcCaller]:
    with connected(address(gateway), token) as made:
        yield made


@pytest.fixture
def stranger(gateway: LiveGateway) -> Iterator[GrpcCaller]:
    with connected(address(gateway)) as made:
        yield made


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip], ids=["plain", "packed"]
)
def test_a_message_over_the_limit_is_refused_however_small_it_is_packed(
    gateway: LiveGateway, token: str, compression: grpc.Compression
):
    with connected(address(gateway), token, grpc__default_compression_algorithm=compression.value) as other:
        with pytest.raises(Refused) as caught:
            other.send(f"/{OPEN_INFERENCE}/ModelInfer", bytes(1024**2))
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        assert code_of(other, "ModelInfer", infer_request("absent", {"image": ZEROS})) == "NOT_FOUND"


def test_small_numbers_that_make_a_large_tensor_are_refused(caller: GrpcCaller):
    request = infer_request("digits", {"n": np.zeros(LIMIT_BYTES // 8 + 1, np.int64)}, typed=True)
    assert request.ByteSize() < LIMIT_BYTES
    with pytest.raises(Refused) as caught:
        caller.call("ModelInfer", request)
    assert (caught.value.code, caught.value.text) == (
        "RESOURCE_EXHAUSTED",
        f"the tensors are larger than {LIMIT_BYTES} bytes",
    )


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        # HTTP/2's own first words, and then a frame that claims 16 MiB.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff\xff\xff\x04\x00\x00\x00\x00\x00" + bytes(100_000),
    ],
    ids=["http1", "tls", "frames"],
)
def test_garbage_ends_its_connection_and_no_other(gateway: LiveGateway, stranger: GrpcCaller, garbage: bytes):
    assert stranger.call("ServerLive").message.live
    port = gateway.parts.settings.grpc_port
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(garbage)
        while connection.recv(65536):
            continue
    assert stranger.call("ServerLive").message.live


def test_a_client_has_its_share_of_calls_and_leaves_others_theirs(gateway: LiveGateway, caller: GrpcCaller):
    request = infer_request("digits", {"image": ZEROS}).SerializeToString()
    call = caller.channel.unary_unary(f"/{OPEN_INFERENCE}/ModelInfer")
    # Nobody answers them: they wait.
    opened = [call.future(request, metadata=caller.metadata, timeout=60) for _ in range(15)]
    eventually(lambda: sum(one.done() for one in opened) >= 5)
    refused = [one for one in opened if one.done()]
    assert {(one.code(), one.details()) for one in refused} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many of your calls are under way")
    }
    assert len(refused) == 5
    with connected(address(gateway), token_for(gateway, "digits")) as other:
        assert other.call("ModelReady", message("inference.ModelReadyRequest")(name="digits")).message.ready
        # All of the server's, however many there are to share them.
        more = [
            other.channel.unary_unary(f"/{OPEN_INFERENCE}/ModelInfer").future(request, metadata=other.metadata)
            for _ in range(10)
        ]
        eventually(lambda: code_or_none(caller) == "RESOURCE_EXHAUSTED")
        for one in (*opened, *more):
            one.cancel()
        eventually(lambda: code_or_none(caller) is None)


def code_or_none(caller: GrpcCaller) -> str | None:
    """With which code the server refuses to say that it lives, if it does."""
    try:
        caller.call("ServerLive")
    except Refused as refused:
        return refused.code
    return None


def test_watchers_leave_room_for_callers(stranger: GrpcCaller, caller: GrpcCaller):
    watch = stranger.channel.unary_stream(
        "/grpc.health.v1.Health/Watch", request_serializer=health_pb2.HealthCheckRequest.SerializeToString
    )
    watching = [watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(15)]
    eventually(lambda: sum(one.done() for one in watching) == 5)
    assert code_or_none(stranger) == "RESOURCE_EXHAUSTED"
    assert caller.call("ServerMetadata").message.name == "sluice"
    for one in watching:
        one.cancel()
    eventually(lambda: code_or_none(stranger) is None)


def test_a_message_of_a_stranger_is_short(stranger: GrpcCaller):
    with pytest.raises(Refused) as caught:
        stranger.send(f"/{OPEN_INFERENCE}/ServerLive", bytes(65 * 1024))
    assert (caught.value.code, caught.value.text) == (
        "RESOURCE_EXHAUSTED",
        "the message is larger than 65536 bytes",
    )


def test_strangers_do_not_fill_the_memory(gateway: LiveGateway, token: str, monkeypatch: pytest.MonkeyPatch):
    # More than what gRPC lets come of a message before anybody reads it.
    monkeypatch.setattr(outer_connections, "STRANGERS_BYTES", 100_000)
    monkeypatch.setattr(outer_connections, "STRANGERS_SECONDS", 0.2)
    with connected(address(gateway)) as stranger:
        with pytest.raises(Refused) as caught:
            send_often(stranger, "ServerLive")
        assert caught.value.code == "UNAVAILABLE"
    with connected(address(gateway), token) as known:
        send_often(known, "ServerMetadata")


def test_a_first_message_may_come_before_its_token_is_read(
    gateway: LiveGateway, token: str, monkeypatch: pytest.MonkeyPatch
):
    # A token, but not the message behind it.
    monkeypatch.setattr(outer_connections, "STRANGERS_BYTES", 4000)
    with connected(address(gateway), token) as known:
        send_often(known, "ServerMetadata")


def send_often(caller: GrpcCaller, method: str) -> None:
    # Five messages with a field that nobody knows, of 40,000 bytes.
    for _ in range(5):
        caller.send(f"/{OPEN_INFERENCE}/{method}", b"\xfa\x01" + b"\xc0\xb8\x02" + bytes(40_000))


def test_a_call_that_fails_leaves_nothing_behind(caller: GrpcCaller):
    def kept() -> list[CallFailed]:
        return [one for one in gc.get_objects() if isinstance(one, CallFailed) and one.__traceback__ is not None]

    gc.collect()
    gc.disable()
    try:
        assert code_of(caller, "ModelInfer", infer_request("absent", {"image": ZEROS})) == "NOT_FOUND"
        eventually(lambda: not kept())
    finally:
        gc.enable()


def test_a_message_that_does_not_come_ends_its_call(caller: GrpcCaller, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(methods, "READ_SECONDS", 0.2)
    silent = caller.channel.stream_unary(f"/{OPEN_INFERENCE}/ModelInfer")
    ended = threading.Event()
    with pytest.raises(grpc.RpcError) as caught:
        silent(withheld(ended), metadata=caller.metadata, timeout=60)
    ended.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details() == "the message comes too slowly"


def withheld(until: threading.Event) -> Iterator[bytes]:
    """A message that does not come while anybody waits for it."""
    until.wait(60)
    yield b""


@pytest.mark.parametrize("method", [f"/{OPEN_INFERENCE}/ModelMetadata", REFLECTION], ids=["message", "stream"])
def test_who_does_not_take_an_answer_loses_the_connection(
    gateway: LiveGateway, token: str, method: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(methods, "WRITE_SECONDS", 0.3)
    if method == REFLECTION:
        asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=OPEN_INFERENCE)] * 100
    else:
        asked = [message("inference.ModelMetadataRequest")(name="long")]
    with connected(address(gateway), token, grpc__http2__bdp_probe=0) as greedy:
        call = greedy.channel.stream_stream(method, request_serializer=lambda one: one.SerializeToString())
        answers = call(iter(asked), metadata=greedy.metadata)
        # Waits for the end, and takes no answer meanwhile.
        answers.trailing_metadata()
        assert answers.code() is grpc.StatusCode.UNAVAILABLE
    with connected(address(gateway)) as other:
        assert other.call("ServerLive").message.live


def test_a_connection_that_says_nothing_is_closed(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 1.5)
    port = free_port()
    with (
        live_gateway(
            tmp_path, redis_url=redis_server.url, key_prefix="grpc-idle", grpc_port=port, connections_per_address=2
        ),
        connected(f"127.0.0.1:{port}") as first,
    ):
        assert first.call("ServerLive").message.live
        with socket.create_connection(("127.0.0.1", port), 20) as silent:
            # One more than an address may have is not even heard.
            with socket.create_connection(("127.0.0.1", port), 20) as third:
                assert third.recv(1) == b""
            silent.settimeout(20)
            while silent.recv(65536):
                continue
