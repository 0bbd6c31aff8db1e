"""The Open Inference Protocol over gRPC, with Triton's and KServe's extensions: `inference.GRPCInferenceService`.

Each method is the request of its REST counterpart (docs/http-api.md): the same rights, limits, versions and texts.
Sources: open_inference_grpc.proto of the Open Inference Protocol; grpc_service.proto of Triton.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
from google.protobuf import json_format

from auth.scopes import Scope
from gateway.grpc_services.calls import Application, Call
from gateway.grpc_services.failures import CallFailed, failure_of
from gateway.grpc_services.inference_messages import ModelInferResponse, body_of, response_of
from gateway.grpc_services.messages import Fields, message
from gateway.grpc_services.rewriting import Rewriting
from gateway.grpc_services.rpcs import PUBLIC, Answer, Rpc, Service, StreamRpc
from gateway.prediction_bodies import JSON
from model_store.errors import SluiceError
from model_store.names import NAME

SERVICE = "inference.GRPCInferenceService"
KNOWN = (Scope.MODELS_READ, Scope.PREDICT)
STREAM_IDLE_SECONDS = 300.0

_VERSION = re.compile("[0-9]{1,9}")


def service(application: Application, body_limit_bytes: int) -> Service:
    """The service, whose methods ask the application."""
    inference = Inference(application, body_limit_bytes)
    models = Models(application)
    repository = Repository(application)
    return Service(
        SERVICE,
        (
            _rpc("ServerLive", PUBLIC, models.server_live),
            _rpc("ServerReady", PUBLIC, models.server_ready),
            _rpc("ServerMetadata", KNOWN, models.server_metadata),
            _rpc("ModelReady", KNOWN, models.model_ready),
            _rpc("ModelMetadata", KNOWN, models.model_metadata),
            _rpc("ModelConfig", KNOWN, models.model_config),
            _rpc("ModelStatistics", KNOWN, models.model_statistics),
            _rpc("ModelInfer", (Scope.PREDICT,), inference.infer),
            StreamRpc(
                "ModelStreamInfer",
                message("inference.ModelInferRequest"),
                (Scope.PREDICT,),
                inference.stream,
                STREAM_IDLE_SECONDS,
            ),
            _rpc("RepositoryIndex", KNOWN, repository.index),
            _rpc("RepositoryModelLoad", (Scope.MODELS_WRITE,), repository.load),
            _rpc("RepositoryModelUnload", (Scope.MODELS_WRITE,), repository.unload),
        ),
    )


def _rpc(name: str, scopes: tuple[Scope, ...], answer: Answer) -> Rpc:
    return Rpc(name, message(f"inference.{name}Request"), scopes, answer)


class Inference:
    """ModelInfer and ModelStreamInfer."""

    def __init__(self, application: Application, body_limit_bytes: int) -> None:
        self._application = application
        self._limit_bytes = body_limit_bytes
        self._rewriting = Rewriting()

    async def infer(self, call: Call, request: Fields) -> Fields:
        path = f"{_model_path(request.model_name, request.model_version)}/infer"
        body, headers = await self._rewriting.of(request.ByteSize(), body_of, request, self._limit_bytes)
        reply = await self._application.ask(call, "POST", path, body, headers)
        return await self._rewriting.of(len(reply.body), response_of, reply, request)

    async def stream(self, call: Call, requests: AsyncIterator[Fields]) -> AsyncGenerator[Fields, None]:
        """One answer to each request, in their order; none that fails ends the stream while its token is good."""
        kind: Fields = message("inference.ModelStreamInferResponse")
        async for request in requests:
            try:
                yield kind(infer_response=await self.infer(call, request))
            except SluiceError as error:
                yield _failed(kind, failure_of(error), request)
            except CallFailed as failed:
                if failed.code is grpc.StatusCode.UNAUTHENTICATED:
                    raise
                yield _failed(kind, failed, request)


def _failed(kind: Fields, failed: CallFailed, request: Fields) -> Fields:
    # The id tells which of the requests it was.
    return kind(error_message=failed.message, infer_response=ModelInferResponse(id=request.id))


class Models:
    """The server and its models: alive, ready, described, counted."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def server_live(self, call: Call, _: Fields) -> Fields:
        reply = await self._application.ask(call, "GET", "/v2/health/live")
        return _filled("inference.ServerLiveResponse", reply.json())

    async def server_ready(self, call: Call, _: Fields) -> Fields:
        return await self._ready(call, "/v2/health/ready", "inference.ServerReadyResponse")

    async def model_ready(self, call: Call, request: Fields) -> Fields:
        """A model that is not there is not ready, as with Triton."""
        path = f"{_model_path(request.name, request.version)}/ready"
        return await self._ready(call, path, "inference.ModelReadyResponse")

    async def server_metadata(self, call: Call, _: Fields) -> Fields:
        reply = await self._application.ask(call, "GET", "/v2")
        return _filled("inference.ServerMetadataResponse", reply.json())

    async def model_metadata(self, call: Call, request: Fields) -> Fields:
        reply = await self._application.ask(call, "GET", _model_path(request.name, request.version))
        return _filled("inference.ModelMetadataResponse", reply.json())

    async def model_config(self, call: Call, request: Fields) -> Fields:
        path = f"{_model_path(request.name, request.version)}/config"
        reply = await self._application.ask(call, "GET", path)
        return _filled("inference.ModelConfigResponse", {"config": reply.json()})

    async def model_statistics(self, call: Call, request: Fields) -> Fields:
        """Those of all models where none is named."""
        base = _model_path(request.name, request.version) if request.name else "/v2/models"
        reply = await self._application.ask(call, "GET", f"{base}/stats")
        return _filled("inference.ModelStatisticsResponse", reply.json())

    async def _ready(self, call: Call, path: str, kind: str) -> Fields:
        try:
            await self._application.ask(call, "GET", path)
        except CallFailed as failed:
            if failed.code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
                raise
            return message(kind)(ready=False)
        return message(kind)(ready=True)


