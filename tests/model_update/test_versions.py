"""Versions appear whole, serve by one rename, and can be gone back to."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sys

import pytest

from sam3d_label.errors import WeightsError
from sam3d_label.model_update.report import Activation
from sam3d_label.model_update.versions import INITIAL, REPORT, Versions
from sam3d_label.weights import open_weights
from sam3d_label.weights.adapter import save_adapter, save_trunk


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "versions")


@pytest.fixture
def add(versions, small_weights):
    """Adds a version that opens."""

    def add():
        with versions.new_version() as (name, folder):
            base = small_weights.card.base.model_copy(update={"sha256": None})
            save_trunk(small_weights.model, folder / "trunk.safetensors")
            save_adapter(
                small_weights.model, small_weights.card.model_copy(update={"version": name, "base": base}), folder
            )
        return name

    return add


def test_an_empty_folder_has_no_version(versions):
    assert versions.names() == []
    assert versions.current() is None
    assert versions.history() == []
    with pytest.raises(WeightsError, match="nothing to roll back to"):
        versions.rollback()


def test_versions_are_numbered_and_one_serves(versions, add):
    assert [add(), add()] == ["0001", "0002"]
    assert versions.current() is None
    versions.publish("0002", "gate")
    assert versions.current() == "0002"
    assert open_weights(versions.folder / "current").version == "0002"
    assert [(entry.version, entry.by) for entry in versions.history()] == [("0002", "gate")]


def test_rolling_back_goes_to_what_served_before(versions, add):
    for _ in range(3):
        versions.publish(add(), "gate")
    assert versions.rollback() == "0002"
    assert versions.current() == "0002"
    assert versions.rollback("0003") == "0003"
    assert versions.rollback() == "0002"
    assert versions.rollback(INITIAL) == INITIAL
    assert versions.current() is None


def test_the_first_version_rolls_back_to_what_was_there_before(versions, add):
    versions.publish(add(), "gate")
    assert versions.rollback() == INITIAL
    assert versions.current() is None
    assert [entry.version for entry in versions.history()] == ["0001", INITIAL]


def test_an_unknown_or_incomplete_version_does_not_serve(versions, add):
    with pytest.raises(WeightsError, match="no version 0007: no version was published"):
        versions.publish("0007", "gate")
    (versions.folder / add() / "card.json").unlink()
    with pytest.raises(WeightsError, match=r"0001 lacks card\.json"):
        versions.publish("0001", "gate")
    assert versions.current() is None


def test_what_is_left_unfinished_is_no_version(versions):
    with pytest.raises(WeightsError, match="was left without"), versions.new_version() as (_, folder):
        (folder / "card.json").write_text("{}")
    assert versions.names() == []
    assert [path.name for path in versions.folder.iterdir()] == [".lock"]


def test_a_damaged_history_reports_it(versions, add):
    versions.publish(add(), "gate")
    (versions.folder / "history.json").write_text("[{")
    with pytest.raises(WeightsError, match="damaged, remove it"):
        versions.history()
    assert versions.current() == "0001"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_publisher_killed_at_any_moment_leaves_complete_versions(versions, add):
    """Also `kill -9`, a hundred times: what serves is always whole, and the next publisher goes on."""
    first = versions.folder / add()
    versions.publish("0001", "gate")
    whole = (first / "adapter.safetensors").read_bytes()

    def publish():
        with versions.new_version() as (name, folder):
            shutil.copytree(first, folder, dirs_exist_ok=True)
        versions.publish(name, "gate")

    def publish_until_killed(calls):
        """Moments are counted in calls and returns of functions, so that a slow machine sees the same ones."""
        left = iter(range(calls))
        sys.setprofile(lambda *_: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))
        while True:
            publish()

    seen = itertools.count()
    sys.setprofile(lambda *_: next(seen))
    publish()
    sys.setprofile(None)
    calls_of_one = next(seen)  # more in a folder of more versions
    moments = random.Random(0)
    served = {versions.current()}
    for _ in range(100):
        moment = moments.randrange(4 * calls_of_one)
        child = os.fork()
        if child == 0:
            publish_until_killed(moment)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        current = versions.current()
        served.add(current)
        assert (versions.path(current) / "adapter.safetensors").read_bytes() == whole
        assert versions.history()[-1].version == current
    assert all(versions.path(name) for name in versions.names())
    assert len(served) > 20
    versions.publish(add(), "gate")
    assert versions.current() == versions.names()[-1]


@pytest.mark.parametrize("gate", [{"passes": True}, {}, None])
def test_activating_a_version_that_the_gate_did_not_reject_is_not_against_it(versions, add, gate):
    name = add()
    (versions.folder / name / REPORT).write_text(json.dumps({"gate": gate}))
    versions.publish(name, "the page")
    assert versions.manual_activation(name) is None


def test_activating_a_rejected_version_is_remembered_after_a_rollback(versions, add):
    names = [add(), add()]
    (versions.folder / names[1] / REPORT).write_text(json.dumps({"gate": {"passes": False}}))
    versions.publish(names[0], "gate")
    assert versions.manual_activation(names[1]) is None
    versions.publish(names[1], "the page")
    assert versions.previous() == names[0]
    versions.rollback(by="command line")
    assert versions.manual_activation(names[1]).by == "the page"


def test_an_activation_can_depend_on_the_latest_one(versions, add):
    assert versions.latest_activation() == Activation(version=INITIAL)
    before = versions.latest_activation()
    first = versions.publish(add(), "gate", after=before)
    assert (first.version, versions.latest_activation()) == ("0001", first)
    second = add()
    assert versions.publish(second, "gate", after=before) == first, "it came after the expected one"
    assert versions.current() == "0001"
    assert [entry.version for entry in versions.history()] == ["0001"]
