"""A model that needs its processor: MobileNetV2 through the queue beside ONNX Runtime alone."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.bodies import GOOD_PREDICTION, GOOD_TENSORS, binary_request, json_request, photographs
from benchmarks.experiment import Experiment
from benchmarks.load import Load
from benchmarks.metrics import batches
from benchmarks.models import PHOTOGRAPHS
from benchmarks.onnx_alone import Run, measure
from benchmarks.outcome import Outcome
from benchmarks.system import HOST, System
from benchmarks.verification import served, verify
from model_store.artifacts import Artifacts
from model_store.settings import StoreSettings

CONNECTIONS = 8
DIFFERENT = 8
FORMS = ("binary tensors", "JSON")


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    images = photographs(DIFFERENT)
    with bench.serving("compute") as system:
        token, administrator = bench.token(system), bench.token(system, "administrator")
        found = served(system, PHOTOGRAPHS)
        [spec] = found.signature.inputs
        single = [images[number : number + 1] for number in range(DIFFERENT)]
        loads = {
            "binary tensors": _load(
                bench, system, [binary_request(PHOTOGRAPHS, spec, one, token) for one in single], GOOD_TENSORS
            ),
            "JSON": _load(bench, system, [json_request(PHOTOGRAPHS, one, token) for one in single], GOOD_PREDICTION),
        }
        for binary in (True, False):
            verify(system, PHOTOGRAPHS, images, token, connections=CONNECTIONS, binary=binary)
        alone: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(bench.sizes.rounds):
            for form, load in loads.items():
                before = batches(system.address, administrator, PHOTOGRAPHS)
                bench.once(form, load, outcome)
                mean = batches(system.address, administrator, PHOTOGRAPHS).mean_since(before)
                alone[form].append(measure(_run(system, mean, bench.sizes.seconds)))
                outcome.facts[f"instances in a batch, {form}"] = mean
    for form in FORMS:
        outcome.facts[f"ONNX Runtime alone, instances/s, batches of {form}"] = median(alone[form])
        sluice = outcome.figures(form, CONNECTIONS).per_second
        outcome.facts[f"to ONNX Runtime alone, {form}"] = sluice / median(alone[form])
    return outcome


def _load(bench: Bench, system: System, requests: list[bytes], contains: bytes) -> Load:
    return Load(HOST, system.port, requests, CONNECTIONS, bench.sizes.seconds, contains=contains)


def _run(system: System, batch: float, seconds: float) -> Run:
    found = served(system, PHOTOGRAPHS)
    store = Artifacts(system.folder.root / "store", StoreSettings().upload_limit_bytes)
    return Run(str(store.path(found.digest)), found.signature.to_json(), batch, seconds)


COMPUTE = Experiment("compute", "MobileNetV2 at 8 connections, beside ONNX Runtime alone with the same batches.", run)
