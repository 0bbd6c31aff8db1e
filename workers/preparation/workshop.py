"""The workshop: variants that a policy asks for, made of the two that uploads bring, each tried in a runner of its own.

Nothing that fails here refuses an upload: a variant that could not be made, or whose runner died, is left out with the
reason.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from model_store.signature import Tensors
from model_store.variant_policies import FP16, INT8, LITERT, LITERT_INT8, ONNX, PRUNED, SAVEDMODEL
from workers.errors import LockdownUnavailable, PredictionFailed, RunnerFailed
from workers.preparation.acceptance import Acceptance
from workers.preparation.candidates import Candidate, LiteRtCandidate, OnnxCandidate
from workers.preparation.proof import Reference, prove
from workers.preparation.report import VariantFigures
from workers.runner.process import Runner
from workers.settings import WorkerSettings

# A form that takes so many times as long as the other is not worth being nearer.
FAR_SLOWER = 2.0
TINY_SECONDS = 1e-9
Arguments = Mapping[str, object]
# A variant that was tried, or the figures of one that could not be.
Form = Candidate | VariantFigures


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a variant is made: a runner's command with these arguments, the next ones where the first do not pass.

    One that is `calibrated` takes the calibration samples; of one that is so `by_choice`, a form without them is made
    as well, and the better is kept.
    """

    command: str
    source: str
    kind: type[Candidate]
    calibrated: bool = False
    by_choice: bool = False
    tries: tuple[Arguments, ...] = ({},)


RECIPES: Mapping[str, Recipe] = {
    FP16: Recipe("variant_halve", ONNX, OnnxCandidate),
    INT8: Recipe("variant_quantise", ONNX, OnnxCandidate, calibrated=True, by_choice=True),
    PRUNED: Recipe("variant_prune", ONNX, OnnxCandidate, tries=({"share": 0.7}, {"share": 0.5}, {"share": 0.3})),
    LITERT: Recipe("variant_litert", SAVEDMODEL, LiteRtCandidate, tries=({"quantised": False},)),
    LITERT_INT8: Recipe("variant_litert", SAVEDMODEL, LiteRtCandidate, calibrated=True, tries=({"quantised": True},)),
}


class Workshop:
    """One preparation's; `start` gives it runners, `folder` is out of their reach, `calibration` may be empty."""

    def __init__(
        self, start: Callable[[], Runner], folder: Path, settings: WorkerSettings, calibration: Tensors
    ) -> None:
        self._start = start
        self._folder = folder
        self._settings = settings
        self._calibration = calibration
        self._runners: dict[str, Runner] = {}

    def proven(self, name: str, made: Mapping[str, Candidate], known: Reference, acceptance: Acceptance) -> Form:
        """The variant in the first of its forms that passes the proof, else in the last, or why there is none at all.

        `made` are those that passed it before. Raises OSError, and LockdownUnavailable.
        """
        recipe = RECIPES[name]
        source = made.get(recipe.source)
        if source is None:
            return _failed(name, recipe, f"it is made of {recipe.source}, which there is not")
        prover = partial(self._proven, name, recipe, source, known, acceptance)
        if not recipe.calibrated or not self._calibration:
            return prover({})
        found = prover(self._calibration)
        if not recipe.by_choice:
            return found
        dynamic = prover({}, suffix="-dynamic")
        return better(found, dynamic, _slowness(found, dynamic, known))

    def close(self) -> None:
        """Ends the runners that made variants; those that try them live on."""
        for runner in self._runners.values():
            runner.close()

    def _proven(
        self,
        name: str,
        recipe: Recipe,
        source: Candidate,
        known: Reference,
        acceptance: Acceptance,
        calibration: Tensors,
        suffix: str = "",
    ) -> Form:
        """The first of its forms that passes, with this calibration; `suffix` keeps its file from another's."""
        form: Form | None = None
        for arguments in recipe.tries:
            if isinstance(form, Candidate):
                form.close()
            try:
                form = self._made(name, recipe, source, {"target": name + suffix, **arguments}, calibration)
            except LockdownUnavailable:
                raise
            except (RunnerFailed, PredictionFailed) as error:
                return _failed(name, recipe, error.message)
            if not isinstance(form, Candidate):
                return form
            prove(form, known, acceptance)
            if form.figures.accepted:
                break
        assert form is not None  # noqa: S101 - for the type checker: every recipe has a try
        return form

    def _made(self, name: str, recipe: Recipe, source: Candidate, arguments: Arguments, calibration: Tensors) -> Form:
        runner = self._runner(recipe.source, source)
        answer, _ = runner.call(
            recipe.command,
            {"source": _file(recipe.source), **arguments},
            calibration,
            timeout_seconds=self._settings.preparation_seconds,
        )
        if reason := answer.get("reason"):
            return _failed(name, recipe, str(reason))
        path = self._take(runner, str(arguments["target"]))
        candidate = recipe.kind(self._start(), path, source.signature, self._settings, name=name)
        candidate.figures.detail = str(answer.get("detail") or _calibrated(recipe, calibration) or "") or None
        return candidate

    def _runner(self, source: str, given: Candidate) -> Runner:
        """The runner that has this source and its tools, another one where the last variant killed it."""
        runner = self._runners.get(source)
        if runner is None or not runner.alive:
            runner = self._runners[source] = self._start()
            runner.give(_file(source), given.path)
        return runner

    def _take(self, runner: Runner, name: str) -> Path:
        """Moves what a runner made out of its reach; raises RunnerFailed where it is no file."""
        path = self._folder / name
        try:
            os.replace(runner.scratch / name, path)
        except FileNotFoundError as error:
            raise RunnerFailed("the runner left no file", code="runner_crashed") from error
        # It may have executed what was uploaded, and left a link to a file of ours.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise RunnerFailed("the runner left no regular file", code="runner_crashed")
        return path


