"""Status and metadata of models as TensorFlow Serving answers them: proto3 JSON, int64 as text.

Sources: tensorflow_serving/apis/get_model_status.proto and get_model_metadata.proto; the golden files
half_plus_two_model_metadata.json there.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from model_store.catalog import CatalogVersion
from model_store.further_signatures import NO_FURTHER, FurtherSignatures
from model_store.signature import DEFAULT_NAME, Signature, TensorSpec
from model_store.tables import State
from model_store.tensors import element_type
from workers.protocols.example_results import class_outputs, value_output
from workers.protocols.signature_names import (
    CLASSIFICATION,
    CLASSIFY_METHOD,
    PREDICT_METHOD,
    REGRESS_METHOD,
    REGRESSION,
)

# The error codes of gRPC by those of preparations; whatever is not here was wrong with the upload.
ERROR_CODES = {
    "preparation_crashed": "INTERNAL",
    "lockdown_unavailable": "UNAVAILABLE",
    "runner_crashed": "INTERNAL",
    "runner_memory": "RESOURCE_EXHAUSTED",
    "runner_timeout": "DEADLINE_EXCEEDED",
}


# The example's signature: 28x28 pixels to a score for each digit.
DIGITS: JsonDict = {
    "inputs": {
        "image": {
            "dtype": "DT_FLOAT",
            "tensor_shape": {
                "dim": [{"size": "-1", "name": ""}, {"size": "28", "name": ""}, {"size": "28", "name": ""}],
                "unknown_rank": False,
            },
            "name": "serving_default_image:0",
        }
    },
    "outputs": {
        "digit": {
            "dtype": "DT_FLOAT",
            "tensor_shape": {
                "dim": [{"size": "-1", "name": ""}, {"size": "10", "name": ""}],
                "unknown_rank": False,
            },
            "name": "StatefulPartitionedCall:0",
        }
    },
}


class Status(BaseModel):
    """`OK`, or a gRPC error code with a message."""

    error_code: str
    error_message: str


class VersionStatus(BaseModel):
    """The state of one version."""

    version: str
    state: State
    status: Status


class ModelStatus(BaseModel):
    """TensorFlow Serving's status (`model_version_status`) and KServe's (`name`, `ready`) in one object."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "mnist",
                    "ready": True,
                    "model_version_status": [
                        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
                    ],
                }
            ]
        }
    )

    name: str
    ready: bool = Field(description="Whether one of these versions is AVAILABLE.")
    model_version_status: list[VersionStatus] = Field(description="The newest version first.")


class Dimension(BaseModel):
    """A size, -1 where it is free."""

    size: str
    name: str = ""


class TensorShape(BaseModel):
    """All dimensions, first the batch."""

    dim: list[Dimension]
    unknown_rank: bool = False


class TensorInfo(BaseModel):
    """One input or output."""

    dtype: str
    tensor_shape: TensorShape
    name: str


class SignatureDef(BaseModel):
    """Inputs and outputs by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    method_name: str = PREDICT_METHOD
    defaults: dict[str, str] = Field(default_factory=dict, description="Always empty: every input must be given.")


class SignatureDefMap(BaseModel):
    """The version's signatures by their names; the default has one more for each further method that it fits."""

    signature_def: dict[str, SignatureDef]


class Metadata(BaseModel):
    """What can be known of a version."""

    signature_def: SignatureDefMap


class ModelSpec(BaseModel):
    """Which version this is."""

    name: str
    signature_name: str = ""
    version: str


class ModelMetadata(BaseModel):
    """A version's signatures."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_spec": {"name": "mnist", "signature_name": "", "version": "1"},
                    "metadata": {
                        "signature_def": {
                            "signature_def": {
                                "serving_default": DIGITS | {"method_name": PREDICT_METHOD, "defaults": {}},
                                "classification": DIGITS | {"method_name": CLASSIFY_METHOD, "defaults": {}},
                            }
                        }
                    },
                }
            ]
        }
    )

    model_spec: ModelSpec
    metadata: Metadata


def status_of(name: str, versions: Sequence[CatalogVersion]) -> ModelStatus:
    """The status of these versions of a model."""
    return ModelStatus(
        name=name,
        ready=any(version.state is State.AVAILABLE for version in versions),
        model_version_status=[
            VersionStatus(version=str(version.number), state=version.state, status=_status(version))
            for version in sorted(versions, key=lambda version: version.number, reverse=True)
        ],
    )


def metadata_of(name: str, number: int, signature: Signature, further: FurtherSignatures = NO_FURTHER) -> ModelMetadata:
    """The metadata of an AVAILABLE version."""
    definition = _definition(signature, DEFAULT_NAME)
    named = {
        method_name: definition.model_copy(update={"method_name": method})
        for method_name, method in (_methods(signature) | dict.fromkeys(further.aliases, PREDICT_METHOD)).items()
    }
    # A signature's own name goes before what the default may be called as well.
    named |= {one.signature.name: _definition(one.signature, one.signature.name) for one in further.listed}
    return ModelMetadata(
        model_spec=ModelSpec(name=name, version=str(number)),
        metadata=Metadata(signature_def=SignatureDefMap(signature_def=named)),
    )


def _definition(signature: Signature, name: str) -> SignatureDef:
    return SignatureDef(
        # The names of tensors within the graph, made up as Keras's own export makes them: the graph may be ONNX's.
        inputs={spec.name: _tensor_info(spec, f"{name}_{spec.name}:0") for spec in signature.inputs},
        outputs={
            spec.name: _tensor_info(spec, f"StatefulPartitionedCall:{place}")
            for place, spec in enumerate(signature.outputs)
        },
    )


def _methods(signature: Signature) -> dict[str, str]:
    """Methods by the names under which the signature answers them."""
    found = {DEFAULT_NAME: PREDICT_METHOD, signature.name: PREDICT_METHOD}
    if class_outputs(signature) is not None:
        found.setdefault(CLASSIFICATION, CLASSIFY_METHOD)
    if value_output(signature) is not None:
        found.setdefault(REGRESSION, REGRESS_METHOD)
    return found


def _status(version: CatalogVersion) -> Status:
    if version.error_code is None:
        return Status(error_code="OK", error_message="")
    return Status(
        error_code=ERROR_CODES.get(version.error_code, "INVALID_ARGUMENT"),
        error_message=f"{version.error_code}: {version.error_message or ''}",
    )


def _tensor_info(spec: TensorSpec, graph_name: str) -> TensorInfo:
    sizes = [Dimension(size="-1" if size is None else str(size)) for size in spec.shape]
    return TensorInfo(dtype=element_type(spec.dtype).tensorflow, tensor_shape=TensorShape(dim=sizes), name=graph_name)
