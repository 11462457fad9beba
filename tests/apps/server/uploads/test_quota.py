"""Sessions take a bounded number of places and of bytes, and one user cannot take them all."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from fastapi import HTTPException

from lib.configs.limits import RequestLimits
from lib.server.uploads.archives import Upload
from lib.server.uploads.quota import SessionQuota, SessionUsage
from lib.server.uploads.sessions import SafeSessions
from sam3d_label.image.limits import MIB
from tests.helpers.app_helpers import ball, write_nifti


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return write_nifti(tmp_path / "source.nii.gz").read_bytes()


def make(folder: Path, **limits: float) -> SafeSessions:
    return SafeSessions(str(folder / "sessions"), 3600, RequestLimits.model_validate(limits))


def send(sessions: SafeSessions, image: bytes, owner: str | None = None, name: str = "a.nii.gz") -> str:
    return str(sessions.create([Upload(name, io.BytesIO(image))], owner=owner).name)


def status_of(caught: pytest.ExceptionInfo[HTTPException]) -> int:
    return caught.value.status_code


def test_a_session_too_many_is_429_until_one_is_removed(tmp_path: Path, image: bytes) -> None:
    sessions = make(tmp_path, max_sessions=2)
    first, _ = send(sessions, image), send(sessions, image)
    with pytest.raises(HTTPException, match="max_sessions") as caught:
        send(sessions, image)
    assert status_of(caught) == 429
    assert len(list(Path(sessions.store_path).iterdir())) == 2
    sessions.remove_session(first)
    assert send(sessions, image)


def test_the_places_are_counted_again_after_a_restart(tmp_path: Path, image: bytes) -> None:
    send(make(tmp_path, max_sessions=1), image)
    with pytest.raises(HTTPException, match="429"):
        send(make(tmp_path, max_sessions=1), image)


def test_one_user_gets_half_of_the_places(tmp_path: Path, image: bytes) -> None:
    sessions = make(tmp_path, max_sessions=4)
    for _ in range(2):
        send(sessions, image, "anna")
    with pytest.raises(HTTPException, match="half") as caught:
        send(sessions, image, "anna")
    assert status_of(caught) == 429
    assert send(sessions, image, "ben")


def test_images_that_take_too_much_space_are_507_and_leave_nothing(tmp_path: Path) -> None:
    large = write_nifti(tmp_path / "large.nii", ball((80, 80, 60))).read_bytes()
    assert len(large) > 1.2 * MIB
    sessions = make(tmp_path, max_sessions_mb=2)
    kept = send(sessions, large, name="a.nii")
    with pytest.raises(HTTPException, match="max_sessions_mb") as caught:
        send(sessions, large, name="a.nii")
    assert status_of(caught) == 507
    assert [path.name for path in Path(sessions.store_path).iterdir()] == [kept]
    with pytest.raises(HTTPException, match="your sessions"):
        send(make(tmp_path / "other", max_sessions_mb=2), large, "anna", name="a.nii")


def test_sessions_that_are_being_made_count(tmp_path: Path) -> None:
    quota = SessionQuota(RequestLimits(max_sessions=2, max_sessions_mb=3), dict)
    with quota.place("one", None) as grow, quota.place("two", None) as grow_two:
        grow(2 * MIB)
        with pytest.raises(HTTPException, match="507"):
            grow_two(2 * MIB)
        grow_two(MIB)
        with pytest.raises(HTTPException, match="429"), quota.place("three", None):
            pass
    with quota.place("three", None):
        pass


def test_one_that_ends_while_another_is_made_still_counts() -> None:
    kept = {"old": SessionUsage(None, MIB)}
    quota = SessionQuota(RequestLimits(max_sessions_mb=3), lambda: kept)
    with quota.place("slow", None) as grow:
        with quota.place("fast", None) as grow_fast:
            grow_fast(2 * MIB)
        with pytest.raises(HTTPException, match="507"):
            grow(1)


def test_a_session_ends_after_its_longest_age_however_often_it_is_used(tmp_path: Path, image: bytes) -> None:
    sessions = make(tmp_path, max_session_hours=2, max_sessions=1)
    old = send(sessions, image)
    meta = Path(sessions.store_path, old, "meta.info")
    made = json.loads(meta.read_text())
    meta.write_text(json.dumps({**made, "create_ts": int(time.time()) - 3 * 3600}))
    sessions.clear()
    sessions.get_session(old)  # a use
    assert send(sessions, image) != old
    with pytest.raises(HTTPException, match="404"):
        sessions.get_session(old)
