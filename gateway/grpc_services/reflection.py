"""Reflection: what services there are and what their messages look like, for grpcurl and its like.

Tools ask `v1` first, and those that are older `v1alpha`: the two differ in the package's name alone. All is found in
the pool of our own (messages.py), to which the files of health and of reflection itself are added here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.grpc_services.calls import Call
from gateway.grpc_services.messages import pool
from gateway.grpc_services.rpcs import PUBLIC, Service, StreamRpc

OLD = "grpc.reflection.v1alpha"
NEW = "grpc.reflection.v1"
SERVICE = "ServerReflection"
IDLE_SECONDS = 60.0


def services(described: tuple[Service, ...]) -> tuple[Service, ...]:
    """The two reflection services, which describe the others and themselves."""
    names = [f"{package}.{SERVICE}" for package in (OLD, NEW)]
    found = reflection.aio.ReflectionServicer([*(service.name for service in described), *names], _complete_pool())

    def answers(_: Call, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        made: AsyncGenerator[Any, None] = found.ServerReflectionInfo(requests, None)
        return made

    rpc = StreamRpc(
        "ServerReflectionInfo", reflection_pb2.ServerReflectionRequest, PUBLIC, answers, idle_seconds=IDLE_SECONDS
    )
    return tuple(Service(name, (rpc,)) for name in names)


@cache
def _complete_pool() -> descriptor_pool.DescriptorPool:
    made = pool()
    for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        made.AddSerializedFile(file.serialized_pb)
    made.AddSerializedFile(_renamed(reflection_pb2.DESCRIPTOR.serialized_pb))
    return made


def _renamed(old: bytes) -> bytes:
    """The file of `v1alpha` as that of `v1`."""
    file = descriptor_pb2.FileDescriptorProto.FromString(old)
    file.name = file.name.replace("v1alpha", "v1")
    file.package = NEW
    for message in file.message_type:
        # Setting an empty name would make a message of a number.
        for field in (field for field in message.field if field.type_name):
            field.type_name = field.type_name.replace(f".{OLD}.", f".{NEW}.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(f".{OLD}.", f".{NEW}.")
        method.output_type = method.output_type.replace(f".{OLD}.", f".{NEW}.")
    renamed: bytes = file.SerializeToString()
    return renamed
