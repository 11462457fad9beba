"""Limits come from `--conf`, like every key of the app."""

from __future__ import annotations

import pytest

from lib.configs.app_config import ConfigError, parse_config
from lib.configs.limits import RequestLimits


def test_limits_have_defaults_and_are_set_by_conf() -> None:
    assert parse_config({}).max_clicks == RequestLimits().max_clicks
    limits = parse_config({"max_clicks": "64", "max_upload_mb": "100"})
    assert isinstance(limits, RequestLimits)
    assert (limits.max_clicks, limits.max_upload_bytes) == (64, 100 * 2**20)


@pytest.mark.parametrize(("key", "value"), [("max_clicks", "0"), ("max_json_depth", "1000"), ("max_upload_mb", "much")])
def test_a_limit_that_protects_nothing_stops_the_start(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--conf {key}"):
        parse_config({key: value})


def test_the_limits_of_files_reach_the_reader() -> None:
    limits = parse_config({"max_voxels": "1000", "max_axis": "30", "max_inflated_mb": "2"}).volumes
    assert (limits.max_voxels, limits.max_axis, limits.max_inflated_mb) == (1000, 30, 2)
