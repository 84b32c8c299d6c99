"""Settings of the machine come from the environment, and a wrong one is named."""

import pytest

from recsys_core.errors import ConfigError
from tasks.settings import read_settings


def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOTEMPO_EDGE_RETRIES", "0")
    monkeypatch.setenv("TWOTEMPO_STAGE_TIMEOUT_MINUTES", "1.5")
    settings = read_settings()
    assert settings.edge_retries == 0
    assert settings.stage_timeout_minutes == 1.5


def test_a_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOTEMPO_EDGE_RETRIES", "-1")
    with pytest.raises(ConfigError, match="edge_retries: Input should be greater than") as caught:
        read_settings()
    assert "\n" not in str(caught.value)
