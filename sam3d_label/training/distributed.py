"""The processes that train together: one, or as many as torchrun started, on one machine or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from sam3d_label.errors import Sam3dError

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, such as for the first of them to read the cases."""

Sent = TypeVar("Sent")


@dataclass(frozen=True)
class World:
    """The processes of a training.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and output."""
        return self.rank == 0

    def gather(self, value: Sent) -> list[Sent]:
        """Return the values of all processes, by rank; all of them call it."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        distributed.all_gather_object(values, value)
        return values

    def from_main(self, make: Callable[[], Sent]) -> Sent:
        """Return what the main process makes, the only one that does; all of them call it."""
        made = [make() if self.is_main else None]
        if self.size > 1:
            distributed.broadcast_object_list(made, src=0, device=self.device)
        (sent,) = made
        assert sent is not None
        return sent


def is_main() -> bool:
    """Return whether this process of torchrun writes files and output."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def world(device: str) -> Iterator[World]:
    """Join the processes that torchrun started with this one; a single process without it.

    Args:
        device: Where to compute; under torchrun `cuda` is the GPU with this process's number on its machine.

    Raises:
        Sam3dError: The others cannot be reached, or one of them was lost.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size == 1:
        yield World(0, 1, torch.device(device))
        return
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    try:
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
        yield World(rank, size, place)
    except (distributed.DistError, RuntimeError) as error:
        if isinstance(error, distributed.DistError) or is_about_peers(error):
            raise Sam3dError(
                f"process {rank} of {size} lost the others, so the training ended; the last checkpoint is kept:"
                f" run the same command again with --resume. ({str(error).splitlines()[0]})"
            ) from error
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def is_about_peers(error: RuntimeError) -> bool:
    """Return whether gloo or nccl complains of another process."""
    words = ("peer", "connection", "timed out", "timeout", "gloo", "nccl", "socket")
    return any(word in str(error).lower() for word in words)
