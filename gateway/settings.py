"""Settings of a gateway process."""

from __future__ import annotations

import secrets

from pydantic import Field

from auth.audit_settings import AuditSettings
from auth.people_settings import PeopleSettings
from auth.settings import AuthSettings
from gateway.grpc_settings import GrpcSettings
from gateway.transport_settings import TransportSettings
from model_store.settings import StoreSettings
from workers.mlflow.settings import MlflowSettings
from workers.settings import QueueSettings
from workers.webhooks.settings import WebhookSettings


class GatewaySettings(
    TransportSettings,
    GrpcSettings,
    AuthSettings,
    PeopleSettings,
    AuditSettings,
    WebhookSettings,
    MlflowSettings,
    QueueSettings,
    StoreSettings,
):
    """What a gateway needs: it alone sees signing keys and the key of the clients' secrets."""

    host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port that the gateway listens on.")
    gateway_name: str = Field(
        default_factory=lambda: f"g{secrets.token_hex(6)}",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Name of this gateway process; unique; made up at start by default.",
    )
    body_limit_bytes: int = Field(16 * 1024**2, ge=1024, description="Largest body of a prediction request.")
    packing_bytes: int = Field(
        1024**2,
        ge=1,
        description=(
            "From this size on, answers of predictions are packed for callers whose Accept-Encoding names gzip or "
            "deflate."
        ),
    )
    client_concurrency: int = Field(
        1000,
        ge=0,
        description=(
            "Most requests for predictions of one client that are answered at the same time, over all gateways; 0 is "
            "any number. A client's own limits come before this and the three that follow."
        ),
    )
    client_requests_per_second: float = Field(
        0, ge=0, le=1_000_000, description="Requests for predictions a second of one client; 0 is any number."
    )
    client_instances_per_day: int = Field(0, ge=0, description="Instances of one client on one day; 0 is any number.")
    client_bytes_per_day: int = Field(0, ge=0, description="Bytes of bodies of one client on one day; 0 is any number.")
    upload_signatures: str = Field(
        "optional",
        pattern="^(optional|required)$",
        description="Whether uploads must carry a signature of a known upload key: `optional` or `required`.",
    )
    result_url_seconds: int = Field(
        900,
        ge=1,
        le=7 * 86_400,
        description="How long the address of a large result (`result_url`) is good, for whoever has it.",
    )
    docs_public: bool = Field(True, description="Whether `/docs` and `/openapi.json` answer without a token.")
    metrics_public: bool = Field(False, description="Whether `/metrics` answers without a token.")
    gateway_metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of a `/metrics` without a token, apart from the rest; 0 is none."
    )
    webhook_keep_seconds: float = Field(
        7 * 24 * 3600.0, gt=0, description="How long the log of a webhook's delivery is kept."
    )
    streams: int = Field(1000, ge=0, description="Most streams of events that are open at one gateway; 503 beyond.")
    streams_per_client: int = Field(
        20, ge=0, description="Most streams of events of one client that are open at one gateway; 429 beyond."
    )
    stream_seconds: float = Field(
        900.0, gt=0, description="How long a stream of events lasts before its reader has to come again."
    )
    gateway_metrics_host: str = Field("127.0.0.1", description="Address that this `/metrics` listens on.")
