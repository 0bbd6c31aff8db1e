"""The messages of the gRPC protocols, in a descriptor pool of their own.

TensorFlow's package, Triton's client and others register the same names in protobuf's default pool, and of two that
differ in a field the second cannot be imported. Here they stand apart, whatever else is loaded.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

# A message by its fields, which protobuf alone knows: its classes carry no annotations.
Fields = Any

COMPILED = ".binpb"


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """All files in `protos/`, by the forms that grpcio-tools made of them (tests/compiled_protos.py)."""
    made = descriptor_pool.DescriptorPool()
    for found in sorted(resources.files(__package__).joinpath("protos").iterdir(), key=lambda file: file.name):
        if found.name.endswith(COMPILED):
            for file in descriptor_pb2.FileDescriptorSet.FromString(found.read_bytes()).file:
                # A file that several import is added with each of them, and is the same each time.
                made.AddSerializedFile(file.SerializeToString())
    return made


@cache
def message(name: str) -> type[Message]:
    """The class of a message by its full name, such as `inference.ModelInferRequest`; raises KeyError."""
    found: type[Message] = message_factory.GetMessageClass(pool().FindMessageTypeByName(name))
    return found


@cache
def enum_number(name: str, value: str) -> int:
    """The number of an enum's value; raises KeyError."""
    found: Any = pool().FindEnumTypeByName(name)
    return int(found.values_by_name[value].number)
