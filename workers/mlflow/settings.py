"""Settings of imports from MLflow: which server, and who this installation is to it."""

from __future__ import annotations

from pydantic import Field, SecretStr

from model_store.settings import Settings


class MlflowSettings(Settings):
    """The one server that models are imported from; no request names another."""

    mlflow_url: str = Field(
        "",
        pattern=r"^(https?://[A-Za-z0-9_.:\[\]-]{1,253}(/[A-Za-z0-9._~/-]{0,200})?)?$",
        description=(
            "URL of the MLflow tracking server that models may be imported from; empty: there are no imports. Gateways "
            "and background workers need it."
        ),
    )


class MlflowAccessSettings(MlflowSettings):
    """And what only the worker that fetches needs."""

    mlflow_token: SecretStr | None = Field(
        None, description="Bearer token for the MLflow server; or `user:password` for its basic authentication."
    )
    mlflow_import_seconds: float = Field(
        3600.0,
        gt=0,
        le=86_400,
        description=(
            "How long an import may take in all, from when it is first fetched for to its version, attempts and pauses "
            "between them included."
        ),
    )
    mlflow_seconds: float = Field(
        30.0, gt=0, le=600, description="How long the MLflow server may be silent before a request to it is given up."
    )
