"""When a request wants to be answered: the parameters of Triton's schedule policy and sequence extensions.

Sources: docs/protocol/extension_schedule_policy.md and extension_sequence.md of Triton's server.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.protocols.errors import excerpt, invalid

PRIORITY, TIMEOUT = "priority", "timeout"
SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
HIGHEST_NUMBER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """`priority` from 1, the highest, 0 where the caller leaves it to the server; `timeout` in µs, 0 for none."""

    priority: int = 0
    timeout: int = 0


AT_ANY_TIME = Schedule()


def schedule_in(parameters: dict[str, object]) -> Schedule:
    """What a request's own parameters say; raises InputInvalid.

    A sequence is refused: who sends one expects that the model remembers its requests, and none does here.
    """
    if not parameters:
        return AT_ANY_TIME
    for name in SEQUENCE:
        if parameters.get(name):
            raise invalid(f"request.parameters: {name} is not supported: no model remembers a request before")
    return Schedule(_number(parameters, PRIORITY), _number(parameters, TIMEOUT))


def _number(parameters: dict[str, object], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value <= HIGHEST_NUMBER:
        raise invalid(f"request.parameters: {name} must be a whole number, 0 or more, not {excerpt(value)}")
    return value
