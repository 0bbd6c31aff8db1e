"""Formats of uploads, which of them an administrator allows, and why some are refused unless one does."""

from __future__ import annotations

from enum import StrEnum

from model_store.errors import FormatUnsupported


class Format(StrEnum):
    """What can be uploaded."""

    KERAS = "keras"
    H5 = "h5"
    ONNX = "onnx"
    SAVEDMODEL = "savedmodel"
    TORCHSCRIPT = "torchscript"
    MLFLOW = "mlflow"


# Those that describe a model rather than being a program. The model in a folder of MLflow's has a format of its own,
# which must be among these as well.
DEFAULT_FORMATS = "keras,h5,onnx,mlflow"

_PROGRAMS = {
    Format.SAVEDMODEL: (
        "a SavedModel is a program of TensorFlow's operators, among which are some that read and write files;"
        " a Keras model saved as .keras needs no such trust"
    ),
    Format.TORCHSCRIPT: (
        "a TorchScript file is a program; a model exported with torch.onnx.export and uploaded as .onnx needs no such"
        " trust"
    ),
}


def check_allowed(format: str, setting: str) -> None:
    """Raises FormatUnsupported unless the setting `upload_formats` names the format; the message names the setting."""
    if format in setting.split(","):
        return
    why = _PROGRAMS.get(Format(format)) if format in list(Format) else None
    reason = f": {why}" if why else ""
    raise FormatUnsupported(
        f"uploads of format {format} are not taken here{reason}. An administrator allows it by adding {format} to"
        f" SLUICE_UPLOAD_FORMATS (now {setting}) of gateways and preparing workers"
    )


def known_formats(setting: str) -> str:
    """The setting itself; raises ValueError, which names the formats, where it has another one."""
    for name in setting.split(","):
        if name not in list(Format):
            raise ValueError(
                f"{name!r} is no format; there are {', '.join(Format)}, separated by commas without spaces"
            )
    return setting
