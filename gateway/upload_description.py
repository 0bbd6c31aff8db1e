"""What the interface's description says of uploading, and what an upload answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.model_views import PreparationShown
from model_store.formats import Format
from model_store.tables import State


class UploadAsked(BaseModel):
    """The query of an upload. A name that is not known is refused: a slip would change what the file is taken for."""

    model_config = ConfigDict(extra="forbid")

    format: Annotated[Format | None, Field(description="What the file is, where it does not say so itself.")] = None
    signature: Annotated[
        str | None,
        Field(max_length=256, description="Which signature of a SavedModel is the default one."),
    ] = None
    inputs: Annotated[
        str | None,
        Field(
            max_length=8192,
            description="The inputs of a TorchScript file, which names none: `x:float32[-1,4],mask:bool[-1]`.",
        ),
    ] = None


class Accepted(BaseModel):
    """A version whose file is in the store; `location` shows how its preparation goes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mnist",
                    "version": 1,
                    "state": "START",
                    "preparation": {"step": "receive", "attempt": 0, "done": False},
                    "location": "/admin/models/mnist/versions/1",
                }
            ]
        }
    )

    model: str
    version: int
    state: State
    preparation: PreparationShown | None
    location: str


UPLOAD: dict[str, Any] = {
    "status_code": 202,
    "summary": "Upload a new version",
    "description": (
        "The body is the file itself, or a form with the file as its only part. PUT and POST do the same, since"
        " `curl -T` sends PUT:\n\n"
        '    curl -T mnist.keras -H "Authorization: Bearer $TOKEN" '
        "http://127.0.0.1:8080/admin/models/mnist/versions\n"
        '    curl -F file=@mnist.keras -H "Authorization: Bearer $TOKEN" '
        "http://127.0.0.1:8080/admin/models/mnist/versions\n\n"
        "SavedModels (zip or tar.gz) and TorchScript files are programs, and taken only where the setting"
        " `upload_formats` allows them. "
        "The model is made with its first version; the store numbers versions 1, 2, 3 and so on. Keras archives and"
        " HDF5 files are known by their first bytes; an ONNX model needs `?format=onnx`, or a form whose file name ends"
        " in `.onnx`. The version is then prepared: `location` in the answer shows how far that is, and in the end"
        " either the signature or what was wrong with the file."
    ),
    "responses": {
        200: {"model": Accepted, "description": "The model has a version with the same bytes: this one."},
        202: {"description": "The file is stored and its version waits to be prepared."},
        400: {"description": "The body broke off before the file was complete."},
        413: {"description": "The file is larger than the store takes."},
        415: {
            "description": (
                "What the file is could not be told, its format is not allowed here, or the body is a form of fields"
                " (`curl -d`)."
            )
        },
        422: {
            "description": (
                "The name breaks the rule, the file is empty, the form has other parts, or an option does not fit."
            )
        },
        507: {"description": "The store's disk is full; nothing was kept."},
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "string", "format": "binary"}},
                        "required": ["file"],
                    }
                },
            },
        }
    },
}
