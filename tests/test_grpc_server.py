"""The gRPC server beside the HTTP server: who is let in, what it says of itself and of models, and what it survives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import sqlalchemy
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from auth import clients
from auth.grants import ADMINISTRATION, GrantSpec
from auth.scopes import Scope
from gateway.app import create_app
from gateway.grpc_services import health, messages
from gateway.grpc_services.calls import Application, headers_of
from gateway.grpc_services.listening import services
from gateway.grpc_services.messages import Fields, message
from gateway.grpc_services.rpcs import Service
from gateway.settings import GatewaySettings
from model_store.database import transaction
from sluice.listening_ports import free_port
from tests.compiled_protos import compiled, protos
from tests.conftest import RedisServer
from tests.grpc_gateway import ZEROS, address, code_of, grpc_gateway, token_for
from tests.grpc_kit import OPEN_INFERENCE, GrpcCaller, Refused, connected, infer_request, token_of
from tests.live_gateway import LiveGateway, eventually, live_gateway, upload
from tests.serving import client_id_of
from workers.tables import Job

REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
# Whoever asks after the health of a server has no token, and what reflection tells stands in public documents.
OPEN_TO_ALL = {
    "inference.GRPCInferenceService/ServerLive",
    "inference.GRPCInferenceService/ServerReady",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/List",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
}


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with grpc_gateway(tmp_path_factory.mktemp("server"), redis_server.url) as made:
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


def offered(folder: Path) -> tuple[Service, ...]:
    app = create_app(
        GatewaySettings(
            database_url=f"sqlite:///{folder / 'sluice.db'}",
            store_dir=folder / "store",
            keys_dir=folder / "keys",
            client_secret_key="k" * 32,
            master_key="m" * 43,
        )
    )
    return services(Application(app, "http"), app.state.parts, asyncio.Event())


def test_every_method_asks_for_a_scope_or_is_open_to_all_by_design(tmp_path: Path):
    found = {f"{service.name}/{rpc.name}": rpc.scopes for service in offered(tmp_path) for rpc in service.rpcs}
    assert f"{OPEN_INFERENCE}/ModelInfer" in found
    assert {name for name, scopes in found.items() if not scopes} == OPEN_TO_ALL
    assert all(isinstance(scope, Scope) for scopes in found.values() for scope in scopes)


def test_every_method_that_is_described_is_served_and_the_other_way_round(tmp_path: Path):
    for service in offered(tmp_path):
        described = messages.pool().FindServiceByName(service.name).methods
        assert {rpc.name for rpc in service.rpcs} == {method.name for method in described}, service.name


@pytest.mark.parametrize("proto", protos(), ids=lambda proto: proto.stem)
def test_the_compiled_form_is_that_of_the_proto(proto: Path):
    assert proto.with_suffix(".binpb").read_bytes() == compiled(proto)


def test_a_stranger_is_refused_whatever_it_sends(stranger: GrpcCaller, tmp_path: Path):
    closed = [f"/{service.name}/{rpc.name}" for service in offered(tmp_path) for rpc in service.rpcs if rpc.scopes]
    assert len(closed) > 10
    for method in closed:
        with pytest.raises(Refused) as caught:
            stranger.send(method, b"\xff\xff\xff")
        assert caught.value.code == "UNAUTHENTICATED", method
        assert caught.value.trailers["www-authenticate"].startswith("Bearer realm=")
        assert caught.value.trailers["x-request-id"]


def test_a_token_that_is_not_where_it_belongs_lets_nobody_in(
    stranger: GrpcCaller, token: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    places = [
        [("authorization", token)],
        [("authorization", f"Basic {token}")],
        [("access_token", token)],
        [("proxy-authorization", f"Bearer {token}")],
        [("cookie", f"__Host-session={token}")],
        [("authorization-bin", f"Bearer {token}".encode())],
    ]
    for metadata in places:
        assert code_of(stranger, "ServerMetadata", None, *metadata) == "UNAUTHENTICATED"
    twice = [("authorization", f"Bearer {token}")] * 2
    assert code_of(stranger, "ServerMetadata", None, *twice) == "INVALID_ARGUMENT"
    request = infer_request("digits", {"image": ZEROS})
    request.parameters["authorization"].string_param = f"Bearer {token}"
    assert code_of(stranger, "ModelInfer", request) == "UNAUTHENTICATED"
    assert token not in caplog.text
    assert token.rpartition(".")[2] not in caplog.text


def test_what_is_no_text_in_a_token_is_not_logged(gateway: LiveGateway, token: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{OPEN_INFERENCE}/ServerMetadata".encode()),
        (b":authority", b"sluice"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"authorization", f"Bearer {token}".encode() + b"\xff"),
    ]
    # RFC 7541, section 6.2.2: each field in full, to be remembered by nobody.
    block = b"".join(b"\x00" + b"".join(_length(text) + text for text in field) for field in fields)
    with socket.create_connection(("127.0.0.1", gateway.parts.settings.grpc_port), 20) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(1, 5, 1, block))
        received = b""
        while b"grpc-status" not in received:
            piece = connection.recv(65536)
            assert piece
            received += piece
    assert b"the access token is not valid" in received
    assert token not in caplog.text


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _length(text: bytes) -> bytes:
    # RFC 7541, section 5.1, with a prefix of seven bits.
    if len(text) < 127:
        return bytes([len(text)])
    rest, found = len(text) - 127, bytearray([127])
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*found, rest])


def test_values_that_http_would_not_take_are_left_out():
    sent = [("a", "b\r\nc: d"), ("b", "b\x00c"), ("c", "b\x7f"), ("d", "b\tc é"), ("e-bin", b"x"), ("f", "")]
    assert headers_of(sent) == [(b"d", b"b\tc \xe9"), (b"f", b"")]


def test_a_stream_ends_when_its_token_is_good_no_more(gateway: LiveGateway):
    with gateway.client([Scope.PREDICT]) as made:
        token, client = token_of(made), client_id_of(made)
    requests: queue.SimpleQueue[Fields] = queue.SimpleQueue()
    with connected(address(gateway), token) as leaving:
        stream = leaving.channel.stream_stream(
            f"/{OPEN_INFERENCE}/ModelStreamInfer",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=message("inference.ModelStreamInferResponse").FromString,
        )
        answers = stream(iter(requests.get, None), metadata=leaving.metadata, timeout=20)
        requests.put(infer_request("absent", {"image": ZEROS}))
        assert "absent" in next(answers).error_message
        with transaction(gateway.parts.sessions) as session:
            clients.set_disabled(session, client, True)
        gateway.parts.snapshot.refresh()
        requests.put(infer_request("absent", {"image": ZEROS}))
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        requests.put(None)


def test_a_token_without_the_scope_is_told_which_one_it_needs(gateway: LiveGateway):
    with gateway.client([Scope.JOBS]) as made:
        token = token_of(made)
    with connected(address(gateway), token) as other, pytest.raises(Refused) as caught:
        other.call("ModelMetadata")
    assert caught.value.code == "PERMISSION_DENIED"
    assert "models:read" in caught.value.text


def test_refused_calls_are_in_the_audit_log(gateway: LiveGateway, stranger: GrpcCaller):
    assert code_of(stranger, "RepositoryModelUnload") == "UNAUTHENTICATED"
    with gateway.client([Scope.AUDIT_READ]) as auditor:

        def entries() -> list[dict[str, object]]:
            asked = {"act": "repository_model_unload", "outcome": "refused"}
            found: list[dict[str, object]] = auditor.get("/admin/audit", params=asked).json()["entries"]
            return found

        eventually(lambda: bool(entries()))
        entry = entries()[0]
    assert (entry["reason"], entry["address"]) == ("token_missing", "127.0.0.1")
    assert entry["detail"] == {"route": f"POST /{OPEN_INFERENCE}/RepositoryModelUnload"}


def test_a_hidden_model_and_an_absent_one_are_answered_alike(gateway: LiveGateway):
    with connected(address(gateway), token_for(gateway)) as other:
        for name, field in (("ModelMetadata", "name"), ("ModelConfig", "name"), ("ModelInfer", "model_name")):
            told = []
            for model in ("digits", "absent"):
                with pytest.raises(Refused) as caught:
                    other.call(name, message(f"inference.{name}Request")(**{field: model}))
                told.append((caught.value.code, caught.value.text.replace(model, "?")))
            assert told[0] == told[1]
            assert told[0][0] == "NOT_FOUND"
        assert other.call("ModelReady", message("inference.ModelReadyRequest")(name="digits")).message.ready is False


def test_the_server_and_a_model_are_described_as_over_http(caller: GrpcCaller, stranger: GrpcCaller):
    assert stranger.call("ServerLive").message.live
    assert stranger.call("ServerReady").message.ready
    server = caller.call("ServerMetadata").message
    assert server.name == "sluice"
    assert "binary_tensor_data" in server.extensions
    found = caller.call("ModelMetadata", message("inference.ModelMetadataRequest")(name="digits")).message
    assert (found.name, list(found.versions), found.platform) == ("digits", ["1"], "sluice_model")
    described = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in (*found.inputs, *found.outputs)]
    assert described == [("image", "FP32", [-1, 28, 28]), ("digit", "FP32", [-1, 10])]
    ready = message("inference.ModelReadyRequest")
    assert caller.call("ModelReady", ready(name="digits", version="1")).message.ready
    assert not caller.call("ModelReady", ready(name="digits", version="2")).message.ready
    config = caller.call("ModelConfig", message("inference.ModelConfigRequest")(name="digits")).message.config
    assert config.max_batch_size > 0
    assert list(config.input[0].dims) == [28, 28]
    assert config.input[0].data_type == messages.enum_number("inference.DataType", "TYPE_FP32")
    statistics = message("inference.ModelStatisticsRequest")
    for request, models in ((statistics(name="digits", version="1"), ["digits"]), (statistics(), ["digits", "long"])):
        counted = caller.call("ModelStatistics", request).message.model_stats
        assert [(one.name, one.version) for one in counted] == [(model, "1") for model in models]


@pytest.mark.parametrize("field", ["model_name", "repository_name"], ids=["triton", "kserve"])
def test_a_model_leaves_service_whoever_s_message_it_is(gateway: LiveGateway, field: str):
    with connected(address(gateway), token_for(gateway, "moved")) as owner:
        unload = message("inference.RepositoryModelUnloadRequest")(**{field: "moved"})
        unloaded = owner.call("RepositoryModelUnload", unload).message
        assert (unloaded.model_name, unloaded.isUnloaded) == ("moved", True)
        gateway.parts.snapshot.refresh()
        found = owner.call("RepositoryIndex").message.models
        assert [(one.name, one.version) for one in found] == [("moved", "1")]
        assert found[0].state in ("UNLOADING", "UNAVAILABLE")
        assert not owner.call("RepositoryIndex", message("inference.RepositoryIndexRequest")(ready=True)).message.models
        load = message("inference.RepositoryModelLoadRequest")(**{field: "moved"})
        load.parameters["file:1/model.onnx"].bytes_param = b"onnx"
        assert code_of(owner, "RepositoryModelLoad", load) == "INVALID_ARGUMENT"


def test_health_follows_readiness_for_the_server_and_each_service(stranger: GrpcCaller):
    check = stranger.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    for name in ("", OPEN_INFERENCE, "tensorflow.serving.PredictionService"):
        assert check(health_pb2.HealthCheckRequest(service=name), timeout=20).status == health.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        check(health_pb2.HealthCheckRequest(service="nothing"), timeout=20)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_without_redis_health_says_so_and_who_watches_is_told_of_the_end(tmp_path: Path):
    port, redis = free_port(), RedisServer(tmp_path)
    redis.start()
    with connected(f"127.0.0.1:{port}") as stranger:
        with live_gateway(tmp_path, redis_url=redis.url, grpc_port=port):
            redis.kill()
            eventually(lambda: not stranger.call("ServerReady").message.ready)
            assert not stranger.call("ServerReady").message.ready
            watched = stranger.channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watched).status == health.NOT_SERVING
        # It ended in order, although the server had to.
        assert list(watched) == []


def test_a_call_under_way_is_answered_before_the_server_ends(tmp_path: Path, redis_server: RedisServer):
    port = free_port()
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(
            live_gateway(tmp_path, redis_url=redis_server.url, key_prefix="grpc-end", grpc_port=port)
        )
        with made.client([Scope.MODELS_WRITE], [GrantSpec("*", actions=ADMINISTRATION)]) as admin:
            assert upload(admin, "digits").status_code == 202
        made.make_available("digits", 1)
        with connected(f"127.0.0.1:{port}", token_for(made, "digits")) as caller:
            request = infer_request("digits", {"image": ZEROS}).SerializeToString()
            # Nobody runs the job: the answer comes when the wait is over.
            metadata = [*caller.metadata, ("prefer", "wait=1")]
            call = caller.channel.unary_unary(f"/{OPEN_INFERENCE}/ModelInfer")
            waiting = call.future(request, metadata=metadata, timeout=60)
            eventually(lambda: has_jobs(made))
            stack.close()
            answer = message("inference.ModelInferResponse").FromString(waiting.result())
    assert answer.parameters["sluice_job_id"].string_param


def has_jobs(gateway: LiveGateway) -> bool:
    with transaction(gateway.parts.sessions) as session:
        return bool(session.scalar(sqlalchemy.select(sqlalchemy.func.count(Job.id))))


def test_reflection_shows_services_and_messages_of_the_private_pool(stranger: GrpcCaller):
    found = ProtoReflectionDescriptorDatabase(stranger.channel)
    names = set(found.get_services())
    assert {OPEN_INFERENCE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= names
    for name in names:
        assert found.FindFileContainingSymbol(name).service
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest")
    newest = stranger.channel.stream_stream(
        REFLECTION,
        request_serializer=lambda one: one.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    assert next(newest(iter([asked]), timeout=20)).file_descriptor_response.file_descriptor_proto


def test_what_is_not_offered_is_unimplemented(caller: GrpcCaller):
    for method, told in (
        (f"/{OPEN_INFERENCE}/SystemSharedMemoryStatus", "does not offer"),
        ("/no.Service/Method", ""),
    ):
        with pytest.raises(Refused) as caught:
            caller.send(method, b"")
        assert caught.value.code == "UNIMPLEMENTED"
        assert told in caught.value.text


def test_a_message_that_is_none_is_refused(caller: GrpcCaller):
    with pytest.raises(Refused) as caught:
        caller.send(f"/{OPEN_INFERENCE}/ModelInfer", b"\xff\xff\xff")
    assert (caught.value.code, caught.value.text) == (
        "INVALID_ARGUMENT",
        "the message is no inference.ModelInferRequest",
    )
