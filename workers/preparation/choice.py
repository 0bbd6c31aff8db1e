"""Which of the accepted variants serves, and why: the fastest at the batch that matters, or the one that was named.

What matters is the largest batch worth running, as measured for the float variant that would serve otherwise: waiting
requests are put together to batches of that size, so it decides how many a worker can answer. Single requests meet a
worker that is idle, whichever variant it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model_store.variant_policies import EXPORTED, FASTEST, VariantPolicy
from workers.preparation.candidates import Candidate
from workers.preparation.findings import refused
from workers.preparation.report import VariantFigures

# Less exact for less than a tenth of the time is no bargain, and within what a busy machine measures wrongly.
GAIN = 0.9


def ordered(
    policy: VariantPolicy, given: Sequence[Candidate], asked: Sequence[Candidate], variants: Sequence[VariantFigures]
) -> tuple[list[Candidate], list[Candidate]]:
    """The accepted candidates one of which serves, in the order of preference, and others that can be measured.

    `given` are what the upload brought, `asked` what the policy wants besides. Raises UploadRefused (`variant_refused`)
    where the one that is to serve was not accepted.
    """
    own = [candidate for candidate in given if candidate.figures.accepted]
    ran = [candidate for candidate in asked if candidate.figures.max_abs_difference is not None]
    if policy.serve == FASTEST:
        return own, ran
    named = [one for one in (*own, *ran) if one.name == policy.serve and one.figures.accepted]
    if not named:
        why = next((row.reason for row in variants if row.name == policy.serve), None)
        raise refused("variant_refused", f"{policy.serve} is to serve and cannot: {why or 'it was not made'}")
    return named, [candidate for candidate in (*own, *ran) if candidate.name != policy.serve]


def challenger(
    policy: VariantPolicy, preferred: Candidate, others: Iterable[Candidate], batch: int
) -> Candidate | None:
    """The fastest of those that run where the preferred one does, may serve, and beat it clearly at this batch.

    A SavedModel never challenges: it takes a process and most of a gigabyte in each slot.
    """
    rivals = [
        rival
        for rival in others
        if rival.runtime == preferred.runtime == "onnx"
        and allowed(policy, rival.figures)
        and beats(rival.figures, preferred.figures, batch)
    ]
    if policy.serve != FASTEST:
        return None
    return min(rivals, key=lambda rival: rival.figures.latency_ms[batch], default=None)


def allowed(policy: VariantPolicy, figures: VariantFigures) -> bool:
    """Whether it was accepted and may serve."""
    return figures.accepted and (not figures.quantised or policy.may_serve(figures.name))


def beats(figures: VariantFigures, others: VariantFigures, batch: int) -> bool:
    """Whether it takes clearly less time."""
    own, its = figures.latency_ms.get(batch), others.latency_ms.get(batch)
    return own is not None and its is not None and own < GAIN * its


def reason(policy: VariantPolicy, chosen: VariantFigures, variants: Iterable[VariantFigures], batch: int) -> str:
    """Why a variant serves, by batches of `batch` instances, in a sentence."""
    variants = list(variants)
    text = f"{chosen.name} serves" + ("" if policy.serve == FASTEST else ", as the policy names it")
    for figures in variants:
        if not figures.accepted:
            text += f"; {figures.name} was refused: {figures.reason or ''}"
    for figures in variants:
        if figures.accepted and figures is not chosen and batch in figures.latency_ms:
            own, its = chosen.latency_ms[batch], figures.latency_ms[batch]
            text += f"; {_took(batch)} {own:.3g} ms, with {figures.name} {its:.3g} ms"
            if figures.name in EXPORTED:
                text += ", which is exported only"
            elif figures.quantised and not policy.may_serve(figures.name):
                text += ", which is quantised and not allowed to serve"
    rivals = [figures for figures in variants if figures.accepted and figures.runtime == "onnx"]
    if len(rivals) > 1 and policy.serve == FASTEST:
        text += f"; compared {_at(batch)}"
    return text


def _took(batch: int) -> str:
    return "1 instance takes" if batch == 1 else f"{batch} instances take"


def _at(batch: int) -> str:
    if batch == 1:
        return "singly, since this model gains nothing in batches"
    return f"at {batch} instances, since requests that wait are put together to batches of that size"
