"""Kill the server, its training, or both at random moments, and look whether anything acknowledged is lost.

    python benchmarks/kill.py [--kills 200] [--trainings 0.25] [--seed 0] [--json FILE]

Four annotators save labels as fast as they are answered, each with a record of its own. In the given share of the kills
a training runs meanwhile, and it, the server or both are killed; in the others, the server. After every kill the server
starts again on the same folders, must list every image, and must return each label that it had acknowledged, whole and
with its own record. A save that was cut off may have happened or not.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import httpx
import nibabel as nib
import numpy as np
import psutil
import typer
from app_server import server
from rich.console import Console
from rich.progress import track

from sam3d_label.io import write_json
from sam3d_label.serving import Server

SHAPE = (48, 48, 32)
ANNOTATORS = 4
LONGEST_SAVES, LONGEST_TRAINING = 2.0, 25.0
"""Seconds within which the kill falls, without a training and with one."""


@dataclass
class Saved:
    """The expected label of one image.

    Attributes:
        acknowledged: Number of the last save that was answered; None before the first.
        cut_off: Numbers of later saves without an answer.
    """

    acknowledged: int | None = None
    cut_off: set[int] = field(default_factory=set)


@dataclass
class Run:
    """The events so far.

    Attributes:
        saved: By image.
        counts: Kills by what was killed, acknowledged and interrupted saves, published versions.
        problems: What was lost, or failed otherwise.
    """

    saved: dict[str, Saved]
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def mask_of(number: int) -> np.ndarray:
    """Return the mask of a save: a box whose position is unique to its number."""
    mask = np.zeros(SHAPE, np.uint8)
    i, j, k = np.unravel_index(number % 8000, (20, 20, 20))
    mask[i : i + 12, j : j + 12, k : k + 12] = 1
    return mask


def save(http: httpx.Client, image: str, number: int) -> int:
    """Save a label with its number in the record; the status of the answer."""
    file = gzip.compress(nib.Nifti1Image(mask_of(number), np.eye(4)).to_bytes(), 1)
    params = {"number": number, "label_info": [{"name": "tumor", "idx": 1}]}
    answer = http.put(
        "/datastore/label",
        params={"image": image},
        files={"label": ("label.nii.gz", file)},
        data={"params": json.dumps(params)},
    )
    return answer.status_code


def annotate(url: str, image: str, run: Run, seed: int, stop: threading.Event) -> None:
    """Save labels of one image until the server is gone."""
    rng = np.random.default_rng(seed)
    saved = run.saved[image]
    with httpx.Client(base_url=url, timeout=60) as http:
        while not stop.is_set():
            number = int(rng.integers(8000))
            try:
                status = save(http, image, number)
            except httpx.TransportError:
                saved.cut_off.add(number)
                run.counts["saves cut off"] += 1
                return
            if status == 200:
                saved.acknowledged, saved.cut_off = number, set()
                run.counts["saves acknowledged"] += 1
            else:
                run.problems.append(f"{image}: a save was answered with {status}")


def check(url: str, run: Run) -> None:
    """Check all acknowledged labels, and find out the result of interrupted saves."""
    with httpx.Client(base_url=url, timeout=60) as http:
        listed = http.get("/datastore/", params={"output": "all"}).json()["objects"]
        run.counts["versions"] = len(http.get("/sam3d/state").raise_for_status().json()["versions"])
        if listed.keys() != run.saved.keys():
            run.problems.append(f"{len(listed)} of {len(run.saved)} images are listed")
        for image, saved in run.saved.items():
            record = listed.get(image, {}).get("labels", {}).get("final")
            if record is None:
                if saved.acknowledged is not None:
                    run.problems.append(f"{image}: the acknowledged label is not listed")
                continue
            number = record["info"].get("number")
            if number != saved.acknowledged and number not in saved.cut_off:
                run.problems.append(f"{image}: the record of save {number}, acknowledged was {saved.acknowledged}")
            file = http.get("/datastore/label", params={"label": image, "tag": "final"}).content
            with suppress(OSError, EOFError):
                stored = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(file)).dataobj)
                if isinstance(number, int) and np.array_equal(stored, mask_of(number)):
                    saved.acknowledged, saved.cut_off = number, set()
                    continue
            run.problems.append(f"{image}: the file is not that of its record, {number}")


def kill(started: Server, what: str) -> str:
    """Send SIGKILL to the server, its background processes, or all of them; return what was killed."""
    processes = started.children() if what in ("training", "both") else []
    if what == "both":
        what = "server and training" if processes else "server"
    if not processes and what == "training":
        return "nothing, as no training ran any more"
    if what.startswith("server"):
        processes.insert(0, started.process)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return what


def one_kill(studies: Path, run: Run, rng: np.random.Generator, training: bool) -> None:
    """Start the server, check, let annotators save, kill."""
    what = str(rng.choice(["server", "training", "both"])) if training else "server"
    with server(studies) as started:
        check(started.url, run)
        if training:
            httpx.post(f"{started.url}/train/sam3d", json={"max_epochs": 2}, timeout=60).raise_for_status()
        stop = threading.Event()
        seeds = rng.integers(2**31, size=len(run.saved)).tolist()
        work = [(started.url, image, run, seed, stop) for image, seed in zip(run.saved, seeds, strict=True)]
        threads = [threading.Thread(target=annotate, args=each) for each in work]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.1, LONGEST_TRAINING if training else LONGEST_SAVES))
        killed = kill(started, what)
        if what == "training" and httpx.get(f"{started.url}/info/", timeout=60).status_code != 200:
            run.problems.append("the server does not answer after its training was killed")
        stop.set()
        for thread in threads:
            thread.join()
    run.counts[f"kills of {killed}"] += 1


def main(
    kills: Annotated[int, typer.Option(min=1, help="How often something is killed.")] = 200,
    trainings: Annotated[float, typer.Option(min=0, max=1, help="Share of the kills with a training.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Fixes the times, the labels and the killed processes.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here too.")] = None,
) -> None:
    """Kill and check; status 1 if anything acknowledged is lost."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder)
        images = [f"volume-{number}" for number in range(ANNOTATORS)]
        for image in images:
            voxels = rng.normal(100, 15, SHAPE).astype(np.int16)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), studies / f"{image}.nii.gz")
        run = Run({image: Saved() for image in images})
        with suppress(KeyboardInterrupt):  # the results so far are used
            for _ in track(range(kills), "Killing", console=Console(stderr=True)):
                one_kill(studies, run, rng, bool(rng.random() < trainings))
        with server(studies) as started:
            check(started.url, run)
    print(", ".join(f"{count} {what}" for what, count in sorted(run.counts.items())))
    print("\n".join(run.problems) or "every acknowledged label was there, whole, listed and with its own record")
    if json_file:
        write_json(json_file, {"counts": dict(run.counts), "problems": run.problems})
    raise typer.Exit(1 if run.problems else 0)


if __name__ == "__main__":
    typer.run(main)
