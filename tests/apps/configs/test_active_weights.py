"""The weights that the configuration names."""

from __future__ import annotations

import pytest

from lib.configs.active_weights import configured
from lib.configs.app_config import parse_config


@pytest.mark.parametrize("preset", ["tiny", "lite"])
def test_a_preset_with_shipped_weights_uses_them(preset: str) -> None:
    weights = configured(parse_config({"preset": preset}))
    assert weights.card.preset == preset
    assert "positive_click" in weights.card.capabilities
