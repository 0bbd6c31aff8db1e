"""Whether names of classes are those of a model: one for each number of its output, each its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from model_store.errors import SluiceError
from model_store.signature import Signature


class ClassNamesInvalid(SluiceError):
    """The names cannot be those of the model's classes."""

    status = 422
    code = "class_names_invalid"


def require_names_fit(names: Sequence[str] | None, signature: Signature | None) -> None:
    """Raises ClassNamesInvalid for a name that comes twice, and where the first output is of another length."""
    if names is None:
        return
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ClassNamesInvalid(f"the class name {name!r} comes {times} times")
    shape = () if signature is None else signature.outputs[0].shape
    classes = shape[1] if len(shape) == 2 else None
    if classes is not None and classes != len(names):
        raise ClassNamesInvalid(f"there are {len(names)} class names, but the model's output has {classes} numbers")
