"""What is measured: one file for each experiment, and all of them in the order in which they run."""

from __future__ import annotations

from benchmarks.experiments.answers import ANSWERS
from benchmarks.experiments.append_only import APPEND_ONLY
from benchmarks.experiments.backlog import BACKLOG, BACKLOG_POSTGRESQL
from benchmarks.experiments.batch_file import BATCH_FILE
from benchmarks.experiments.compute import COMPUTE
from benchmarks.experiments.crowds import CLIENTS, GATEWAYS, VERSIONS
from benchmarks.experiments.estimates import ESTIMATES
from benchmarks.experiments.fairness import FAIRNESS
from benchmarks.experiments.formats import FORMAT, INSTANCES, PHOTOGRAPH
from benchmarks.experiments.limits import LIMITS, RATE
from benchmarks.experiments.many_models import MANY_MODELS
from benchmarks.experiments.slowness import SLOWNESS
from benchmarks.experiments.starts import STARTS
from benchmarks.experiments.submits import SUBMITS
from benchmarks.experiments.throughput import THROUGHPUT

ALL = (
    ANSWERS,
    THROUGHPUT,
    FORMAT,
    PHOTOGRAPH,
    INSTANCES,
    COMPUTE,
    SUBMITS,
    BACKLOG,
    BACKLOG_POSTGRESQL,
    BATCH_FILE,
    CLIENTS,
    VERSIONS,
    MANY_MODELS,
    FAIRNESS,
    ESTIMATES,
    SLOWNESS,
    GATEWAYS,
    LIMITS,
    RATE,
    APPEND_ONLY,
    STARTS,
)
