"""Free memory."""

from __future__ import annotations

import pytest
import torch

from sam3d_label.training.memory.free import cgroup_rooms, free_memory

CPU = torch.device("cpu")


def test_limits_of_a_container_count(tmp_path):
    own, group = tmp_path / "cgroup", tmp_path / "fs" / "pod" / "container"
    own.write_text("0::/pod/container\n", encoding="utf-8")
    group.mkdir(parents=True)
    for folder, limit in ((group, "1000"), (group.parent, "max")):
        (folder / "memory.max").write_text(limit, encoding="ascii")
        (folder / "memory.current").write_text("700", encoding="ascii")
        (folder / "memory.stat").write_text("anon 500\ninactive_file 200\n", encoding="ascii")
    assert list(cgroup_rooms(tmp_path / "fs", own)) == [500]
    assert list(cgroup_rooms(tmp_path / "fs", tmp_path / "nothing")) == []


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    whole = free_memory(CPU)
    if whole is None:
        pytest.skip("this system does not tell what is free")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    shared = free_memory(CPU)
    assert shared is not None
    assert shared < whole / 2
