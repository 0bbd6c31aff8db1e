"""Proof again, where a version is loaded in another environment than the one in which its preparation proved it.

Another ONNX Runtime, or a processor with other vector units, computes with other kernels: mostly the same within the
tolerance, sometimes not. Before such a predictor serves, it answers the version's golden samples.
"""

from __future__ import annotations

import logging

from model_store import golden
from model_store.artifacts import Artifacts
from model_store.environment import Environment
from model_store.registry import Served
from model_store.signature import Tensors
from model_store.variant_policies import VariantPolicy
from monitoring.metrics import ENVIRONMENT_PROOFS
from workers.environment import here
from workers.errors import EnvironmentMismatch, PredictionFailed
from workers.preparation.acceptance import Acceptance
from workers.runtimes.predictor import Predictor, batch_of

log = logging.getLogger(__name__)


def reprove(served: Served, predictor: Predictor, artifacts: Artifacts) -> None:
    """Does nothing where the environment is the one of the preparation, or no preparation wrote one down.

    Raises EnvironmentMismatch where the predictor answers otherwise than the uploaded model did, RunnerFailed, and the
    store's errors.
    """
    environment = served.environment
    differences = () if environment is None else environment.differences(here(), served.runtime)
    if environment is None or not differences:
        return
    told = f"version {served.number} of {served.model} was prepared elsewhere; here is {', '.join(differences)}"
    if served.golden_digest is None:
        # Too large to be kept. Refusing these would turn every update of a library into an outage.
        ENVIRONMENT_PROOFS.labels("unproven").inc()
        log.warning("%s; it has no golden samples to be proved with, and serves unproved", told)
        return
    with artifacts.opened(served.golden_digest) as path:
        inputs, expected = golden.unpack(path.read_bytes())
    reason = _deviation(served, predictor, environment, inputs, expected)
    if reason is None:
        ENVIRONMENT_PROOFS.labels("proved").inc()
        log.warning("%s; it answers its golden samples within its tolerance, and serves", told)
        return
    ENVIRONMENT_PROOFS.labels("refused").inc()
    log.error("%s; it answers its golden samples otherwise, and is refused: %s", told, reason)
    raise EnvironmentMismatch(
        f"{told}, and it no longer gives the uploaded model's answers: {reason}. "
        f"Prepare it again here: POST /admin/models/{served.model}/versions/{served.number}/prepare"
    )


def _deviation(
    served: Served, predictor: Predictor, environment: Environment, inputs: Tensors, expected: Tensors
) -> str | None:
    """How the predictor's answers differ from the golden ones, in a sentence; None where preparation accepts that."""
    try:
        found = predictor.run(inputs)
    except PredictionFailed as error:
        return error.message
    floor = environment.golden_floor(batch_of(served.signature, inputs) or 1)
    policy = VariantPolicy(absolute=environment.absolute, relative=environment.relative, top1_floor=floor)
    return Acceptance(policy, half=False).judge(served.variant, [(expected, found)]).difference.reason
