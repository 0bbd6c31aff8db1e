"""Settings of the audit log; a gateway reads them."""

from __future__ import annotations

from pydantic import Field, field_validator

from model_store.settings import Settings
from monitoring.syslog import SyslogAddress


class AuditSettings(Settings):
    """What the audit log holds, for how long, and where it goes besides."""

    audit_predictions: float = Field(
        0.0, ge=0, le=1, description="Share of predictions that get an entry in the audit log; 0 is none, 1 all."
    )
    audit_days: int = Field(0, ge=0, le=36_500, description="How long the audit log keeps entries; 0 is for ever.")
    audit_syslog: str | None = Field(
        None, max_length=256, description="Where entries go besides: `udp://host:514`, `tcp://host:601`, or `/dev/log`."
    )
    audit_head_seconds: float = Field(
        60.0, ge=0.1, le=86_400, description="How often the end of the audit log is signed while entries come."
    )

    @field_validator("audit_syslog")
    @classmethod
    def _check(cls, value: str | None) -> str | None:
        if value is not None:
            SyslogAddress.parse(value)
        return value
