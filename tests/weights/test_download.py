import hashlib
import re
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from sam3d_label.errors import WeightsError
from sam3d_label.weights.download import RemoteFile, download

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Publishes `CONTENT` on loopback.

    Attributes:
        ranges: The Range header of each request, None where it had none.
        cut_after: Bytes after which an answer breaks off.
        knows_ranges: Whether a part can be asked for.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.cut_after: int | None = None
        self.knows_ranges = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        known = re.fullmatch(r"bytes=(\d+)-", asked or "") if self.server.knows_ranges else None
        start = int(known[1]) if known else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][: self.server.cut_after])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def remote(server):
    return RemoteFile(server.url, hashlib.sha256(CONTENT).hexdigest())


def test_a_file_arrives_whole(remote, tmp_path, capsys):
    path = download(remote, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["weights.pth"]
    shown = capsys.readouterr()
    assert "weights.pth" in shown.err
    assert not shown.out


def test_a_file_that_is_there_is_not_asked_for_again(remote, server, tmp_path):
    download(remote, tmp_path)
    download(remote, tmp_path)
    assert server.ranges == [None]


def test_a_cut_download_goes_on_where_it_stopped(remote, server, tmp_path):
    server.cut_after = 100_000
    with pytest.raises(WeightsError, match=r"Try again .*by hand.*weights\.pth"):
        download(remote, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pth.part"]
    server.cut_after = None
    assert download(remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pth"]


def test_a_server_without_ranges_sends_it_all_again(remote, server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:500])
    server.knows_ranges = False
    assert download(remote, tmp_path).read_bytes() == CONTENT


def test_a_download_that_lacked_only_its_new_name_is_finished(remote, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    assert download(remote, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("arrived", [b"", b"damaged"])
def test_a_wrong_digest_is_reported_and_nothing_kept(remote, server, tmp_path, arrived):
    (tmp_path / "weights.pth.part").write_bytes(arrived)
    digest = remote.sha256 if arrived else "0" * 64
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        download(RemoteFile(server.url, digest), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_file_of_the_name_is_only_overwritten_when_that_is_asked_for(remote, tmp_path):
    (tmp_path / "weights.pth").write_text("mine")
    with pytest.raises(WeightsError, match=r"weights\.pth exists, and is not the file of .*--overwrite"):
        download(remote, tmp_path)
    assert (tmp_path / "weights.pth").read_text() == "mine"
    assert download(remote, tmp_path, overwrite=True).read_bytes() == CONTENT


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_the_place_of_the_file_is_reported_before_the_download(remote, server, tmp_path, overwrite):
    (tmp_path / "weights.pth").mkdir()
    with pytest.raises(WeightsError, match="is a folder"):
        download(remote, tmp_path, overwrite=overwrite)
    assert not server.ranges


def test_a_missing_file_on_the_server_is_reported(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(WeightsError, match="404"):
        download(remote, tmp_path)


def test_without_a_network_the_message_says_what_to_do(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/weights.pth"
        with pytest.raises(WeightsError, match="by hand") as caught:
            download(RemoteFile(url, "0" * 64), tmp_path)
    assert url in str(caught.value)
    assert str(tmp_path / "weights.pth") in str(caught.value)
