"""Training in several processes, as torchrun starts them, with gloo: on one machine, and on two with own addresses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sam3d_label.training.distributed import world
from tests.helpers.gradients import write_gradients

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "helpers" / "gradients.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
HERE = ["--standalone", "--nproc-per-node", "2"]
SECONDS = 180


def start(*command: object, **options) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [str(part) for part in command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        **options,
    )


def finish(process: subprocess.Popen[str], expected: int | None = 0) -> str:
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert expected is None or process.returncode == expected, output
    return output


@pytest.fixture
def cases(phantom_cases):
    return phantom_cases[0].image.parent.parent


@pytest.fixture
def gradients_alone(cases, tmp_path) -> dict[str, dict[str, torch.Tensor]]:
    """What this process computes, by the kind of step."""
    write_gradients(cases, tmp_path / "alone.pt")
    return torch.load(tmp_path / "alone.pt", weights_only=True)


def assert_same(found: Path, expected: dict[str, dict[str, torch.Tensor]]) -> None:
    there = torch.load(found, weights_only=True)
    assert there.keys() == expected.keys()
    for step, gradients in there.items():
        assert gradients.keys() == expected[step].keys()
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, expected[step][name], atol=1e-5), f"{step}: {name}"


def test_alone_there_is_one_process():
    with world("cpu") as processes:
        assert (processes.rank, processes.size, processes.is_main) == (0, 1, True)
        assert processes.gather("a") == ["a"]
        assert processes.from_main(lambda: "a") == "a"


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(cases, tmp_path, gradients_alone):
    """Also in a step that stops behind the encoder."""
    finish(start(*TORCHRUN, *HERE, PROGRAM, cases, tmp_path / "two.pt"))
    assert_same(tmp_path / "two.pt", gradients_alone)
    reached = {step: any(map(is_of_encoder, gradients)) for step, gradients in gradients_alone.items()}
    assert reached == {"whole": True, "behind": False}


def is_of_encoder(name: str) -> bool:
    return name.startswith("image_encoder.")


@pytest.mark.slow
def test_a_lost_process_ends_the_run_and_leaves_a_checkpoint_to_resume_from(cases, tmp_path):
    out = tmp_path / "out"
    output = finish(start(*TORCHRUN, *HERE, PROGRAM, cases, out, "--lose", "1"), expected=1)
    assert "lost the others" in output or "SIGKILL" in output or "exitcode  : -9" in output
    epochs = len(torch.load(out / "checkpoint.pt", weights_only=True)["epochs"])
    assert 1 <= epochs < 50


def ip(*told: str) -> None:
    done = subprocess.run(["ip", *told], capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")


@pytest.fixture
def two_machines():
    """Two network namespaces with a cable between them: the words that run a command in each, and their addresses."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    machines = {f"sam3d-{os.getpid()}-{side}": f"10.231.0.{side}" for side in (1, 2)}
    first, second = machines
    try:
        for name in machines:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
        for name, address in machines.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        inside = [["ip", "netns", "exec", name, "env", "GLOO_SOCKET_IFNAME=cable"] for name in machines]
        yield inside, list(machines.values())
    finally:
        for name in machines:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_machines_have_the_gradients_of_one(cases, tmp_path, gradients_alone, two_machines):
    inside, addresses = two_machines
    nodes = [
        start(
            *inside[rank],
            *TORCHRUN,
            *("--nnodes", "2", "--node-rank", rank, "--nproc-per-node", "1"),
            *("--master-addr", addresses[0], "--master-port", "29511"),
            *("--local-addr", addresses[rank]),
            *(PROGRAM, cases, tmp_path / "far.pt"),
        )
        for rank in (0, 1)
    ]
    for node in nodes:
        finish(node)
    assert_same(tmp_path / "far.pt", gradients_alone)


@pytest.mark.slow
def test_a_lost_machine_is_reported_by_the_other(cases, tmp_path, two_machines):
    inside, addresses = two_machines
    out = tmp_path / "out"
    nodes = [
        start(
            *inside[rank],
            *(f"RANK={rank}", "WORLD_SIZE=2", f"MASTER_ADDR={addresses[0]}", "MASTER_PORT=29512"),
            *(sys.executable, PROGRAM, cases, out, "--lose", "1"),
        )
        for rank in (0, 1)
    ]
    output = finish(nodes[0], expected=2)
    finish(nodes[1], expected=-9)
    assert "lost the others" in output
    assert "--resume" in output
    assert (out / "checkpoint.pt").is_file()
