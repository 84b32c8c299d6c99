"""What belongs to the machine and not to the result, from the environment: `TWOTEMPO_…`."""

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from recsys_core.config import describe_errors
from recsys_core.errors import ConfigError


class Settings(BaseSettings):
    """How long a step may take, how often an edge is tried again, when `twotempo serve` runs; never
    part of params.yaml."""

    model_config = SettingsConfigDict(env_prefix="TWOTEMPO_", frozen=True)

    stage_timeout_minutes: float = Field(default=720.0, gt=0)
    edge_timeout_minutes: float = Field(default=120.0, gt=0)
    edge_retries: int = Field(default=2, ge=0)
    edge_retry_seconds: float = Field(default=10.0, ge=0)
    source_dsn: SecretStr | None = None
    table_dsn: SecretStr | None = None
    cron: str = "0 3 * * *"
    timezone: str = "UTC"


def read_settings() -> Settings:
    """The settings of this environment; a value that cannot be used is a `ConfigError`."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError(describe_errors(error, where="environment (TWOTEMPO_…)")) from error
