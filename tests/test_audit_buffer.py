"""What waits in memory for the audit log: joined, bounded, and counted where it is lost."""

from __future__ import annotations

from auth.audit import Entry, Outcome
from auth.audit_buffer import DROPPED_ACT, JOIN_SECONDS, MOST_KINDS, AuditBuffer


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refusal(address: str = "10.0.0.1", act: str = "predict", reason: str = "invalid_token") -> Entry:
    return Entry(act, outcome=Outcome.REFUSED, reason=reason, address=address)


def test_equal_refusals_of_a_minute_are_one_entry_at_once_and_one_with_their_number():
    clock = Clock()
    buffer = AuditBuffer(clock=clock)
    for _ in range(5000):
        buffer.add(refusal())

    assert [(entry.count, entry.reason) for _, entry in buffer.take()] == [(1, "invalid_token")]
    assert buffer.take() == []
    clock.now += JOIN_SECONDS
    assert [entry.count for _, entry in buffer.take()] == [4999]
    buffer.add(refusal())
    assert [entry.count for _, entry in buffer.take()] == [1], "a new minute begins"


def test_refusals_that_differ_are_told_apart():
    buffer = AuditBuffer()
    for entry in (refusal(), refusal(address="10.0.0.2"), refusal(act="submit"), refusal(reason="model_not_found")):
        buffer.add(entry)
        buffer.add(entry)

    assert len(buffer.take()) == 4
    assert [entry.count for _, entry in buffer.take(all_of_it=True)] == [1, 1, 1, 1]


def test_a_flood_from_many_addresses_does_not_become_many_entries():
    buffer = AuditBuffer()
    for number in range(10_000):
        buffer.add(refusal(address=f"10.1.{number // 256}.{number % 256}"))

    taken = buffer.take() + buffer.take(all_of_it=True)
    assert len(taken) <= MOST_KINDS + 2
    assert sum(entry.count for _, entry in taken) == 10_000


def test_a_full_buffer_counts_what_it_loses_in_an_entry_of_its_own():
    buffer = AuditBuffer(capacity=10)
    for number in range(25):
        buffer.add(Entry("predict", request_id=str(number)))

    taken = [entry for _, entry in buffer.take()]
    assert [entry.request_id for entry in taken[:10]] == [str(number) for number in range(10)]
    assert [(entry.act, entry.count) for entry in taken[10:]] == [(DROPPED_ACT, 15)]


def test_what_could_not_be_written_comes_first_again_with_its_age():
    clock = Clock()
    buffer = AuditBuffer(capacity=3, clock=clock)
    buffer.add(Entry("predict", request_id="old"))
    taken = buffer.take()
    clock.now += 2
    buffer.add(Entry("predict", request_id="new"))

    buffer.put_back(taken)

    aged = buffer.aged(buffer.take())
    assert [(age, entry.request_id) for age, entry in aged] == [(2000, "old"), (0, "new")]


def test_ages_count_from_when_it_happened():
    clock = Clock()
    buffer = AuditBuffer(clock=clock)
    buffer.add(Entry("predict"))
    clock.now += 0.25

    assert [age for age, _ in buffer.aged(buffer.take())] == [250]