class Repository:
    """The repository extension. KServe's load and unload have the model's name where Triton's have the repository's."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def index(self, call: Call, request: Fields) -> Fields:
        body = json.dumps({"ready": request.ready}).encode()
        reply = await self._application.ask(call, "POST", "/v2/repository/index", body, [JSON])
        return _filled("inference.RepositoryIndexResponse", {"models": json.loads(reply.body)})

    async def load(self, call: Call, request: Fields) -> Fields:
        name = await self._move(call, request, "load")
        return message("inference.RepositoryModelLoadResponse")(model_name=name, isLoaded=True)

    async def unload(self, call: Call, request: Fields) -> Fields:
        name = await self._move(call, request, "unload")
        return message("inference.RepositoryModelUnloadResponse")(model_name=name, isUnloaded=True)

    async def _move(self, call: Call, request: Fields, verb: str) -> str:
        name = str(request.model_name or request.repository_name)
        body = json.dumps({"parameters": _repository_parameters(request.parameters)}).encode()
        await self._application.ask(call, "POST", f"/v2/repository/models/{_named(name)}/{verb}", body, [JSON])
        return name


def _repository_parameters(given: Fields) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        value = None if choice is None else getattr(parameter, choice)
        found[name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return found


def _model_path(name: str, version: str) -> str:
    """Raises CallFailed for a version that is no number, and for what no model is called."""
    if version and not _VERSION.fullmatch(version):
        raise CallFailed(grpc.StatusCode.INVALID_ARGUMENT, "model_version is the number of a version, or empty")
    path = f"/v2/models/{_named(name)}"
    return f"{path}/versions/{version}" if version else path


def _named(name: str) -> str:
    """The name as a part of a path, which it must not break out of."""
    if not NAME.fullmatch(name):
        raise CallFailed(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {name[:128]!r} is not found")
    return name


def _filled(kind: str, document: dict[str, object]) -> Fields:
    """A message with what a document says in its words; members that it has no field for are left out."""
    return json_format.ParseDict(document, message(kind)(), ignore_unknown_fields=True)
