"""Parameters of a version: what MLflow's signatures call params, which a request may name beside its inputs.

No model here computes with them: programs of one's own, which they are for, are not taken. They are kept because
callers were promised that theirs would be checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

# What a value of each of MLflow's types is in JSON: what it widens without loss goes, and a truth value is no number.
KINDS: Mapping[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "datetime": (str,),
    "object": (dict,),
}
# Every gateway and every worker holds those of all versions that are served.
MOST_PARAMETERS = 64
# Deeper ones, some reader of JSON would give up on, where another one was called from higher up.
MOST_DEPTH = 8
HIGHEST_INTEGER = 2**63 - 1
SHOWN_CHARACTERS = 64


class ParametersUnreadable(ValueError):
    """They are not what MLflow writes of params; the message is safe to show."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of them: `type` is MLflow's name of it, `listed` says that its value is a list of such."""

    name: str
    type: str
    default: object
    listed: bool = False

    def fault(self, value: object) -> str | None:
        """What is wrong with a value as JSON has it, in a few words; None where nothing is.

        As MLflow checks (mlflow/types/schema.py, ParamSpec): null goes for every single value.
        """
        if self.listed:
            if not isinstance(value, list):
                return f"the value is no list of {self.type}"
            return None if all(self._takes(one) for one in value) else f"not every value of the list is of {self.type}"
        return None if self._takes(value) else f"the value is not of {self.type}"

    def _takes(self, value: object) -> bool:
        if value is None:
            return True
        # Not by isinstance: to Python, a truth value is an integer.
        return type(value) in KINDS[self.type] and (self.type != "datetime" or _is_moment(value))


def read_parameters(rows: Sequence[Mapping[str, object]]) -> tuple[Parameter, ...]:
    """A schema of params as MLflow writes it in JSON, older releases with `dtype` for `type`.

    Raises ParametersUnreadable.
    """
    if len(rows) > MOST_PARAMETERS:
        raise ParametersUnreadable(f"there are {len(rows)} of them; {MOST_PARAMETERS} are kept at most")
    found = tuple(_parameter(row) for row in rows)
    if len({one.name for one in found}) < len(found):
        raise ParametersUnreadable("two of them have the same name")
    return found


def _parameter(row: Mapping[str, object]) -> Parameter:
    name, kind, shape = row.get("name"), row.get("type", row.get("dtype")), row.get("shape")
    if not isinstance(name, str):
        raise ParametersUnreadable("one of them has no name")
    shown = ascii(name[:SHOWN_CHARACTERS])
    if not _is_plain(name) or not _is_plain(row.get("default")):
        raise ParametersUnreadable(f"{shown} is not what every reader of JSON can hold, by its name or its default")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ParametersUnreadable(f"{shown} has another type than {', '.join(KINDS)}")
    # Objects are of no dimension.
    if shape not in (None, [], [-1]):
        raise ParametersUnreadable(f"{shown} is neither one value nor a list of them")
    found = Parameter(name, kind, row.get("default"), shape == [-1])
    if fault := found.fault(found.default):
        raise ParametersUnreadable(f"the default of {shown} does not fit: {fault}")
    return found


def written_parameters(parameters: tuple[Parameter, ...]) -> list[dict[str, object]]:
    """The same as MLflow writes it, for `read_parameters`."""
    return [
        {"name": one.name, "type": one.type, "default": one.default, "shape": [-1] if one.listed else None}
        for one in parameters
    ]


def _is_plain(value: object, depth: int = MOST_DEPTH) -> bool:
    """Whether it can be written as JSON anywhere: gateways tell it in documents, and read it with all other versions'.

    1e999 is read as infinite, and half a pair of surrogates as a text that cannot be encoded.
    """
    match value:
        case None | bool():
            return True
        case int():
            return abs(value) <= HIGHEST_INTEGER
        case float():
            return math.isfinite(value)
        case str():
            return value.encode(errors="ignore").decode() == value
        case list():
            return depth > 0 and all(_is_plain(one, depth - 1) for one in value)
        case dict():
            return depth > 0 and all(_is_plain(one, depth - 1) for pair in value.items() for one in pair)
    return False


def _is_moment(value: object) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True
