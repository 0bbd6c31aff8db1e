"""What an uploader says about a file that the file itself leaves open: which signature, and what inputs it takes."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from model_store.errors import SluiceError
from model_store.formats import Format
from model_store.signature import STRING, TensorSpec

DTYPES = frozenset(
    f"{kind}{bits}" for kind, sizes in (("int", (8, 16, 32, 64)), ("float", (16, 32, 64))) for bits in sizes
) | {"bool", "uint8", STRING}
INPUTS_LIMIT = 64
RANK_LIMIT = 8
_INPUT = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,127}):([a-z0-9]{1,8})\[(-?[0-9]{1,9}(?:,-?[0-9]{1,9})*)\]")


class UploadOptionInvalid(SluiceError):
    status = 422
    code = "upload_option_invalid"


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """`signature` is the name of a SavedModel's signature, `inputs` the TensorSpecs of a program that names none."""

    signature: str | None = None
    inputs: tuple[TensorSpec, ...] = ()

    @classmethod
    def parse(cls, signature: str | None, inputs: str | None) -> UploadOptions:
        """From an upload's query, inputs as `x:float32[-1,4],mask:bool[-1]`; raises UploadOptionInvalid."""
        return cls(signature, () if inputs is None else _specs(inputs))

    def check_for(self, format: Format) -> None:
        """Raises UploadOptionInvalid for an option that a format has no use for: it would be taken for heeded."""
        if self.signature is not None and format is not Format.SAVEDMODEL:
            raise UploadOptionInvalid(f"the option `signature` is for SavedModels; this is {format}")
        if self.inputs and format is not Format.TORCHSCRIPT:
            raise UploadOptionInvalid(f"the option `inputs` is for TorchScript; this is {format}")

    def to_json(self) -> str | None:
        """As it is kept in SQL; None where nothing was said."""
        return None if self == UploadOptions() else json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> UploadOptions:
        document: dict[str, Any] = json.loads(text or "{}")
        inputs = (
            TensorSpec(str(row["name"]), str(row["dtype"]), tuple(row["shape"])) for row in document.get("inputs", ())
        )
        return cls(document.get("signature"), tuple(inputs))


def _specs(text: str) -> tuple[TensorSpec, ...]:
    specs: list[TensorSpec] = []
    at = 0
    while match := _INPUT.match(text, at):
        name, dtype, sizes = match.groups()
        shape = tuple(None if size == "-1" else int(size) for size in sizes.split(","))
        if dtype not in DTYPES:
            raise _invalid(f"{dtype} is none of {', '.join(sorted(DTYPES))}")
        if len(shape) > RANK_LIMIT or any(size is not None and size < 1 for size in shape):
            raise _invalid(f"{name} has no shape of 1 to {RANK_LIMIT} sizes, each positive, or -1 for any")
        if name in {spec.name for spec in specs} or len(specs) == INPUTS_LIMIT:
            raise _invalid(f"{name} comes twice, or there are more than {INPUTS_LIMIT} inputs")
        specs.append(TensorSpec(name, dtype, shape))
        at = match.end()
        if at == len(text):
            return tuple(specs)
        if text[at] != ",":
            break
        at += 1
    raise _invalid("write them as name:dtype[size,size], separated by commas, -1 for any size: x:float32[-1,4]")


def _invalid(reason: str) -> UploadOptionInvalid:
    return UploadOptionInvalid(f"the option `inputs` cannot be read: {reason}")
