"""Submits that carry an Idempotency-Key: which of a group make jobs, and what the others are told.

A retry gets the job that its first attempt made, whatever has become of the queue since. It is a request like any
other all the same: rights, rates and quotas are asked first, from memory, and only then is there a look into SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from model_store.errors import SluiceError
from workers import idempotency
from workers.idempotency import Claim, IdempotencyKeyReused, Named


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is committed; `replayed` where an earlier request with the same key made it.

    `created_at` is its row's, in milliseconds since 1970, where this request made it.
    """

    id: str
    replayed: bool = False
    created_at: int | None = None


@dataclass(frozen=True, slots=True)
class Keyed:
    """A client's key and the parts of its request, all that has to be the same when it comes again."""

    client_id: str
    key: str
    parts: tuple[bytes, ...]

    def claim(self, job_id: str) -> Claim:
        """Its claim for a job that is to be made; hashes the parts."""
        return Claim(self.client_id, self.key, idempotency.fingerprint(self.parts), job_id)


Answer = Accepted | SluiceError


def settle(session: Session, claims: Sequence[Claim]) -> dict[str, Answer]:
    """Take the keys; returns what those are told that make no job of their own, by the id that it would have had."""
    firsts: dict[Named, Claim] = {}
    for claim in claims:
        firsts.setdefault(claim.named, claim)
    held = idempotency.take(session, list(firsts.values()))
    return {
        claim.job_id: _told(held[claim.named], claim) for claim in claims if held[claim.named].job_id != claim.job_id
    }


def withdraw(session: Session, claims: Iterable[Claim], answers: dict[str, Answer]) -> None:
    """Give back the keys of jobs that were refused, by `answers`; others of their group are told the same."""
    refused = {claim.job_id: answer for claim in claims if isinstance(answer := answers.get(claim.job_id), SluiceError)}
    for job_id, answer in answers.items():
        if isinstance(answer, Accepted) and answer.replayed and answer.id in refused:
            answers[job_id] = refused[answer.id]
    idempotency.give_back(session, [claim for claim in claims if claim.job_id in refused])


def _told(holder: Claim, claim: Claim) -> Answer:
    return Accepted(holder.job_id, replayed=True) if holder.request == claim.request else IdempotencyKeyReused()
