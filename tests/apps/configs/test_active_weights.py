"""Which weights serve until a version is published."""

import pytest

from lib.configs.active_weights import configured
from lib.configs.app_config import AppConfig
from sam3d_label.errors import WeightsError
from sam3d_label.weights import open_weights


def test_without_settings_the_shipped_default_serves():
    assert configured(AppConfig()).signature == open_weights().signature


@pytest.mark.parametrize("name", ["tiny", "tiny-geodesic"])
def test_the_preset_of_shipped_weights_stands_for_them(name):
    assert configured(AppConfig(preset=name)).signature == open_weights(name).signature


def test_weights_of_another_preset_are_refused():
    with pytest.raises(WeightsError, match=r"--conf preset tiny: weights tiny-geodesic is of preset tiny-geodesic"):
        configured(AppConfig(preset="tiny", weights="tiny-geodesic"))
