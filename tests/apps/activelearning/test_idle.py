"""Background work runs only while nobody needs the machine."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.activelearning.idle import Idleness, between_layers
from sam3d_label.training.busy import BusySign, TrainingSign


def test_a_server_without_clicks_and_training_is_idle(tmp_path: Path) -> None:
    assert Idleness(tmp_path, 10)()


def test_it_is_not_idle_during_a_click_and_for_some_time_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, sign = Idleness(tmp_path, 10), BusySign(tmp_path)
    with sign.show():
        assert not idle()
    assert not idle()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 9)
    assert not idle()
    monkeypatch.setattr(time, "time", lambda: now + 12)
    assert idle()


def test_the_end_of_one_click_does_not_hide_another(tmp_path: Path) -> None:
    sign = BusySign(tmp_path)
    with sign.show():
        with sign.show():
            pass
        assert sign.seconds_left() > 10
    assert sign.seconds_left() < 2


def test_it_is_not_idle_during_a_training(tmp_path: Path) -> None:
    idle, sign = Idleness(tmp_path, 0), TrainingSign(tmp_path)
    with sign.show():
        assert not idle()
    assert idle()


def test_a_click_stops_a_network_between_two_layers(tmp_path: Path) -> None:
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(200)))
    computed: list[int] = []
    for layer in layers:
        layer.register_forward_hook(lambda *_: computed.append(threading.get_ident()))

    def score() -> None:
        with between_layers(Idleness(tmp_path, 0).wait):
            layers(torch.zeros(4))

    thread = threading.Thread(target=score)
    with BusySign(tmp_path).show():
        thread.start()
        layers(torch.zeros(4))  # another thread does not wait
        time.sleep(0.3)
        assert set(computed) == {threading.get_ident()}
    thread.join(30)
    assert computed.count(thread.ident or 0) == 200
