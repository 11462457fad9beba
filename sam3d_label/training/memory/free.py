"""Free memory and precision of a device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch


def free_memory(device: torch.device) -> int | None:
    """Return the memory that a training may use, bytes: of the GPU, or of this process's share of the machine.

    Processes that torchrun started on one machine share its memory. None where the system does not report it.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu":
        return None
    free = min((psutil.virtual_memory().available, *cgroup_rooms()))
    return int(free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cgroup_rooms(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Return the free memory under each limit of this process's control groups, bytes; file caches count as free."""
    try:
        inside = next(line[3:] for line in own.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    folder = root / inside.strip("/")
    for group in (folder, *folder.parents):
        try:
            limit = int((group / "memory.max").read_text(encoding="ascii"))
            used = int((group / "memory.current").read_text(encoding="ascii"))
            stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        except (OSError, ValueError):
            continue  # there is no such file at the root, and "max" is no limit
        yield max(0, limit - used + int(stat.get("inactive_file", 0)))