def better(static: Form, dynamic: Form, slowness: float) -> Form:
    """Of two forms of a variant the accepted one, of both the one that answers nearer to the model, unless it takes far
    longer: convolutions whose activations are quantised in each call do. `slowness` is the time of the dynamic one as a
    multiple of the other's. The `detail` of what is kept says how far off both are; the other's runner is ended.
    """
    kept, other = (static, dynamic) if _rank(static) <= _rank(dynamic) else (dynamic, static)
    reason = ""
    if _passed(static) and _passed(dynamic) and (slowness if kept is dynamic else 1 / slowness) > FAR_SLOWER:
        kept, other = other, kept
        reason = f", in {max(slowness, 1 / slowness):.1f} times the time"
    if isinstance(other, Candidate):
        other.close()
    figures, name = _figures(kept), "static" if kept is dynamic else "dynamic"
    told = f"it is off by {_off(figures)}, {name} would be by {_off(_figures(other))}{reason}"
    figures.detail = "; ".join(filter(None, (figures.detail, told)))
    return kept


def _rank(form: Form) -> tuple[bool, bool, float]:
    figures = _figures(form)
    difference = figures.max_abs_difference
    return not isinstance(form, Candidate), not figures.accepted, math.inf if difference is None else difference


def _passed(form: Form) -> bool:
    return isinstance(form, Candidate) and form.figures.accepted


def _slowness(static: Form, dynamic: Form, known: Reference) -> float:
    """How many times as long as the other one the dynamic form takes for one instance; 1 where it cannot be told."""
    if not isinstance(static, Candidate) or not isinstance(dynamic, Candidate):
        return 1.0
    if not static.figures.accepted or not dynamic.figures.accepted:
        return 1.0
    try:
        times = [max(form.seconds(known.single[0]), TINY_SECONDS) for form in (dynamic, static)]
    except (PredictionFailed, RunnerFailed):
        return 1.0
    return times[0] / times[1]


def _off(figures: VariantFigures) -> str:
    if figures.max_abs_difference is None:
        return f"nothing that was measured ({figures.reason})"
    return f"{figures.max_abs_difference:.3g}{'' if figures.accepted else f' ({figures.reason})'}"


def _figures(form: Form) -> VariantFigures:
    return form.figures if isinstance(form, Candidate) else form


def _file(source: str) -> str:
    return f"source-{source}"


def _failed(name: str, recipe: Recipe, reason: str) -> VariantFigures:
    return VariantFigures(name, recipe.kind.runtime, reason=reason)


def _calibrated(recipe: Recipe, calibration: Tensors) -> str | None:
    if not recipe.calibrated:
        return None
    if not calibration:
        return "dynamic: its activations are quantised in each call"
    return f"static: calibrated with {len(next(iter(calibration.values())))} uploaded instances"
