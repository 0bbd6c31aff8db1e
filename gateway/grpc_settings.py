"""Settings of the gRPC port."""

from __future__ import annotations

from pydantic import Field

from model_store.settings import Settings


class GrpcSettings(Settings):
    """What bounds its calls and connections, beside what bounds those of HTTP."""

    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of the same protocols over gRPC, at the gateway's address; 0 is none."
    )
    grpc_calls: int = Field(
        4096, ge=1, description="Most gRPC calls under way at one gateway; more are RESOURCE_EXHAUSTED."
    )
    grpc_calls_per_client: int = Field(
        1024,
        ge=1,
        description="Most of them of one client, and of all callers without a token; more are RESOURCE_EXHAUSTED.",
    )
    grpc_streams_per_connection: int = Field(
        256, ge=1, le=65_536, description="Most gRPC calls under way on one connection; more wait at the caller."
    )
    grpc_keepalive_seconds: float = Field(
        60.0,
        ge=1,
        description="A gRPC connection silent for so long is pinged, and closed if half of it brings no answer.",
    )
    grpc_least_ping_seconds: float = Field(
        10.0, ge=0, description="gRPC callers that ping more often than this are sent away (`too_many_pings`)."
    )
    grpc_idle_seconds: float = Field(900.0, gt=0, description="A gRPC connection without calls is closed after this.")
    grpc_age_seconds: float = Field(
        3600.0, gt=0, description="After this a gRPC connection is asked to be made anew, so that load spreads."
    )
