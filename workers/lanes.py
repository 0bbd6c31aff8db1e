"""The queue's names and bytes: keys of lanes, bells and slots, and what an entry and an answer look like.

Both ends of the queue use this module; it talks to nobody. Integers are little-endian. An entry of a lane has one
field: `j` holds the id of an asynchronous job, `b` a bundle of synchronous predictions that one gateway laid out in
one turn of its event loop.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from workers.protocols.body import TEXT, Body, Dialect

GROUP = b"g"
JOB_FIELD = b"j"
BUNDLE_FIELD = b"b"
RING_FIELD = b"l"
WEIGHT_FIELD = b"w"

BUNDLE_PREDICTIONS = 64
BUNDLE_BYTES = 1024 * 1024

# Nothing in Redis is a promise, so no key outlives its use by much (architecture: "every key an expiry").
LANE_MILLISECONDS = 3_600_000
REPLY_MILLISECONDS = 180_000

_HEAD = struct.Struct("<BHI")  # version of the format, length of the reply list's name, limit in milliseconds
_PREDICTION = struct.Struct("<QBII")  # number, dialect, length of the JSON in the body or TEXT, length of the body
# Number, HTTP status, instances answered, length of the JSON in the body or TEXT, length of the body.
_ANSWER = struct.Struct("<QHIII")
# A worker drops bundles of another format, and their callers get 504: of two releases side by side, neither may take
# the other's bytes for something else. Answers need no number: only bundles that could be read are answered.
_FORMAT = 3
_DIALECTS = frozenset(map(int, Dialect))


class Priority(StrEnum):
    """Which of two reads a lane belongs to: interactive lanes are read first, bulk ones every tenth turn."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Lane:
    """A stream for one client on one model version and priority."""

    model: str
    version: int
    priority: Priority
    client_id: str

    def __hash__(self) -> int:
        # Asked for three times a request. The priority's own hash would take longer than all of this.
        return hash((self.model, self.version, self.client_id))

    @property
    def name(self) -> str:
        """Unique text form; none of its parts can hold a colon."""
        return f"{self.model}:{self.version}:{self.priority}:{self.client_id}"

    @classmethod
    def parse(cls, name: str) -> Lane:
        """The lane of a name; raises ValueError where it is not one."""
        model, version, priority, client_id = name.split(":")
        return cls(model, int(version), Priority(priority), client_id)


class Keys:
    """Names of all Redis keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def lane(self, lane: Lane | str) -> bytes:
        return f"{self.prefix}:lane:{lane if isinstance(lane, str) else lane.name}".encode()

    def lane_of(self, key: bytes) -> str:
        """The lane's name in its key."""
        return key.decode().removeprefix(f"{self.prefix}:lane:")

    def bell(self, pool: str, slot: str) -> bytes:
        return f"{self.prefix}:bell:{pool}:{slot}".encode()

    def drain(self, pool: str, slot: str) -> bytes:
        """Holds the token of the slot's session; whoever sets it sends the Celery task."""
        return f"{self.prefix}:drain:{pool}:{slot}".encode()

    def beat(self, consumer: str) -> bytes:
        """Heartbeat of a consumer (pool and slot), its session's token: gone means that its entries may be claimed."""
        return f"{self.prefix}:beat:{consumer}".encode()

    def slots(self, pool: str) -> bytes:
        """Sorted set of announced slots, scored with the time of their last announcement."""
        return f"{self.prefix}:slots:{pool}".encode()

    def pools(self) -> bytes:
        """Sorted set of the pools of announced slots, scored as these are."""
        return f"{self.prefix}:pools".encode()

    def loaded(self, pool: str, slot: str) -> bytes:
        """What the slot's process has loaded, as of its last second (workers/loaded_versions.py)."""
        return f"{self.prefix}:loaded:{pool}:{slot}".encode()

    def loading(self, pool: str, model: str, version: int) -> bytes:
        """Holds the slot that loads a version now, for which others leave its lanes (workers/first_loads.py)."""
        return f"{self.prefix}:loading:{pool}:{model}:{version}".encode()

    def statistics(self, model: str, version: int) -> bytes:
        """What was counted of the version's predictions (workers/kept_statistics.py)."""
        return f"{self.prefix}:statistics:{model}:{version}".encode()

    def replies(self, gateway: str) -> bytes:
        return f"{self.prefix}:replies:{gateway}".encode()

    def crashes(self, model: str, version: int) -> bytes:
        return f"{self.prefix}:crashes:{model}:{version}".encode()

    def quarantine(self, model: str, version: int) -> bytes:
        return f"{self.prefix}:quarantine:{model}:{version}".encode()

    def ends(self) -> bytes:
        """Channel on which ids of finished jobs are told to gateways that wait for them; a message may be lost."""
        return f"{self.prefix}:ends".encode()


