"""Every metric of Sluice, declared once; label values come from closed lists, never from the text of a request.

Where `PROMETHEUS_MULTIPROC_DIR` names a folder when this module is first imported, all processes that share the folder
are added up (monitoring/processes.py); otherwise a process counts for itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Generic, TypeVar
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from monitoring.processes import RESIDENT, ProcessFolder, configured_folder, resident_bytes, write_to_folder

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"
MODELS_LIMIT = 200
SERIES_LIMIT = 2000

# 0.2 ms is a warm small model on an idle machine, 60 s twice the default limit; in 1-2-5 steps a quantile is off by a
# factor of 2.5 at worst, at 17 series a label set.
LATENCY_BUCKETS = (
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
PREPARATION_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

M = TypeVar("M", bound=MetricWrapperBase)


class Names:
    """The first so many different names, each as itself; every later one as `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        if name not in self._known:
            if len(self._known) >= self._limit:
                return OTHER
            self._known.add(name)
        return name


bounded = Names(MODELS_LIMIT)
"""The value of a `model` label: the model's name, or `other` where too many names have come already."""


class Labelled(Generic[M]):
    """A metric with labels, whose number of series is bounded.

    The first 200 models keep their names, later ones are `other`; a metric that has 2,000 label sets puts all further
    ones into a single one of `other`s. A series is for ever here: a bug that lets request text into a label must not
    fill the memory of this process and of Prometheus.
    """

    def __init__(self, metric: M, names: tuple[str, ...], models: Names = bounded) -> None:
        self._metric = metric
        self._names = names
        self._models = models
        self._children: dict[tuple[str, ...], M] = {}

    def labels(self, *given: object, **named: object) -> M:
        """The series of these label values, by position or by name; quick when asked for again (0.3 µs)."""
        values = tuple(map(str, given)) if given else tuple(str(named[name]) for name in self._names)
        child = self._children.get(values)
        return child if child is not None else self._add(values)

    def _add(self, values: tuple[str, ...]) -> M:
        if len(values) != len(self._names):
            raise ValueError(f"expected values for {self._names}")
        kept = tuple(self._models(v) if n == "model" else v for n, v in zip(self._names, values, strict=True))
        if kept not in self._children and len(self._children) >= SERIES_LIMIT:
            kept = (OTHER,) * len(kept)
        # setdefault: of two threads that come first, both get the child that stays.
        return self._children.setdefault(kept, self._metric.labels(*kept))

    @property
    def series(self) -> dict[tuple[str, ...], M]:
        """All series so far by their label values."""
        return dict(self._children)


_FOLDER = configured_folder()
if _FOLDER is not None:
    write_to_folder()
# `*_created` would double the number of series for a time that Prometheus does not use.
prometheus_client.disable_created_metrics()


def _counter(name: str, text: str, *labels: str) -> Labelled[Counter]:
    return Labelled(Counter(name, text, labels), labels)


def _latest(name: str, text: str, *labels: str) -> Labelled[Gauge]:
    """A gauge of something that all processes see alike: who set it last is right."""
    return Labelled(Gauge(name, text, labels, multiprocess_mode="livemostrecent"), labels)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Labelled[Histogram]:
    return Labelled(Histogram(name, text, labels, buckets=buckets), labels)


# Requests (gateway). `route` is a route's template, `model` and `version` are empty where a request has none.
REQUESTS = _counter("sluice_requests_total", "HTTP requests answered.", "route", "model", "version", "outcome")
REQUEST_SECONDS = _histogram(
    "sluice_request_seconds",
    "Time from a request's first byte to its answer.",
    "route",
    "model",
    "version",
    buckets=LATENCY_BUCKETS,
)
# A method is one that is served, so both labels are closed lists. What a call asked for is counted above as well.
GRPC_CALLS = _counter("sluice_grpc_calls_total", "gRPC calls that ended, by their code.", "method", "code")
TOKENS_ISSUED = Counter("sluice_tokens_issued_total", "Access tokens issued.")
TOKENS_REFUSED = _counter("sluice_tokens_refused_total", "Access tokens refused, by reason.", "reason")
AUDIT_ENTRIES = _counter("sluice_audit_entries_total", "Acts that the audit log holds.", "act", "outcome")
AUDIT_DROPPED = Counter("sluice_audit_dropped_total", "Acts that the audit log lost because its buffer was full.")
AUDIT_CHANGED = Gauge(
    "sluice_audit_changed",
    "1 while a gateway refuses to sign the audit log, because it was changed.",
    multiprocess_mode="livemax",
)
# `sealing`: until entries have their place in the chain; `syslog`: until they were handed on.
AUDIT_LAG = _latest("sluice_audit_lag_seconds", "Age of the oldest entry that still waits.", "stage")
LIMITED = _counter("sluice_limited_requests_total", "Requests refused by a client's limit, by its kind.", "limit")
RATE_LEASES = _counter(
    "sluice_rate_leases_total", "Leases of rate tokens: whole, short, or local while Redis is away.", "outcome"
)
EVENT_STREAMS = Gauge(
    "sluice_event_streams", "Streams of events that are open at gateways.", multiprocess_mode="livesum"
)
DEPENDENCY_UP = Labelled(
    Gauge(
        "sluice_dependency_up",
        "1 while the database or Redis can be reached, else 0; the worst of all processes.",
        ("dependency",),
        multiprocess_mode="livemin",
    ),
    ("dependency",),
)

# Queue and jobs.
QUEUE_DEPTH = _latest("sluice_queue_predictions", "Asynchronous jobs that wait in the queue.", "model", "version")
QUEUE_AGE = _latest("sluice_queue_age_seconds", "Age of the oldest asynchronous job that waits.", "model", "version")
WAITING = Labelled(
    Gauge(
        "sluice_waiting_requests",
        "Synchronous requests that wait for their answer now.",
        ("model", "version"),
        multiprocess_mode="livesum",
    ),
    ("model", "version"),
)
WAITING_AGE = Labelled(
    Gauge(
        "sluice_waiting_age_seconds",
        "How long the oldest waiting synchronous request has waited.",
        ("model", "version"),
        multiprocess_mode="livemax",
    ),
    ("model", "version"),
)
JOBS = _counter("sluice_jobs_total", "Asynchronous jobs that reached a final state.", "model", "outcome")
REDISPATCHED = Counter("sluice_jobs_redispatched_total", "Jobs laid out again: lost with Redis, or with a worker.")
DEAD_LETTERS = Counter("sluice_dead_letters_total", "Jobs that failed by no fault of their own, attempts used up.")
FENCED_WRITES = Counter("sluice_fenced_writes_total", "Results refused because another attempt had taken over the job.")
FOREIGN_ENTRIES = Counter("sluice_foreign_entries_total", "Entries in Redis that were none of Sluice's, and dropped.")
WEBHOOK_DELIVERIES = _counter("sluice_webhook_deliveries_total", "Attempts to deliver webhooks.", "outcome")
WEBHOOK_AGE = Gauge(
    "sluice_webhook_age_seconds",
    "How long the webhook that is due longest has waited for its turn.",
    multiprocess_mode="livemostrecent",
)

# Traffic. A copy is `agreed`, `differed`, `failed` (the shadow answered with an error) or `dropped`.
SHADOW_REQUESTS = _counter(
    "sluice_shadow_requests_total", "Copies of requests for a model's shadow.", "model", "version", "outcome"
)
CANARY_SHARE = _latest("sluice_canary_share", "Share of traffic of a canary that is under way.", "model", "version")
CANARY_MOVES = _counter("sluice_canary_moves_total", "What became of canaries by themselves.", "model", "move")

# Workers.
WORKER_SLOTS = _latest("sluice_worker_slots", "Worker slots whose heartbeat is seen.", "pool")
# A time, so that nobody has to take it back: `sluice_quarantined_until_seconds > time()` says whether it still rests.
QUARANTINED_UNTIL = _latest(
    "sluice_quarantined_until_seconds", "Unix time until which a version is refused after crashes.", "model", "version"
)
DRAIN_SESSIONS = _counter("sluice_drain_sessions_total", "Sessions of worker slots, by how they ended.", "ending")
WORKER_CRASHES = _counter("sluice_worker_crashes_total", "Processes lost while a version ran.", "model", "version")
BATCH_INSTANCES = _histogram(
    "sluice_batch_instances", "Instances in one inference.", "model", "version", buckets=BATCH_BUCKETS
)
INFERENCE_SECONDS = _histogram(
    "sluice_inference_seconds", "Time of one inference.", "runtime", "model", "version", buckets=LATENCY_BUCKETS
)
MODEL_LOADS = _histogram(
    "sluice_predictor_load_seconds", "Time to load and warm up a predictor.", "runtime", buckets=LATENCY_BUCKETS
)
# `proved` again and serving, `refused`, or `unproven` for want of golden samples.
ENVIRONMENT_PROOFS = _counter(
    "sluice_environment_proofs_total",
    "Predictors loaded in another environment than the one that their version was prepared in.",
    "outcome",
)
LOADED_PREDICTORS = Gauge("sluice_loaded_predictors", "Predictors in memory.", multiprocess_mode="livesum")
PREDICTOR_BYTES = Gauge("sluice_predictor_bytes", "Memory of loaded predictors.", multiprocess_mode="livesum")
PINNED_PREDICTOR_BYTES = Gauge(
    "sluice_pinned_predictor_bytes", "Memory of loaded predictors of pinned models.", multiprocess_mode="livesum"
)
PREDICTOR_BUDGET_BYTES = Gauge(
    "sluice_predictor_budget_bytes", "Memory that processes may spend on predictors.", multiprocess_mode="livesum"
)
# `hit` where the batch's version was in memory, `miss` where it was loaded, or waited for a load.
PREDICTOR_USES = _counter("sluice_predictor_uses_total", "Batches by whether their version was loaded.", "outcome")
# `room` for others, `changed`, `gone` (retired, deleted, of another pool); `pinned` where the pins exceed the budget.
PREDICTOR_EVICTIONS = _counter("sluice_predictor_evictions_total", "Predictors that left memory.", "reason")
# Written once by each process (`watch_memory`), measured at each scrape for all of them: needs no thread anywhere.
RESIDENT_BYTES = Gauge(
    RESIDENT, "Resident memory of all processes of a kind.", ("process",), multiprocess_mode="liveall"
)

# 2 strict, 1 partial, 0 none; `demanded` is the least level that the setting allows.
RUNNER_LOCKDOWN = Labelled(
    Gauge(
        "sluice_runner_lockdown_level",
        "Lock-down of runners: 2 strict, 1 partial, 0 none; the worst of all processes.",
        ("process", "demanded"),
        multiprocess_mode="livemin",
    ),
    ("process", "demanded"),
)

# The store. A call is `ok`, `missing`, `full`, `refused` or `away`; `damaged` says where bytes were not those stored.
STORE_CALLS = _counter("sluice_store_calls_total", "Calls to a store that is a bucket.", "operation", "outcome")
STORE_FETCHES = _counter("sluice_store_fetches_total", "Artifacts asked of the local cache: hit or miss.", "outcome")
STORE_DAMAGED = _counter("sluice_store_damaged_total", "Artifacts found damaged: in the store or the cache.", "place")

# Preparation.
PREPARATIONS = _counter("sluice_preparations_total", "Preparations that ended, by outcome.", "outcome")
PREPARATION_SECONDS = _histogram(
    "sluice_preparation_seconds", "Time of one step of a preparation.", "step", buckets=PREPARATION_BUCKETS
)


class RequestMetrics:
    """The series of one route, model and version, for the path on which microseconds count."""

    __slots__ = ("_counters", "_labels", "_seconds")

    def __init__(self, route: str, model: str, version: str) -> None:
        self._labels = (route, model, version)
        self._seconds = REQUEST_SECONDS.labels(route, model, version)
        self._counters: dict[str, Counter] = {}

    def observe(self, outcome: str, seconds: float) -> None:
        """Counts one answered request; `outcome` comes from a closed list (`ok`, or an error's code)."""
        counter = self._counters.get(outcome)
        if counter is None:
            counter = self._counters[outcome] = REQUESTS.labels(*self._labels, outcome)
        counter.inc()
        self._seconds.observe(seconds)


class RequestSeries:
    """Remembers the `RequestMetrics` of each route, model and version; of 2,000 at most."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], RequestMetrics] = {}

    def __call__(self, route: str, model: str = "", version: object = "") -> RequestMetrics:
        key = (route, model, str(version))
        found = self._known.get(key)
        if found is None:
            found = RequestMetrics(*key)
            if len(self._known) < SERIES_LIMIT:
                self._known[key] = found
        return found


request_metrics = RequestSeries()


class BatchMetrics:
    """The series of one version's batches, for workers whose batches take some ten microseconds."""

    __slots__ = ("_instances", "_seconds")

    def __init__(self, runtime: str, model: str, version: int) -> None:
        self._seconds = INFERENCE_SECONDS.labels(runtime, model, version)
        self._instances = BATCH_INSTANCES.labels(model, version)

    def observe(self, seconds: float, instances: int) -> None:
        """Counts one inference."""
        self._seconds.observe(seconds)
        self._instances.observe(instances)


class BatchSeries:
    """Remembers the `BatchMetrics` of each version; of 2,000 at most."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], BatchMetrics] = {}

    def __call__(self, runtime: str, model: str, version: int) -> BatchMetrics:
        key = (runtime, model, version)
        found = self._known.get(key)
        if found is None:
            found = BatchMetrics(*key)
            if len(self._known) < SERIES_LIMIT:
                self._known[key] = found
        return found


batch_metrics = BatchSeries()


def show(gauge: Labelled[Gauge], picture: Mapping[tuple[object, ...], float]) -> None:
    """Sets a gauge to a whole picture, label values to value; this process's series that are not in it become 0.

    With an empty picture a process that no longer leads takes back what it said last.
    """
    shown = {tuple(map(str, values)): value for values, value in picture.items()}
    for values, series in gauge.series.items():
        if values not in shown:
            series.set(0)
    for values, value in shown.items():
        gauge.labels(*values).set(value)


def watch_memory(process: str) -> None:
    """Has `sluice_resident_bytes` measure this process, and every child that it forks, as one of kind `process`."""
    gauge = RESIDENT_BYTES.labels(process)
    if _FOLDER is None:
        gauge.set_function(lambda: resident_bytes(os.getpid()))
    else:
        gauge.set(0)


def exposition() -> bytes:
    """The metrics of all processes of the group (else of this one) in Prometheus's text format 0.0.4."""
    return generate_latest(_SCRAPED)


def forget_process(pid: int) -> None:
    """Ends the present-state gauges of a process that died; its counts stay. Scrapes do it for all dead ones, too."""
    if _FOLDER is not None:
        ProcessFolder(_FOLDER).forget(pid)


def start_fresh() -> None:
    """Removes what earlier processes left in the folder; call it once, where a group of processes starts."""
    if _FOLDER is not None:
        ProcessFolder(_FOLDER).empty()


class MetricsServer:
    """Serves the exposition over HTTP from a thread, on any path, until closed."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port
        # Forked children would hold the port after this process ended, and its successor could not listen.
        os.register_at_fork(after_in_child=server.socket.close)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(host: str, port: int) -> MetricsServer:
    """Starts the metrics server of a worker; port 0 takes a free one. OSError where the address is taken."""
    return MetricsServer(*prometheus_client.start_http_server(port, host, _SCRAPED))


def _scraped() -> CollectorRegistry:
    if _FOLDER is None:
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(ProcessFolder(_FOLDER))
    return registry


_SCRAPED = _scraped()
