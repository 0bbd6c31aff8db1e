"""One attempt at a preparation: from the uploaded bytes to proven, measured variants in the store.

It writes nothing but blobs; what it returns is published by pipeline.py.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from model_store import golden
from model_store.artifacts import Artifacts
from model_store.environment import Environment
from model_store.errors import ArtifactMissing
from model_store.formats import check_allowed
from model_store.further_signatures import FurtherSignatures
from model_store.samples import StoredExample
from model_store.signature import Signature, Tensors
from model_store.tables import Variant
from model_store.upload_options import UploadOptions
from model_store.variant_policies import DEFAULT, NAMES, ONNX, SAVEDMODEL, VariantPolicy
from workers.environment import here
from workers.errors import LockdownUnavailable, RunnerFailed
from workers.preparation import choice, evidence, proof
from workers.preparation.acceptance import Acceptance
from workers.preparation.candidates import Candidate, OnnxCandidate, SavedModelCandidate
from workers.preparation.findings import refused, shown
from workers.preparation.further_signatures import Beside, beside
from workers.preparation.keras_uploads import KerasArchive, KerasH5
from workers.preparation.measure import Measured
from workers.preparation.mlflow_upload import MlflowUpload
from workers.preparation.onnx_upload import OnnxUpload
from workers.preparation.ranking import Ranking
from workers.preparation.report import Report, VariantFigures, told
from workers.preparation.room import room_bytes
from workers.preparation.savedmodel_upload import SavedModelUpload
from workers.preparation.torchscript_upload import TorchScriptUpload
from workers.preparation.uploads import Loaded, Upload
from workers.preparation.workshop import RECIPES, Workshop
from workers.runner.process import Runner
from workers.runner.scratch import Scratch
from workers.settings import WorkerSettings

FORMATS: dict[str, type[Upload]] = {
    "keras": KerasArchive,
    "h5": KerasH5,
    "onnx": OnnxUpload,
    "savedmodel": SavedModelUpload,
    "torchscript": TorchScriptUpload,
    "mlflow": MlflowUpload,
}


RUNTIMES = {ONNX: OnnxCandidate.runtime, SAVEDMODEL: SavedModelCandidate.runtime}


class Interrupted(Exception):
    """What stopped the preparation was not the upload: it is tried again."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came out: the variant that serves and how it may be run, all variants that are stored, and the proof.

    `known` holds the inputs of the proof with the model's own outputs; `golden` is the digest of those that are kept.
    """

    chosen: Variant
    variants: list[Variant]
    measured: Measured
    known: proof.Reference
    golden: str | None
    environment: Environment
    example: StoredExample | None
    further: FurtherSignatures


@dataclass(frozen=True, slots=True)
class Asked:
    """What to prepare for: the policy, digests of samples that administrators uploaded for the model, the signature
    (JSON) that callers of a version know already, and the pool whose workers will serve."""

    policy: VariantPolicy = DEFAULT
    calibration: str | None = None
    inputs: str | None = None
    signature: str | None = None
    pool: str | None = None


class Attempt:
    """One attempt: its runners and its folder live as long as `run`."""

    def __init__(
        self, artifacts: Artifacts, settings: WorkerSettings, report: Report, digest: str, asked: Asked
    ) -> None:
        self._asked = asked
        self._artifacts = artifacts
        self._settings = settings
        self._report = report
        self._digest = digest
        self._held = contextlib.ExitStack()
        self._example: evidence.Example | None = None

    def run(self, upload_format: str, options: UploadOptions) -> Prepared:
        """Raises UploadRefused, RunnerFailed and the store's errors; Interrupted, LeaseLost."""
        try:
            with self._held:
                return self._run(upload_format, options)
        except OSError as error:
            # What a file holds never raises one here: a full disk does, or a folder that is not what it should be.
            raise Interrupted(f"{type(error).__name__}: {error}") from error

    def _run(self, upload_format: str, options: UploadOptions) -> Prepared:
        report = self._report
        report.policy = self._asked.policy
        kind = FORMATS.get(upload_format)
        if kind is None:
            raise refused("unsupported_format", f"files of format {shown(upload_format)} cannot be prepared")
        check_allowed(upload_format, self._settings.upload_formats)
        with report.step("receive") as step:
            path = self._held.enter_context(self._artifacts.opened(self._digest))
            step.detail = f"{path.stat().st_size:,} bytes"
        runner = self._runner()
        report.lockdown = runner.lockdown
        upload = kind(path, runner, self._folder(), self._settings, options)
        with report.step("inspect") as step:
            step.detail = upload.inspect()
        with report.step("rebuild") as step:
            step.detail = upload.rebuild()
        trial = self._runner()
        with report.step("load") as step:
            loaded = upload.load(trial)
            report.signature, step.detail = loaded.signature, loaded.detail
            known = proof.reference(upload, loaded, seed=int(self._digest[:8], 16))
            loaded = replace(loaded, signature=known.signature)
            report.signature = loaded.signature
            asked = self._asked.signature
            if asked is not None and Signature.from_json(asked) != loaded.signature:
                raise refused("signature_changed", "the signature is not the one that callers of this version know")
            known, told_of_samples = self._evidence(upload, known)
            step.detail += told_of_samples
        with report.step("convert") as step:
            candidates, failed = upload.convert(loaded, trial)
            report.variants = [*failed, *(candidate.figures for candidate in candidates)]
            report.variants += _missing(self._asked.policy, report.variants)
            step.detail = ", ".join(_told(figures) for figures in report.variants)
        acceptance = Acceptance(self._asked.policy, loaded.half)
        with report.step("parity") as step:
            for candidate in candidates:
                proof.prove(candidate, known, acceptance)
            step.detail = ", ".join(_told(figures) for figures in report.variants)
            if not any(candidate.figures.accepted for candidate in candidates):
                raise refused("parity_failed", f"no variant can serve: {step.detail}")
        room = room_bytes(self._settings, self._asked.pool)
        others = self._signatures(loaded, candidates, room)
        further = self._further(candidates, known, acceptance)
        with report.step("measure") as step:
            leading, rest = choice.ordered(self._asked.policy, others.first(candidates), further, report.variants)
            chosen, measured = self._ranking(known, room).chosen(leading, rest)
            report.measured, step.detail = measured, told(measured)
        reason = choice.reason(self._asked.policy, chosen.figures, report.variants, measured.max_batch)
        report.chosen, report.reason = chosen.name, reason + others.serve(chosen.figures)
        report.signatures = others.figures
        with report.step("store"):
            return self._store([*leading, *rest], chosen, measured, known, acceptance, others.signatures)

    def _ranking(self, known: proof.Reference, room: int) -> Ranking:
        return Ranking(self._runner, known, self._asked.policy, self._settings, room)

    def _signatures(self, loaded: Loaded, candidates: list[Candidate], room: int) -> Beside:
        """What became of the signatures beside the default one."""
        if not loaded.further and not loaded.aliases and not loaded.unfit:
            return Beside()
        with self._report.step("signatures") as step:
            policy, seed = self._asked.policy, int(self._digest[:8], 16)
            found = beside(self._runner, loaded, candidates, policy, self._settings, room, seed)
            self._report.signatures, step.detail = found.figures, found.told
        return found

    def _evidence(self, upload: Upload, known: proof.Reference) -> tuple[proof.Reference, str]:
        """The proof with further samples, and what became of uploaded ones, in a few words."""
        told, further = "", []
        if self._asked.inputs is not None:
            try:
                inputs = self._uploaded(self._asked.inputs, known)
                further = list(evidence.uploaded(upload, known, inputs))
                told = f", {len(next(iter(inputs.values()))):,} uploaded instances"
            except evidence.SamplesUnfit as error:
                told = f", without the uploaded instances: {error}"
        try:
            self._example = evidence.brought(upload, known)
        except evidence.SamplesUnfit as error:
            told += f", without the upload's own example: {error}"
        if self._example is not None:
            further += self._example.pairs
            told += f", {self._example.instances:,} of the upload's own example"
        if self._wanted:
            further += evidence.seeded(upload, known)
        return replace(known, further=tuple(further)), told

    def _uploaded(self, digest: str, known: proof.Reference) -> Tensors:
        try:
            with self._artifacts.opened(digest) as path:
                return evidence.read(path, known.signature)
        except ArtifactMissing as error:
            raise evidence.SamplesUnfit("they were deleted") from error

    @property
    def _wanted(self) -> list[str]:
        """The variants that are asked for beside the upload's own, in the order of their making."""
        return [name for name in NAMES if name in self._asked.policy.variants and name in RECIPES]

    def _further(self, given: list[Candidate], known: proof.Reference, acceptance: Acceptance) -> list[Candidate]:
        """Makes and proves what is asked for beside the upload's own variants; the report tells what became of each."""
        if not self._wanted:
            return []
        report, found = self._report, []
        with report.step("variants") as step, contextlib.ExitStack() as held:
            calibration, step.detail = self._calibration(known)
            workshop = Workshop(self._runner, self._folder(), self._settings, calibration)
            held.callback(workshop.close)
            made = {candidate.name: candidate for candidate in given if candidate.figures.accepted}
            for name in self._wanted:
                form = workshop.proven(name, made, known, acceptance)
                if isinstance(form, Candidate):
                    found.append(form)
                report.variants.append(form.figures if isinstance(form, Candidate) else form)
            step.detail += ", ".join(_told(figures) for figures in report.variants if figures.name in self._wanted)
        return found

    def _calibration(self, known: proof.Reference) -> tuple[Tensors, str]:
        if self._asked.calibration is None:
            return {}, ""
        try:
            return self._uploaded(self._asked.calibration, known), ""
        except evidence.SamplesUnfit as error:
            return {}, f"without the uploaded calibration samples: {error}; "

    def _store(
        self,
        accepted: list[Candidate],
        chosen: Candidate,
        measured: Measured,
        known: proof.Reference,
        acceptance: Acceptance,
        further: FurtherSignatures,
    ) -> Prepared:
        # A SavedModel that nobody asked for would double what each upload takes of the disk.
        kept = [one for one in accepted if one is chosen or one.name in self._asked.policy.variants]
        stored = {candidate.name: self._stored(candidate) for candidate in kept if candidate.figures.accepted}
        # What a worker with another runtime, and a bundle on a device, accept by as well.
        bounds = acceptance.tolerance
        floor = acceptance.policy.top1_floor
        environment = replace(here(), absolute=bounds.absolute, relative=bounds.relative, top1_floor=floor)
        return Prepared(
            stored[chosen.name], list(stored.values()), measured, known, self._store_samples(known), environment,
            self._store_example(), further,
        )  # fmt: skip

    def _stored(self, candidate: Candidate) -> Variant:
        stored = self._artifacts.add_file(candidate.path)
        figures = candidate.figures
        return Variant(
            name=figures.name,
            runtime=figures.runtime,
            digest=stored.digest,
            size_bytes=stored.size_bytes,
            memory_bytes=figures.memory_bytes,
            figures=json.dumps(figures.to_json()),
        )

    def _store_samples(self, known: proof.Reference) -> str | None:
        """The digest of the golden samples in the store; None where they are too large to be kept."""
        samples = golden.chosen(known.pairs, known.signature, row_wise=known.row_wise)
        if samples is None:
            return None
        path = self._folder() / "golden.npz"
        path.write_bytes(samples)
        return self._artifacts.add_file(path).digest

    def _store_example(self) -> StoredExample | None:
        if self._example is None:
            return None
        path = self._folder() / "example.npz"
        path.write_bytes(self._example.archive)
        stored = self._artifacts.add_file(path)
        return StoredExample(stored.digest, stored.size_bytes, self._example.instances)

    def _runner(self) -> Runner:
        try:
            return self._held.enter_context(Runner(self._settings))
        except LockdownUnavailable:
            raise
        except RunnerFailed as error:
            raise Interrupted("a runner could not be started") from error

    def _folder(self) -> Path:
        folders = Scratch(self._settings.scratch_dir)
        self._held.callback(folders.remove)
        return folders.work


def _told(figures: VariantFigures) -> str:
    return f"{figures.name}: {figures.reason or 'ok'}"


def _missing(policy: VariantPolicy, found: list[VariantFigures]) -> list[VariantFigures]:
    """What is asked for and not made of anything: an upload brings it, or not."""
    known = {figures.name for figures in found} | RECIPES.keys()
    names = [name for name in policy.variants if name not in known]
    return [VariantFigures(name, RUNTIMES[name], reason="the upload brings none") for name in names]
