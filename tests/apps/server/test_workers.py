"""Servers of more than one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lib.server.workers import STARTUP_FAILURE, workers

APP = Path(__file__).resolve().parents[3] / "apps" / "sam3d"


@pytest.mark.parametrize(
    ("arguments", "environment", "number"),
    [
        ([], {}, 1),
        (["--workers", "2"], {}, 2),
        (["--workers=3"], {}, 3),
        (["--w", "4"], {}, 4),
        (["--workers", "2", "--workers", "1"], {}, 1),
        ([], {"WEB_CONCURRENCY": "5"}, 5),
        (["--workers", "1"], {"WEB_CONCURRENCY": "5"}, 1),
        (["--workers"], {}, 1),
        (["-w", "2", "--", "x"], {}, 1),
    ],
)
def test_the_number_of_processes_is_what_uvicorn_makes_of_the_command(
    arguments: list[str], environment: dict[str, str], number: int
) -> None:
    assert workers(["start_server", *arguments], environment) == number


PARENT = """
import multiprocessing, sys
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=print, args=("worked",))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a process as MONAI Label does, and in it another as uvicorn does."""
    script = folder / "parent.py"
    script.write_text(PARENT)
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env={"PYTHONPATH": str(APP)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_worker_ends_at_once_with_a_reason_and_the_status_that_ends_its_parent(tmp_path: Path) -> None:
    result = run(tmp_path, "start_server", "--workers", "2")
    assert (result.returncode, result.stdout) == (STARTUP_FAILURE, "")
    assert result.stderr.splitlines() == [result.stderr.strip()]
    assert "--workers 2 is not supported" in result.stderr


@pytest.mark.parametrize("arguments", [["start_server"], ["train", "--workers", "2"]])
def test_other_processes_are_left_alone(tmp_path: Path, arguments: list[str]) -> None:
    result = run(tmp_path, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, "worked\n", "")