def consumer_of(pool: str, slot: str) -> str:
    """The stable name under which a slot reads: its successor finds its unfinished entries."""
    return f"{pool}:{slot}"


Prediction = tuple[int, Body]
"""A number, unique in its gateway, and the body as it came."""


def holder_of(consumer: str, token: str) -> str:
    """Who holds a job's lease: one session of a slot. Its successor has the same name and beats too, but holds none."""
    return f"{consumer}:{token}"


def consumer_and_token(holder: str) -> tuple[str, str]:
    """The parts of a holder's name."""
    consumer, _, token = holder.rpartition(":")
    return consumer, token


@dataclass(frozen=True, slots=True)
class Bundle:
    """Synchronous predictions of one client that arrived in the same turn of a gateway, bodies unparsed."""

    reply_to: bytes
    limit_ms: int
    predictions: tuple[Prediction, ...]


def pack_bundle(reply_to: bytes, limit_ms: int, predictions: Iterable[Prediction]) -> list[bytes]:
    """The bytes of an entry in pieces, the bodies among them as they are: nothing is copied yet."""
    parts = [_HEAD.pack(_FORMAT, len(reply_to), limit_ms), reply_to]
    for number, (data, dialect, head, _) in predictions:
        parts += (_PREDICTION.pack(number, dialect, head, len(data)), data)
    return parts


def unpack_bundle(data: bytes) -> Bundle:
    """The bundle of an entry; raises ValueError where the bytes are none."""
    try:
        version, name_length, limit_ms = _HEAD.unpack_from(data)
        if version != _FORMAT:
            raise ValueError(f"the entry is a bundle of format {version}, not {_FORMAT}")
        position = _HEAD.size + name_length
        reply_to = data[_HEAD.size : position]
        predictions = []
        while position < len(data):
            number, dialect, head, length = _PREDICTION.unpack_from(data, position)
            position += _PREDICTION.size
            predictions.append((number, Body(data[position : position + length], dialect, head)))
            position += length
    except struct.error as error:
        raise ValueError("the entry is cut off") from error
    if position != len(data) or not all(body.dialect in _DIALECTS for _, body in predictions):
        raise ValueError("the entry is not a bundle")
    return Bundle(reply_to, limit_ms, tuple(predictions))


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one synchronous prediction: an HTTP status and the body in the caller's dialect.

    `head` is the length of the JSON in front of tensors, or TEXT; `instances` is what a quota is charged for.
    """

    number: int
    status: int
    body: bytes
    head: int = TEXT
    instances: int = 0


def pack_answers(answers: Sequence[Answer]) -> bytes:
    parts: list[bytes] = []
    for answer in answers:
        head = _ANSWER.pack(answer.number, answer.status, answer.instances, answer.head, len(answer.body))
        parts += (head, answer.body)
    return b"".join(parts)


def unpack_answers(data: bytes) -> list[Answer]:
    answers, position = [], 0
    while position < len(data):
        number, status, instances, head, length = _ANSWER.unpack_from(data, position)
        position += _ANSWER.size
        answers.append(Answer(number, status, data[position : position + length], head, instances))
        position += length
    return answers


def entry_ms(entry_id: bytes) -> int:
    """When an entry was added, in milliseconds by Redis's clock: one clock for all deadlines."""
    return int(entry_id.split(b"-", 1)[0])
