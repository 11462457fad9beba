"""The click log: what is written, by whom, how much of it, and that it never stands in a click's way."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from sam3d_label.errors import NewerFormatError, Sam3dError
from sam3d_label.segmentation.prompts import Box, ChosenCandidate, Click, Prompts
from sam3d_label.studies.click_log import ClickLog, LoggedPrompts, LoggedRequest, log_files, read_log

PROMPTS = Prompts((Click((1, 2, 3)), Click((4, 5, 6)), Click((7, 8, 9), positive=False)), (Box((0, 1, 2), (5, 6, 7)),))


def request(image="a", **more) -> LoggedRequest:
    given = {
        "at": "2026-01-02T03:04:05.678+00:00",
        "model": "sam3d",
        "prompts": LoggedPrompts.of(PROMPTS),
        "seconds": 0.5,
    }
    return LoggedRequest(image=image, **{**given, **more})


@contextmanager
def room_for(size):
    """A disk on which no file may grow beyond a size: what is beyond it is not written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_is_written_is_one_json_object_a_line_and_comes_back(tmp_path):
    log = ClickLog(tmp_path / "new" / "clicks")
    written = [request("a"), request("b", version="0003", mask="12ab", voxels=7), request(None, error="refused")]
    for each in written:
        log.append(each)
    lines = (tmp_path / "new/clicks/clicks-000001.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["a", "b", None]
    assert json.loads(lines[0])["prompts"] == {
        "inside": [[1, 2, 3], [4, 5, 6]],
        "outside": [[7, 8, 9]],
        "chosen": None,
        "boxes": [[0, 5, 1, 6, 2, 7]],
    }
    assert read_log(tmp_path / "new" / "clicks").requests == written


def test_prompts_come_back_as_they_were_drawn():
    assert LoggedPrompts.of(PROMPTS).prompts() == PROMPTS
    assert LoggedPrompts().prompts() == Prompts()


@pytest.mark.parametrize("source", [".", "clicks", "clicks/clicks-000001.jsonl"])
def test_a_log_is_found_by_model_folder_folder_or_file(tmp_path, source):
    ClickLog(tmp_path / "clicks").append(request())
    assert read_log(tmp_path / source).requests == [request()]


def test_without_a_log_it_says_what_to_give(tmp_path):
    with pytest.raises(Sam3dError, match="holds no click log"):
        read_log(tmp_path / "nowhere")


def test_processes_that_write_at_once_do_not_tear_each_others_lines(tmp_path):
    program = (
        "import sys; from pathlib import Path; from sam3d_label.studies.click_log import ClickLog, LoggedRequest\n"
        "log = ClickLog(Path(sys.argv[1]), file_bytes=4000, files=99)\n"
        "for n in range(40): log.append(LoggedRequest(at='now', image=f'{sys.argv[2]}-{n}', seconds=n))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, tmp_path, str(number)]) for number in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    reading = read_log(tmp_path)
    assert reading.damaged == 0
    assert sorted(str(each.image) for each in reading.requests) == sorted(
        f"{w}-{n}" for w in range(3) for n in range(40)
    )


def test_the_log_is_bounded_and_the_oldest_goes(tmp_path):
    log = ClickLog(tmp_path, file_bytes=1000, files=3)
    for number in range(50):
        log.append(request(str(number)))
    files = log_files(tmp_path)
    kept = [int(str(each.image)) for each in read_log(tmp_path).requests]
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) < 3 * 1300
    assert kept == list(range(kept[0], 50))
    assert kept[0] > 0


def test_a_torn_last_line_is_left_out_and_the_next_request_is_not_lost(tmp_path):
    log = ClickLog(tmp_path)
    log.append(request("a"))
    (file,) = log_files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    assert [each.image for each in read_log(tmp_path).requests] == ["a"]
    log.append(request("b"))
    reading = read_log(tmp_path)
    assert [each.image for each in reading.requests] == ["a", "b"]
    assert reading.damaged == 1


def test_a_line_of_a_newer_release_is_not_counted_as_damaged(tmp_path):
    ClickLog(tmp_path).append(request())
    (file,) = log_files(tmp_path)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"format": 2, "when": 1.5, "drawn": {}}) + "\n")
    with pytest.raises(NewerFormatError, match="newer release"):
        read_log(tmp_path)


@pytest.mark.parametrize("line", ["[]", "{}", "7", "\udcff", '{"at": NaN}', "[" * 100_000])
def test_lines_that_are_no_requests_are_counted_as_damaged(tmp_path, line):
    ClickLog(tmp_path).append(request())
    (file,) = log_files(tmp_path)
    file.write_bytes(file.read_bytes() + line.encode(errors="surrogateescape") + b"\n\n")
    reading = read_log(tmp_path)
    assert (reading.requests, reading.damaged) == ([request()], 1)


def test_a_full_disk_is_reported_once_and_leaves_whole_lines(tmp_path, caplog):
    log = ClickLog(tmp_path)
    log.append(request("a"))
    (file,) = log_files(tmp_path)
    before = file.read_bytes()
    with room_for(len(before) + 20):
        log.append(request("b"))
        log.append(request("c"))
    assert file.read_bytes() == before
    assert len(caplog.records) == 1
    assert "unlogged" in caplog.text
    log.append(request("d"))
    assert [each.image for each in read_log(tmp_path).requests] == ["a", "d"]


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, caplog):
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    ClickLog(tmp_path / "taken").append(request())
    assert "unlogged" in caplog.text


def test_a_log_that_another_process_holds_delays_a_click_by_a_moment_only(tmp_path, monkeypatch, caplog):
    from filelock import FileLock

    monkeypatch.setattr("sam3d_label.studies.click_log.LOCK_TIMEOUT", 0.05)
    with FileLock(tmp_path / ".lock"):
        ClickLog(tmp_path).append(request())
    assert "unlogged" in caplog.text
    assert not log_files(tmp_path)


def test_a_chosen_candidate_comes_back():
    given = Prompts((Click((3, 3, 3)), *PROMPTS.clicks), PROMPTS.boxes, ChosenCandidate(PROMPTS, 1, "0002"))
    logged = LoggedPrompts.model_validate_json(LoggedPrompts.of(given).model_dump_json())
    assert logged.prompts("0002") == given
    assert logged.prompts().chosen == ChosenCandidate(PROMPTS, 1)
