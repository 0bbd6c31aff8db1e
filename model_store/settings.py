"""Settings of the database and the model store, and the base class of all settings.

Every setting is an environment variable `SLUICE_<NAME>`. A secret may come from a file instead:
`SLUICE_<NAME>_FILE` names it, as container platforms mount secrets; or `SLUICE_<NAME>_COMMAND` prints it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from model_store.formats import DEFAULT_FORMATS, known_formats

PREFIX = "SLUICE_"
COMMAND_SECONDS = 30


class FileSource(PydanticBaseSettingsSource):
    """Reads `SLUICE_<NAME>_FILE`: the value is the file's text without surrounding white space."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic's signature
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        return (Path(path).read_text().strip() if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class CommandSource(FileSource):
    """Reads `SLUICE_<NAME>_COMMAND` of secrets: the value is what the command prints, as a key service's tool does."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        command = os.environ.get(f"{PREFIX}{field_name.upper()}_COMMAND")
        if not command or field.annotation not in (SecretStr, SecretStr | None):
            return None, field_name, False
        try:
            # No shell: the words are the program and its arguments.
            ended = subprocess.run(  # noqa: S603 - whoever sets the environment decides what this process is
                shlex.split(command), check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS
            )
        except subprocess.SubprocessError as error:
            # Neither the command nor what it printed: both may hold secrets.
            raise OSError(f"{PREFIX}{field_name.upper()}_COMMAND failed: {type(error).__name__}") from None
        return ended.stdout.strip(), field_name, False


class Settings(BaseSettings):
    """Base of all settings classes; unknown variables are ignored, since several programs share one environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSource(settings_cls), CommandSource(settings_cls)


class StoreSettings(Settings):
    """Where models, versions and their artifacts are kept."""

    database_url: SecretStr = Field(
        SecretStr("sqlite:///sluice-data/sluice.db"),
        description="SQLAlchemy URL: `sqlite:///path` (one host) or `postgresql+psycopg://user:password@host/name`.",
    )
    store_dir: Path = Field(
        Path("sluice-data/store"),
        description=(
            "Folder of the model store; all processes share it. With `store_url`, a folder of each machine's own, for "
            "what is on its way and for the cache."
        ),
    )
    store_url: str = Field(
        "",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]{1,100}){0,8}/?)?$",
        description="`s3://bucket/prefix`: the store is a bucket that speaks S3; empty: it is the folder.",
    )
    store_endpoint: str = Field(
        "", pattern=r"^(https?://[^\s@]{1,500})?$", description="URL of the S3 server; empty: AWS's own."
    )
    store_region: str = Field("", pattern=r"^[a-z0-9-]{0,32}$", description="Region of the bucket, if it needs one.")
    store_access_key: SecretStr | None = Field(
        None, description="Access key id of the bucket; without it, AWS's usual places are looked at."
    )
    store_secret_key: SecretStr | None = Field(None, description="Secret access key that belongs to it.")
    store_seconds: float = Field(
        20.0, gt=0, le=600, description="How long a call to the bucket may take, beside a second for each MiB."
    )
    store_cache_bytes: int = Field(
        20 * 1024**3, ge=0, description="Most bytes of artifacts of a bucket that are kept on this machine's disk."
    )
    storage_key: SecretStr | None = Field(
        None,
        min_length=43,
        description=(
            "Key under which models and the inputs and results of jobs are encrypted where they are kept: as "
            "`SLUICE_MASTER_KEY`, but another one. Gateways and workers need it. Without it nothing is encrypted."
        ),
    )
    upload_limit_bytes: int = Field(2 * 1024**3, ge=1, description="Largest model file that an upload may bring.")
    upload_formats: Annotated[str, AfterValidator(known_formats)] = Field(
        DEFAULT_FORMATS,
        description=(
            "Formats of uploads that are taken, separated by commas. `savedmodel` and `torchscript` are programs: add "
            "them only where everyone who may upload is trusted (docs/programs.md)."
        ),
    )
