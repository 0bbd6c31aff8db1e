"""A gRPC client of the tests' own, with the messages of the private pool, and requests as such clients make them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import grpc
import httpx
import numpy as np

from gateway.grpc_services.messages import Fields, message
from gateway.grpc_services.tensor_contents import CONTENTS
from model_store.signature import Tensor
from tests.open_inference_kit import datatype_of, from_bytes, raw

OPEN_INFERENCE = "inference.GRPCInferenceService"
SECONDS = 30

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answered:
    """A call's answer, and what came beside it."""

    message: Fields
    trailers: Mapping[str, str]


class Refused(Exception):
    """A call that failed: its code's name, its text, and what came beside them."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(f"{error.code().name}: {error.details()}")
        self.code: str = error.code().name
        self.text: str = error.details() or ""
        self.trailers = dict(error.trailing_metadata() or ())


class GrpcCaller:
    """Calls one server on a connection of its own, with one token or none."""

    def __init__(self, channel: grpc.Channel, token: str | None) -> None:
        self.channel = channel
        self.metadata = [] if token is None else [("authorization", f"Bearer {token}")]

    def call(
        self,
        name: str,
        request: Fields = None,
        *metadata: tuple[str, str],
        service: str = OPEN_INFERENCE,
        seconds: float = SECONDS,
    ) -> Answered:
        """One call by the method's name; raises Refused."""
        package = service.rpartition(".")[0]
        request = message(f"{package}.{name}Request")() if request is None else request
        made = self.channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=lambda one: one.SerializeToString(),
            response_deserializer=message(f"{package}.{name}Response").FromString,
        )
        try:
            answer, ended = made.with_call(request, metadata=[*self.metadata, *metadata], timeout=seconds)
        except grpc.RpcError as error:
            raise Refused(error) from None
        return Answered(answer, dict(ended.trailing_metadata()))

    def send(self, method: str, data: bytes, *metadata: tuple[str, str]) -> bytes:
        """One call with bytes for messages; raises Refused."""
        try:
            found: bytes = self.channel.unary_unary(method)(data, metadata=[*self.metadata, *metadata], timeout=SECONDS)
        except grpc.RpcError as error:
            raise Refused(error) from None
        return found

    def infer(self, model: str, tensors: Mapping[str, Tensor], *metadata: tuple[str, str], **more: object) -> Answered:
        return self.call("ModelInfer", infer_request(model, tensors, **more), *metadata)


@contextlib.contextmanager
def connected(
    address: str, token: str | None = None, credentials: grpc.ChannelCredentials | None = None, **options: int
) -> Iterator[GrpcCaller]:
    """A connection of its own; `options` are gRPC's, dots written as two underscores."""
    chosen = [(name.replace("__", "."), value) for name, value in options.items()]
    # Channels to one address share a connection otherwise.
    chosen.append(("grpc.use_local_subchannel_pool", 1))
    if credentials is None:
        channel = grpc.insecure_channel(address, chosen)
    else:
        channel = grpc.secure_channel(address, credentials, chosen)
    try:
        yield GrpcCaller(channel, token)
    finally:
        channel.close()


def token_of(caller: httpx.Client) -> str:
    """The bearer token that an HTTP client sends."""
    return str(caller.headers["authorization"]).removeprefix("Bearer ")


def infer_request(model: str, tensors: Mapping[str, Tensor], *, typed: bool = False, **more: object) -> Fields:
    """A request for a model's inference, its tensors raw unless they are to be typed."""
    request: Fields = message("inference.ModelInferRequest")(model_name=model, **more)
    for name, tensor in tensors.items():
        made = request.inputs.add(name=name, datatype=datatype_of(tensor), shape=tensor.shape)
        if typed:
            getattr(made.contents, CONTENTS[made.datatype].field).extend(tensor.reshape(-1).tolist())
        else:
            request.raw_input_contents.append(raw(tensor))
    return request


def outputs_of(answer: Fields) -> dict[str, Tensor]:
    """The outputs of an answer, whichever way they came."""
    found = {}
    for place, output in enumerate(answer.outputs):
        described = {"datatype": output.datatype, "shape": list(output.shape)}
        if answer.raw_output_contents:
            assert not output.HasField("contents")
            found[output.name] = from_bytes(answer.raw_output_contents[place], described)
            continue
        values = list(getattr(output.contents, CONTENTS[output.datatype].field))
        if output.datatype == "BYTES":
            strings = np.empty(len(values), object)
            strings[:] = values
            found[output.name] = strings.reshape(output.shape)
        else:
            dtype = CONTENTS[output.datatype].dtype if output.datatype != "BOOL" else "bool"
            found[output.name] = np.array(values, dtype).reshape(output.shape)
    return found
