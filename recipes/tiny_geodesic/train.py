"""Train `tiny` with geodesic prompts and candidates on a GPU.

python -m recipes.tiny_geodesic.train PACK OUT --start WEIGHTS

PACK is what `recipes.tiny_geodesic.pack` wrote, WEIGHTS the flat safetensors file that the training goes on from. The
result is OUT/ema.safetensors, the running average of all parameters, written every two minutes and at the end, which
comes after the given seconds or with SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.tiny_geodesic.crops import Cropper, StoredVolume
from recipes.tiny_geodesic.pack import PackedVolume
from recipes.tiny_geodesic.session import BatchSession
from recipes.tiny_geodesic.sources import Source, find_targets
from recipes.tiny_geodesic.synthesis import work
from sam3d_label.network import PRESETS, SAM3D, Config

SHARES = {
    "mr": 0.13,
    "ct": 0.12,
    "pet": 0.13,
    "organs": 0.05,
    "vessels": 0.03,
    "cord": 0.02,
    "piece": 0.07,
    "other": 0.08,
    "planted": 0.11,
    "lesion": 0.07,
    "organ": 0.05,
    "region": 0.03,
    "synth": 0.11,
}
"""Share of the crops of each kind of case."""

SALIENT_SHARES = {"mr": 0.35, "ct": 0.3, "pet": 0.15, "lesion": 0.2}
"""The same where a target is found without a prompt."""

ELSEWHERE = 0.3
"""Share of the crops without a prompt that need not show a target."""

MADE = {"planted": 400, "lesion": 400, "organ": 300, "region": 200, "synth": 600}
"""Made images that are kept at a time; older ones give way."""

KINDS = {"click": 0.66, "box": 0.09, "rough": 0.18, "none": 0.07}
"""Share of the batches by the first prompt of a session."""

FEWEST_MADE = 5
LEARNING_RATE, WEIGHT_DECAY, WARM_UP, CLIP, AVERAGE = 1.2e-3, 0.02, 80, 1.0, 0.998
LAST_RATE = 0.01
"""Learning rate at the end, as a share of the highest."""

SAVE_EVERY, LOG_EVERY, PER_STEP = 120.0, 50, 2
CONFIG = PRESETS["tiny-geodesic"]
OFFSETS = (0.0, 1.5, -1.5)
"""Initial offsets of the candidates' logits: one unchanged, one larger, one smaller."""


def start_network(path: Path, config: Config) -> SAM3D:
    """Start the network from parameters of `tiny` with ten geodesic channels or none."""
    tensors, model = load_file(path), SAM3D(config)
    state = model.state_dict()
    for name, own in state.items():
        given = tensors.get(name)
        if given is None:
            continue
        if given.shape != own.shape:
            given = with_scales(given.float(), own)
        state[name] = given.to(own.dtype)
    state |= {
        f"fine_path.candidates.out.{what}": torch.cat(
            [state[f"fine_path.out.{what}"] + (offset if what == "bias" else 0) for offset in OFFSETS]
        )
        for what in ("weight", "bias")
        if f"fine_path.candidates.out.{what}" not in tensors
    }
    model.load_state_dict(state)
    return model


def with_scales(given: Tensor, own: Tensor) -> Tensor:
    """Extend a kernel over six drawn channels and maps of two scales to maps of three; the third starts at zero."""
    kernel = torch.zeros_like(own)
    kernel[:, :6] = given[:, :6]
    if given.shape[1] == 16:
        maps, wider = given[:, 6:14].unflatten(1, (4, 2)), kernel[:, 6:18].unflatten(1, (4, 3))
        wider[:, :, :2] = maps
        kernel[:, 6:18], kernel[:, 18:] = wider.flatten(1, 2), given[:, 14:]
    return kernel


def unpack(path: Path) -> tuple[PackedVolume, list[Source]]:
    """Unpack a volume and its training targets."""
    packed, rng = PackedVolume.read(path), np.random.default_rng(0)
    fewest = 60 if packed.kind in ("organs", "vessels") else 1
    sources = []
    for pool, label, least in ((packed.kind, packed.label, fewest), ("piece", packed.pieces, 200)):
        if label is not None:
            pool = "other" if pool == "piece" and packed.kind not in ("mr", "ct") else pool
            targets = find_targets(label, rng, least)
            sources.append(Source(pool, packed.image, label, packed.spacing, packed.norm, targets))
    return packed, [source for source in sources if source.targets]


