"""Volumes of sessions: kept in memory and given up as those of the datastore are, and gone from disk in time."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException

from lib.server.uploads.sessions import SafeSessions
from sam3d_label.image.volume import Volume
from tests.helpers.app_helpers import CENTRE, ball, make_app, write_nifti
from tests.helpers.dicom_files import series_array, write_series

HOUR = 3600


@pytest.fixture
def sessions(tmp_path: Path) -> SafeSessions:
    return SafeSessions(str(tmp_path / "sessions"), HOUR)


def send(sessions: SafeSessions, folder: Path, name: str = "local.nii.gz", factor: float = 1) -> str:
    """Puts a volume into a session of its own."""
    return str(sessions.add_session(str(write_nifti(folder / name, ball() * factor)))[0])


class TestFolders:
    BROKEN = ("", "{", "[1]", '{"image": 7}')

    @pytest.mark.parametrize("content", BROKEN)
    def test_one_that_was_cut_off_is_unknown_and_goes_in_time(
        self, sessions: SafeSessions, tmp_path: Path, content: str
    ) -> None:
        broken, whole = send(sessions, tmp_path), send(sessions, tmp_path)
        meta = Path(sessions.store_path, broken, "meta.info")
        meta.write_text(content)
        sessions.clear()  # as after a restart
        assert sessions.remove_expired() == 0
        with pytest.raises(HTTPException, match="404"):
            sessions.get_session(broken)
        os.utime(meta.parent, (1, 1))
        assert sessions.remove_expired() == 1
        assert os.listdir(sessions.store_path) == [whole]

    def test_a_click_keeps_it(self, sessions: SafeSessions, tmp_path: Path) -> None:
        used, idle = send(sessions, tmp_path), send(sessions, tmp_path)
        for session in (used, idle):
            meta = Path(sessions.store_path, session, "meta.info")
            told = json.loads(meta.read_text())
            meta.write_text(json.dumps({**told, "last_access_ts": int(time.time()) - 2 * HOUR}))
        sessions.clear()
        sessions.get_session(used)
        assert sessions.remove_expired() == 1
        assert os.listdir(sessions.store_path) == [used]


class TestArchives:
    @pytest.fixture(autouse=True)
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "temporary"
        folder.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        return folder

    @pytest.mark.parametrize("kind", ["zip", "gztar"])
    def test_slices_come_as_one(self, sessions: SafeSessions, tmp_path: Path, temporary: Path, kind: str) -> None:
        write_series(tmp_path / "slices")
        archive = shutil.make_archive(str(tmp_path / "series"), kind, tmp_path / "slices")
        session, info = sessions.add_session(archive, uncompress=True)
        np.testing.assert_array_equal(Volume.open(sessions.get_session(session).image).array, series_array())
        assert Path(info.image).parent == Path(sessions.store_path, session)
        assert not list(temporary.iterdir())

    def test_damaged_archives_and_paths_outside_are_refused(
        self, sessions: SafeSessions, tmp_path: Path, temporary: Path
    ) -> None:
        (tmp_path / "text.zip").write_bytes(b"no archive")
        with tarfile.open(tmp_path / "out.tar", "w") as tar:
            tar.add(write_nifti(tmp_path / "x.nii.gz"), "../../escaped.nii.gz")
        for name in ("text.zip", "out.tar"):
            with pytest.raises(HTTPException, match="cannot be unpacked") as caught:
                sessions.add_session(str(tmp_path / name), uncompress=True)
            assert caught.value.status_code == 400
        assert not list(tmp_path.rglob("escaped*"))
        assert not list(temporary.iterdir())
        assert not list(Path(sessions.store_path).iterdir())


class TestMemory:
    @pytest.fixture
    def app(self, tmp_path: Path, weights_path: Path, sessions: SafeSessions) -> Any:
        """The app with room for two volumes."""
        (tmp_path / "studies").mkdir()
        for n, name in enumerate("ab"):
            write_nifti(tmp_path / "studies" / f"{name}.nii.gz", ball() + n)
        app = make_app(tmp_path / "studies", {"weights": str(weights_path), "cache_mb": "64"})
        app._sessions = sessions
        app.segmenters._volumes._max_bytes = 2 * ball().nbytes
        return app

    def click(self, app: Any, image: str, session: str = "") -> int:
        """Encodes for a click; as the server hands the request on."""
        request = {"model": "sam3d", "image": image, "foreground": [CENTRE]}
        if session:
            request |= {"session": app.sessions().get_session(session).to_json()}
        answer = app.infer(request)
        Path(answer["file"]).unlink()
        return int(answer["params"]["encoded"])

    def test_the_second_click_reads_and_encodes_nothing(
        self, app: Any, sessions: SafeSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = send(sessions, tmp_path)
        assert self.click(app, "local", session) > 0
        monkeypatch.setattr(Volume, "open", None)
        assert self.click(app, "local", session) == 0

    def test_a_volume_that_is_sent_again_or_stored_is_not_encoded_again(
        self, app: Any, sessions: SafeSessions, tmp_path: Path
    ) -> None:
        session = send(sessions, tmp_path)
        assert self.click(app, "local", session) > 0
        sessions.remove_session(session)
        assert self.click(app, "local", send(sessions, tmp_path)) == 0
        assert self.click(app, "a") == 0, "the same voxels in the datastore"

    def test_they_share_one_budget_with_the_datastore(self, app: Any, sessions: SafeSessions, tmp_path: Path) -> None:
        held = app.segmenters._volumes
        sent = [send(sessions, tmp_path, factor=factor) for factor in (2, 3, 4)]
        for session in sent:
            self.click(app, "local", session)
        assert len(held) == 2
        self.click(app, "a")
        self.click(app, "b")
        kept = {Path(key[0][0]).name for key in held._entries}
        assert kept == {"a.nii.gz", "b.nii.gz"}
        app.segmenters.cache.clear()
        assert self.click(app, "local", sent[0]) > 0, "it is opened again"
        assert len(held) == 2

    def test_a_session_that_is_gone_has_nothing_in_memory(
        self, app: Any, sessions: SafeSessions, tmp_path: Path
    ) -> None:
        session = send(sessions, tmp_path)
        request = {"session": sessions.get_session(session).to_json()}
        self.click(app, "local", session)
        sessions.remove_session(session)
        with pytest.raises(HTTPException, match="does not exist or has expired"):
            app.infer({"model": "sam3d", "image": "local", "foreground": [CENTRE], **request})
