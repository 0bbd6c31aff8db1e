"""The collaborators of a gateway, made once at start and handed to whatever needs them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from auth.assertions import Assertions
from auth.failures import Failures
from auth.foreign_tokens import FederatedVerifier
from auth.signing_keys import SigningKeys
from auth.tokens import Issuer
from gateway.admission import Admission
from gateway.assembling import Assembling
from gateway.audit_log import AuditLog
from gateway.audit_trail import AuditTrail
from gateway.end_channel import EndChannel
from gateway.end_feed import EndFeed
from gateway.event_streams import EventStreams
from gateway.figure_buffer import FigureBuffer
from gateway.health import Health
from gateway.inference_statistics import InferenceStatistics
from gateway.job_results import JobResults
from gateway.job_submission import JobSubmission
from gateway.job_watch import JobWatch
from gateway.key_keeping import KeyKeeping
from gateway.limits import Limits
from gateway.page_tokens import PageTokens
from gateway.people_parts import PeopleParts
from gateway.queue_outlook import QueueOutlook
from gateway.settings import GatewaySettings
from gateway.shadowing import Shadowing
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
    assembling: Assembling
    snapshot: Snapshot
    keys: SigningKeys
    key_keeping: KeyKeeping
    verifier: FederatedVerifier
    issuer: Issuer
    assertions: Assertions
    failures: Failures
    people: PeopleParts
    audit_log: AuditLog
    audit: AuditTrail
    admission: Admission
    submission: Submission
    figures: FigureBuffer
    shadowing: Shadowing
    outlook: QueueOutlook
    statistics: InferenceStatistics
    limits: Limits
    jobs: JobSubmission
    results: JobResults
    pages: PageTokens
    watch: JobWatch
    end_feed: EndFeed
    end_channel: EndChannel
    streams: EventStreams
    publisher: Publisher
    health: Health