class Supply:
    """All sources on the device: real ones, and synthetic ones as they arrive.

    Args:
        real: Sources that stay.
        feed: Folder in which processes put made ones.
        device: Where crops are cut.
        rng: Chance.
    """

    def __init__(self, real: Sequence[Source], feed: Path, device: torch.device, rng: np.random.Generator) -> None:
        self.device, self.rng, self.feed = device, rng, feed
        self.pools: dict[str, list[StoredVolume]] = {pool: [] for pool in SHARES}
        for source in real:
            self.pools[source.pool].append(StoredVolume.of(source, device))
        self.made: dict[str, int] = dict.fromkeys(MADE, 0)
        self.coming: queue.Queue[Source] = queue.Queue(8)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            for path in sorted(self.feed.glob("*.pkl")):
                self.coming.put(pickle.loads(path.read_bytes()))
                path.unlink()
            time.sleep(0.2)

    def refill(self, wait: bool = False) -> None:
        """Store the sources that have arrived."""
        for _ in range(PER_STEP):
            try:
                source = self.coming.get(wait, 60)
            except queue.Empty:
                return
            pool = self.pools[source.pool]
            pool.append(StoredVolume.of(source, self.device))
            self.made[source.pool] += 1
            if len(pool) > MADE[source.pool]:
                pool.pop(int(self.rng.integers(len(pool) // 2)))

    def choose(self, count: int, shares: dict[str, float]) -> list[tuple[StoredVolume, int]]:
        """Return targets, drawn by the shares of their kinds."""
        kinds = [kind for kind in shares if self.pools[kind]]
        weights = np.array([shares[kind] for kind in kinds])
        chosen = []
        for kind in self.rng.choice(kinds, size=count, p=weights / weights.sum()):
            stored = self.pools[kind][self.rng.integers(len(self.pools[kind]))]
            values = list(stored.source.targets)
            chosen.append((stored, values[self.rng.integers(len(values))]))
        return chosen


class Averaged:
    """Running average of parameters."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters, self.steps = parameters, 0
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present ones."""
        self.steps += 1
        share = 1 - min(AVERAGE, self.steps / (self.steps + 9))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], share)


def save(model: SAM3D, values: Sequence[Tensor], path: Path) -> None:
    """Write parameters, bf16."""
    names = [name for name, _ in model.named_parameters()]
    tensors = {n: v.detach().to(torch.bfloat16).contiguous().cpu() for n, v in zip(names, values, strict=True)}
    save_file(tensors, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def learning_rate(step: int, share: float) -> float:
    """Return the learning rate at a step and elapsed share of the time: warm-up, then a cosine."""
    falling = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share - 0.04) / 0.96)))
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (falling * (1 - LAST_RATE) + LAST_RATE)


def workers(count: int, reals: Sequence[PackedVolume], feed: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    """Start processes that make images until this one ends."""
    context = multiprocessing.get_context("fork")
    for number in range(count):
        process = context.Process(target=work, args=(number, 20270, reals, feed), daemon=True)
        process.start()
        yield process


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=720)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 3))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    began, stop = time.monotonic(), threading.Event()
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    options.out.mkdir(parents=True, exist_ok=True)
    feed = options.out / "feed"
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        read = pool.map(unpack, sorted(options.pack.glob("*.xz")))
    making = list(workers(options.workers, [packed for packed, _ in read], feed))
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    supply = Supply([source for _, sources in read for source in sources], feed, device, rng)
    model = start_network(options.start, CONFIG).to(device).train()
    while any(len(supply.pools[kind]) < FEWEST_MADE for kind in MADE) and not stop.is_set():
        supply.refill(wait=True)
    print(f"{ {k: len(v) for k, v in supply.pools.items()} } after {time.monotonic() - began:.0f} s", flush=True)
    try:
        run(model, supply, options, rng, began + options.seconds, stop)
    finally:
        for process in making:
            process.kill()


def run(
    model: SAM3D,
    supply: Supply,
    options: argparse.Namespace,
    rng: np.random.Generator,
    end: float,
    stop: threading.Event,
) -> None:
    """Train until the end, writing the weights periodically."""
    device = torch.device(options.device)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=device.type == "cuda")
    average, cropper, session = Averaged(parameters), Cropper(device, rng), BatchSession(model, rng)
    begin = saved = time.monotonic()
    seen: dict[str, list[Tensor]] = defaultdict(list)
    step = 0
    with (options.out / "log.jsonl").open("w") as log:
        while (now := time.monotonic()) < end and not stop.is_set():
            rate = learning_rate(step, (now - begin) / (end - begin))
            for group in optimizer.param_groups:
                group["lr"] = rate
            supply.refill()
            kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
            unprompted = kind == "none"
            chosen = supply.choose(options.batch, SALIENT_SHARES if unprompted else SHARES)
            image, label = cropper.batch(chosen, ELSEWHERE if unprompted else 0.0)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                losses = session.play(image, label, kind)
            losses["loss"].backward()
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_(0, 0, 0)
            torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update()
            step += 1
            for name, value in losses.items():
                seen[f"{kind} {name}" if name != "loss" else name].append(value.detach())
            if step % (LOG_EVERY if device.type == "cuda" else 1) == 0 or step == 10:
                row = {name: round(float(torch.stack(values).mean()), 4) for name, values in sorted(seen.items())}
                took = time.monotonic() - begin
                print(
                    f"step {step}, {took:.0f} s, {step * options.batch / took:.1f} crops/s, rate {rate:.1e}, {row},"
                    f" made {sum(supply.made.values())}, {memory(device)}",
                    flush=True,
                )
                log.write(json.dumps({"step": step, "seconds": took, **row}) + "\n")
                log.flush()
                seen.clear()
            if now - saved > SAVE_EVERY:
                saved = now
                save(model, average.values, options.out / "ema.safetensors")
                if (now - begin) / (end - begin) < 0.75:
                    save(model, average.values, options.out / "mid.safetensors")
    save(model, average.values, options.out / "ema.safetensors")
    save(model, parameters, options.out / "last.safetensors")
    print(f"done: {step} steps, {step * options.batch} crops, {time.monotonic() - begin:.0f} s", flush=True)


def memory(device: torch.device) -> str:
    """Return the peak memory on a GPU."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else "on the CPU"


if __name__ == "__main__":
    main()
