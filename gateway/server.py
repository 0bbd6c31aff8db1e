"""Runs a gateway process."""

from __future__ import annotations

from gateway.app import create_app
from gateway.listening import listen
from gateway.settings import GatewaySettings
from monitoring import logs, metrics


def serve(settings: GatewaySettings) -> None:
    """Listen and answer until told to stop; requests under way are finished first."""
    logs.configure("gateway")
    app = create_app(settings)
    if settings.gateway_metrics_port:
        metrics.serve_metrics(settings.gateway_metrics_host, settings.gateway_metrics_port)
    listen(app, settings)
