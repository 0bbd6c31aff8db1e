"""Many clients, many versions, several gateways: what a queue has to keep apart, and what it costs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import cycle

from sqlalchemy.orm import Session

from auth.grants import GrantSpec, set_grants
from benchmarks.bench import Bench, Contender
from benchmarks.bodies import digits, json_body
from benchmarks.digit_load import DIFFERENT, digit_requests, predictions
from benchmarks.experiment import Experiment
from benchmarks.load import Load, post, run
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.system import HOST, Options, System, read_clients
from benchmarks.verification import served, verify
from model_store.database import transaction
from model_store.generation import bump_generation
from model_store.tables import Model, Variant, Version

CHECKED = 64
# Enough for what no target depends on.
ROUNDS = 2
# The default gigabyte need not hold 300 sessions of ONNX Runtime.
BUDGET = {"predictor_budget_bytes": str(8 * 1024**3)}
# Gateways learn of new versions within half a second.
LEARNING_SECONDS = 10.0
FIRST_SECONDS = 60.0


def run_clients(bench: Bench) -> Outcome:
    outcome = Outcome()
    with bench.serving("clients") as system:
        tokens = [bench.token(system, f"caller-{number}") for number in range(max(bench.sizes.clients))]
        verify(system, DIGITS, digits(CHECKED), tokens[0], connections=8)
        contenders = {
            _clients(count): predictions(bench, system.port, _in_turn([DIGITS], tokens[:count]))
            for count in bench.sizes.clients
        }
        bench.compare(contenders, [bench.sizes.many], outcome)
    for count in bench.sizes.clients:
        ratio = outcome.ratio(_clients(count), _clients(1), bench.sizes.many)
        outcome.facts[f"requests/s of {count} clients to 1"] = ratio
    return outcome


def run_versions(bench: Bench) -> Outcome:
    outcome = Outcome()
    sizes = bench.sizes.versions
    with bench.serving("versions", Options(settings=BUDGET)) as system:
        names = [f"{DIGITS}-{number}" for number in range(max(sizes))]
        _publish_copies(system, names, read_clients(bench.installation.clients_file)["caller"]["client_id"])
        token = bench.token(system)
        verify(system, DIGITS, digits(CHECKED), token, connections=8)
        contenders: dict[str, Contender] = {}
        for size in sizes:
            requests = _in_turn(names[:size], [token])
            _load_all(system, requests, outcome)
            contenders[_versions(size)] = predictions(bench, system.port, requests)
        bench.compare(contenders, [bench.sizes.many], outcome)
    for size in sizes:
        ratio = outcome.ratio(_versions(size), _versions(1), bench.sizes.many)
        outcome.facts[f"requests/s over {size} versions to 1"] = ratio
    return outcome


def run_gateways(bench: Bench) -> Outcome:
    outcome = Outcome()
    with bench.serving("gateways") as system:
        system.start_gateway()
        outcome.notes["pinned"] = _pin(system)
        requests = digit_requests(bench.token(system))
        verify(system, DIGITS, digits(CHECKED), bench.token(system), connections=8)
        ports = [port for _, port in system.gateways]
        alone = predictions(bench, ports[0], requests)

        def both(connections: int) -> Sequence[Load]:
            halves = (connections // 2, connections - connections // 2)
            return [predictions(bench, port, requests)(half) for half, port in zip(halves, ports, strict=True)]

        bench.compare({"one gateway": alone, "two gateways": both}, bench.sizes.pair, outcome, most_rounds=ROUNDS)
    for connections in bench.sizes.pair:
        outcome.facts[f"two gateways to one at {connections}"] = outcome.ratio(
            "two gateways", "one gateway", connections
        )
    return outcome


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def _versions(count: int) -> str:
    return "1 version" if count == 1 else f"{count} versions"


def _in_turn(models: Sequence[str], tokens: Sequence[str]) -> list[bytes]:
    """Requests of all models and tokens in turn, at least one of each and one of each digit."""
    images = digits(DIFFERENT)
    bodies = [json_body(images[number : number + 1]) for number in range(DIFFERENT)]
    pairs = [(model, token) for model in models for token in tokens]
    return [
        post(f"/v1/models/{model}:predict", bodies[number % DIFFERENT], token=token)
        for number, (model, token) in zip(range(max(DIFFERENT, len(pairs))), cycle(pairs), strict=False)
    ]


def _publish_copies(system: System, names: Sequence[str], client_id: str) -> None:
    """Versions with the artifact and the preparation of mnist's, under new names, for one client."""
    number = served(system, DIGITS).number
    with transaction(system.sessions) as session:
        for name in names:
            session.add(Model(name=name, last_version=1))
        session.flush()
        for name in names:
            _copy(session, session.get_one(Version, (DIGITS, number)), model=name, number=1)
        session.flush()
        variants = session.query(Variant).filter_by(model=DIGITS, version=number).all()
        for name in names:
            for variant in variants:
                _copy(session, variant, model=name, version=1)
        bump_generation(session)
        set_grants(session, client_id, [GrantSpec(name) for name in (DIGITS, *names)])


def _copy(session: Session, row: Version | Variant, **other: object) -> None:
    values = {column.key: getattr(row, column.key) for column in row.__mapper__.columns}
    session.add(type(row)(**values | other))


def _load_all(system: System, requests: Sequence[bytes], outcome: Outcome) -> None:
    """Ask each version once, so that all are loaded before anything is timed."""
    once = Load(HOST, system.port, requests, 1, FIRST_SECONDS, count=len(requests))
    until = time.monotonic() + LEARNING_SECONDS
    while missing := sum(run(once).errors.values()):
        if time.monotonic() > until:
            outcome.problems.append(f"{missing} of {len(requests)} versions did not answer")
            return


def _pin(system: System) -> str:
    """Give each gateway a processor of its own where there are enough for everybody else too."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2 * len(system.gateways):
        return f"no: {len(processors)} processors"
    for (child, _), processor in zip(system.gateways, processors, strict=False):
        os.sched_setaffinity(child.pid, {processor})
    return f"yes: each gateway to one of {len(processors)} processors"


CLIENTS = Experiment("clients", "One version, asked by many clients in turn instead of one.", run_clients)
VERSIONS = Experiment("versions", "Many loaded versions, asked in turn.", run_versions)
GATEWAYS = Experiment("gateways", "Two gateway processes instead of one.", run_gateways)
