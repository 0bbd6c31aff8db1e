"""The collaborators of a gateway, made once at start and handed to whatever needs them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from auth.failures import Failures
from auth.keys import KeyRing
from auth.people import PasswordCheck
from auth.tokens import Issuer
from gateway.admission import Admission
from gateway.health import Health
from gateway.job_submission import JobSubmission
from gateway.job_watch import JobWatch
from gateway.settings import GatewaySettings
from gateway.snapshot import Snapshot
from gateway.submission import Submission
from model_store.artifacts import Artifacts
from model_store.database import Sessions
from workers.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that routes and the prediction endpoint work with."""

    settings: GatewaySettings
    engine: Engine
    sessions: Sessions
    artifacts: Artifacts
    snapshot: Snapshot
    keys: KeyRing
    issuer: Issuer
    failures: Failures
    password_check: PasswordCheck
    admission: Admission
    submission: Submission
    jobs: JobSubmission
    watch: JobWatch
    publisher: Publisher
    health: Health
