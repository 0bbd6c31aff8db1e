"""What a request for an explanation asks beside its instances: the member `explain`, read strictly.

KServe's `:explain` has no options: a body without the member is explained by defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_store.signature import Signature, TensorSpec
from workers.protocols.errors import excerpt, invalid, json_type, shown_name

EXPLAIN = "explain"
OCCLUSION = "occlusion"
METHODS = (OCCLUSION,)
KEYS = ("output", "class", "method", "input", "patch", "baseline", "overlay")
MOST_PATCH = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """What is explained and how; None is what a default says.

    `target` is the number of a value within an instance's output, or the name of a class where names are not known
    yet; `patch` the length of what is taken away at once, in the direction of the rows and of the columns; `baseline`
    what takes its place, as JSON has it.
    """

    output: TensorSpec
    target: int | str | None = None
    method: str = OCCLUSION
    input: TensorSpec | None = None
    patch: tuple[int, int] | None = None
    baseline: object = None
    overlay: bool = True


def read_options(document: object, signature: Signature, class_names: tuple[str, ...]) -> ExplainOptions:
    """The options of a parsed body, whose other members are not looked at; raises InputInvalid."""
    given = document.get(EXPLAIN) if isinstance(document, dict) else None
    asked: dict[str, object] = {} if given is None else _object(given)
    output = _named(asked.get("output"), signature.outputs, "output") or signature.outputs[0]
    if not output.batched or output.numpy_dtype().kind not in "fiu":
        raise invalid(f"explain.output: '{shown_name(output.name)}' has no numbers for each instance to be explained")
    method = asked.get("method", OCCLUSION)
    if method not in METHODS:
        raise invalid(f"explain.method is {excerpt(method)}; there is: {', '.join(METHODS)}")
    overlay = asked.get("overlay", True)
    if not isinstance(overlay, bool):
        raise invalid(f"explain.overlay must be true or false, not {excerpt(overlay)}")
    return ExplainOptions(
        output,
        _target(asked.get("class"), output, class_names),
        str(method),
        _named(asked.get("input"), signature.inputs, "input"),
        _patch(asked.get("patch")),
        asked.get("baseline"),
        overlay,
    )


def _object(given: object) -> dict[str, object]:
    if not isinstance(given, dict):
        raise invalid(f"explain must be an object, not {json_type(given)} {excerpt(given)}")
    unknown = next((key for key in given if key not in KEYS), None)
    if unknown is not None:
        raise invalid(f"explain: unknown member {excerpt(unknown)}; there are: {', '.join(KEYS)}")
    return {key: value for key, value in given.items() if value is not None}


def _named(name: object, specs: tuple[TensorSpec, ...], what: str) -> TensorSpec | None:
    if name is None:
        return None
    found = next((spec for spec in specs if spec.name == name), None)
    if found is None:
        known = ", ".join(shown_name(spec.name) for spec in specs)
        raise invalid(f"explain.{what} is {excerpt(name)}; the model has: {known}")
    return found


def _target(asked: object, output: TensorSpec, class_names: tuple[str, ...]) -> int | str | None:
    """The number of a class that is asked for by its number or its name."""
    if asked is None:
        return None
    classes = size_of(output.shape[1:])
    if isinstance(asked, str):
        # Gateways do not know the names, and nobody a free dimension's size: there a name is taken as it is.
        return number_of(asked, class_names, classes) if class_names and classes is not None else asked
    if type(asked) is not int or asked < 0:
        raise invalid(f"explain.class must be the number or the name of a class, not {excerpt(asked)}")
    if classes is not None and asked >= classes:
        raise invalid(f"explain.class is {asked}, but '{shown_name(output.name)}' has {classes} values an instance")
    return asked


def number_of(asked: str, class_names: tuple[str, ...], classes: int) -> int:
    """The number of the class of a name, of so many; names count only where there is one for each class."""
    if len(class_names) != classes:
        raise invalid("explain.class is a name, but the version's classes have none; a number may be given")
    if asked not in class_names:
        raise invalid(f"explain.class is {excerpt(asked)}, which is the name of no class; a number may be given")
    return class_names.index(asked)


def size_of(shape: tuple[int | None, ...]) -> int | None:
    """How many values a tensor of this shape has; None where a dimension is free."""
    count = 1
    for size in shape:
        if size is None:
            return None
        count *= size
    return count


def _patch(asked: object) -> tuple[int, int] | None:
    if asked is None:
        return None
    sides = asked if isinstance(asked, list) else [asked, asked]
    whole = [side for side in sides if type(side) is int and 1 <= side <= MOST_PATCH]
    if len(sides) != 2 or len(whole) != 2:
        raise invalid(f"explain.patch must be a length of 1 or more, or [rows, columns], not {excerpt(asked)}")
    return whole[0], whole[1]
