"""The routes of tasks, datastore, active learning and models: what viewers send works, nothing else gets through."""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from lib.datastores.studies import SafeDatastore
from lib.errors import install_error_handlers
from lib.patches.monai_label import install
from lib.server.tasks import TaskQueue
from tests.helpers.app_helpers import ball, make_app, orthogonal, write_nifti

ECHO = [sys.executable, "-S", "-c", "import sys; print(sys.stdin.read())"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies")
    for name in ("a", "b", "c"):
        write_nifti(path / f"{name}.nii.gz")
    return path


@pytest.fixture(scope="module")
def app(folder: Path, weights_path: Path) -> Any:
    """The app, whose background processes only repeat their request."""
    app = make_app(folder, {"weights": str(weights_path)})
    for name in ("train", "batch_infer", "scoring"):
        setattr(app.tasks, name, TaskQueue(name, None, ECHO))
    return app


@pytest.fixture(scope="module")
def client(app: Any) -> Iterator[TestClient]:
    api = FastAPI()
    install_error_handlers(api)
    install(app, api)
    with TestClient(api, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(autouse=True)
def idle(app: Any) -> Iterator[None]:
    """No task is left over from one test to the next."""
    yield
    for queue in app.tasks:
        queue.stop()


@pytest.fixture(scope="module")
def label() -> bytes:
    return gzip.compress(nib.Nifti1Image((ball() > 140).astype(np.uint8), orthogonal()).to_bytes())


def save(client: TestClient, image: str, label: bytes, params: str = "{}", tag: str = "final") -> Any:
    return client.put(
        "/datastore/label",
        params={"image": image, "tag": tag},
        files={"label": ("l.nii.gz", label)},
        data={"params": params},
    )


def detail(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


def ended(client: TestClient, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while "end_ts" not in (task := client.get(path).json()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return dict(task)


STARTING = (
    "/train/sam3d",
    "/batch/infer/sam3d_auto",
    "/scoring/sam3d",
    "/train/",
    "/scoring/",
    "/activelearning/random",
)


class TestTasks:
    @pytest.mark.parametrize("path", STARTING)
    @pytest.mark.parametrize(
        "key", ["bundle_path", "local_rank", "model", "method", "image", "session", "_id", "x" * 99]
    )
    def test_keys_of_the_server_and_unknown_ones_are_rejected_by_name(
        self, client: TestClient, app: Any, path: str, key: str
    ) -> None:
        before = [len(queue.tasks()) for queue in app.tasks]
        assert f"{key}: no such key" in detail(client.post(path, json={key: "/tmp"}), 400)
        assert [len(queue.tasks()) for queue in app.tasks] == before

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("gpus", "0\0"),
            ("gpus", "0; rm"),
            ("gpus", "-1"),
            ("client_id", "x" * 140_000),
            ("name", "\ud800"),
            ("max_epochs", "1e400"),
            ("max_epochs", 10**30),
            ("device", {"name": "cpu"}),
            ("device", "cpu:7"),
            ("device", ["no such device"]),
            ("train_random_seed", -1),
        ],
    )
    def test_values_that_no_process_could_be_given_are_400(self, client: TestClient, key: str, value: Any) -> None:
        answer = client.post(
            "/train/sam3d", content=json.dumps({key: value}), headers={"content-type": "application/json"}
        )
        assert len(detail(answer, 400)) < 400
        assert client.get("/train/", params={"check_if_running": True}).status_code == 404

    def test_all_that_slicer_sends_reaches_the_process(self, client: TestClient, app: Any) -> None:
        config = app.info()["trainers"]["sam3d"]["config"]
        sent = {key: value[0] if isinstance(value, list) else value for key, value in config.items()}
        begun = client.post("/train/sam3d", json={**sent, "max_epochs": 7, "client_id": "user-xyz"}).json()
        assert (begun["status"], begun["request"]["model"], begun["request"]["max_epochs"]) == ("SUBMITTED", "sam3d", 7)
        assert begun.keys() == {"id", "status", "request", "start_ts"}
        over = ended(client, "/train/")
        assert over["status"] == "DONE"
        assert json.loads(over["details"][-1]) == over["request"]

    @pytest.mark.parametrize("body", [{}, {"max_epochs": 3}, {"sam3d": {"max_epochs": 3}}])
    def test_ohif_runs_all_trainers(self, client: TestClient, body: dict[str, Any]) -> None:
        answer = client.post("/train/", json=body).json()
        assert answer["sam3d"]["result"]["request"] == {"model": "sam3d", **({"max_epochs": 3} if body else {})}

    def test_without_a_body_the_defaults_count(self, client: TestClient) -> None:
        for path in ("/train/sam3d", "/batch/infer/sam3d_auto?images=unlabeled", "/scoring/sam3d"):
            assert client.post(path).status_code == 200

    def test_unknown_trainers_and_methods_are_404(self, client: TestClient) -> None:
        assert "this server has: sam3d" in detail(client.post("/train/nobody", json={}), 404)
        assert "this server has: sam3d" in detail(client.post("/scoring/nobody", json={}), 404)

    def test_a_running_task_is_429_and_delete_ends_it(self, client: TestClient, app: Any) -> None:
        with app.tasks.scoring.here():
            assert "Already Running" in detail(client.post("/scoring/sam3d", json={}), 429)
            assert client.post("/scoring/", json={}).status_code == 200
            stopped = client.delete("/scoring/").json()
            assert stopped["status"] == "STOPPED"
            assert stopped["details"]
        assert client.delete("/scoring/").json() is None


class TestNextSample:
    STRATEGIES = ("random", "first", "uncertainty", "diverse")

    def test_many_requests_within_a_second_when_few_images_are_left(self, client: TestClient) -> None:
        for strategy in self.STRATEGIES:
            for _ in range(4):
                assert client.post(f"/activelearning/{strategy}", json={"client_id": "me"}).json()["id"] in "abc"

    @pytest.mark.parametrize("stored", [5, "x", [1], {"random": 3}, {"random": {"ts": "x"}}, {"random": {"ts": [1]}}])
    def test_odd_values_in_a_stored_info_do_not_matter(self, client: TestClient, app: Any, stored: Any) -> None:
        for image in "abc":
            app.datastore().update_image_info(image, {"strategy": stored})
        for strategy in self.STRATEGIES:
            answer = client.post(f"/activelearning/{strategy}", json={"client_id": "me"}).json()
            assert answer["strategy"][strategy]["client_id"] == "me"

    def test_none_is_left(self, weights_path: Path, tmp_path: Path) -> None:
        empty = make_app(tmp_path / "empty", {"weights": str(weights_path)})
        api = FastAPI()
        install(empty, api)
        with TestClient(api, base_url="http://127.0.0.1") as client:
            for strategy in self.STRATEGIES:
                assert client.post(f"/activelearning/{strategy}", json={}).json() == {}


class TestDatastore:
    @pytest.mark.parametrize("depth", [17, 250, 600, 100_000])
    def test_nested_params_are_400_and_every_label_stays_in_reach(
        self, client: TestClient, folder: Path, label: bytes, depth: int
    ) -> None:
        assert "nested" in detail(save(client, "b", label, '{"a":' * depth + "1" + "}" * depth, "deep"), 400)
        assert save(client, "c", label, tag="after").status_code == 200
        assert SafeDatastore(str(folder)).get_label_info("c", "after")["name"] == "c.nii.gz"

    @pytest.mark.parametrize(
        "info", ['{"x": NaN}', '{"x": [-Infinity]}', '{"x": 1e999}', '{"x": "\\ud800"}', '{"x": "\\u0000"}', "[]", "7"]
    )
    def test_info_that_cannot_be_read_again_is_400(self, client: TestClient, info: str) -> None:
        for path, where, field in (
            ("/datastore/image/info", {"image": "a"}, "info"),
            ("/datastore/label/info", {"label": "a", "tag": "final"}, "info"),
            ("/datastore/updatelabelinfo", {"label": "a", "tag": "final"}, "params"),
        ):
            assert detail(client.put(path, params=where, data={field: info}), 400)
        assert client.get("/datastore/?output=all").status_code == 200

    @pytest.mark.parametrize("key", ["name", "ts", "id", "path", "strategy", "sam3d", "user", "StudyInstanceUID"])
    def test_what_the_server_says_of_an_image_cannot_be_changed(self, client: TestClient, key: str) -> None:
        info = json.dumps({key: "../../x", "mine": 1})
        assert f"{key} is set by the server" in detail(
            client.put("/datastore/image/info", params={"image": "a"}, data={"info": info}), 400
        )
        assert "mine" not in client.get("/datastore/image/info?image=a").json()

    def test_own_keys_are_added_to_what_is_known(self, client: TestClient) -> None:
        put = client.put(
            "/datastore/image/info", params={"image": "a"}, data={"info": '{"ward": "B2", "n": [1, null]}'}
        )
        assert put.status_code == 200
        info = client.get("/datastore/image/info?image=a").json()
        assert (info["ward"], info["n"], info["name"]) == ("B2", [1, None], "a.nii.gz")

    @pytest.mark.parametrize(
        "params",
        [
            '{"label_info": 7}',
            '{"label_info": [7]}',
            '{"label_info": [{"name": 5}]}',
            '{"label_info": [{"name": ""}]}',
            '{"label_info": [{"idx": 1}]}',
            '{"label_info": [{"name": "tumor", "idx": -1}]}',
            '{"label_info": [{"name": "tumor", "color": "red"}]}',
            '{"client_id": ["x"]}',
            '{"label_info": [{"name": "tumor", "idx": 1}, {"name": "cyst", "idx": 1}]}',
            '{"label_info": [{"name": "tumor"}, {"name": "cyst", "idx": 1}]}',
            '{"label_info": {"tumor": 1, "cyst": "1"}}',
            '{"label_info": {"tumor": "one"}}',
            '{"label_info": [{"name": "tumor", "id": "one"}]}',
        ],
    )
    def test_names_of_structures_have_one_form(self, client: TestClient, label: bytes, params: str) -> None:
        assert "params" in detail(save(client, "b", label, params, "named"), 400)

    def test_a_label_keeps_what_its_client_said(self, client: TestClient, label: bytes) -> None:
        said = {"label_info": [{"name": "tumor", "idx": 1, "color": [255, 0, 0]}], "client_id": "user-x", "model": "m"}
        assert save(client, "a", label, json.dumps({**said, "ts": 1, "name": "../x"}), "said").json()["label"] == "a"
        info = client.get("/datastore/label/info?label=a&tag=said").json()
        assert {key: info[key] for key in said} == said
        assert info["name"] == "a.nii.gz"
        assert info["ts"] > 1

    def test_names_may_be_a_mapping_to_numbers(self, client: TestClient, label: bytes) -> None:
        assert save(client, "b", label, '{"label_info": {"tumor": "1", "cyst": 2}}', "mapped").status_code == 200
        info = client.get("/datastore/label/info?label=b&tag=mapped").json()
        assert info["label_info"] == [{"name": "tumor", "idx": 1}, {"name": "cyst", "idx": 2}]

    @pytest.mark.parametrize("name", [".nii.gz", "folder/.NII", ".nrrd"])
    def test_a_file_that_has_a_suffix_only_is_400_and_reports_it(
        self, client: TestClient, label: bytes, name: str
    ) -> None:
        message = detail(client.put("/datastore/image", files={"file": (name, label)}), 400)
        assert "has no name before its suffix" in message
        assert "?image=ID" in message

    @pytest.mark.parametrize("name", ["a\u00a0b", "a\u3000b", "a\u200db"])
    def test_a_character_that_cannot_be_seen_is_named(self, client: TestClient, label: bytes, name: str) -> None:
        answer = client.put("/datastore/image", params={"image": name}, files={"file": ("x.nii.gz", label)})
        assert f"it holds U+{ord(name[1]):04X} (" in detail(answer, 400)

    @pytest.mark.parametrize("name", ["x.py", "x.nii.gz/../../y.sh", "x", "x.nii.gz\\..\\y.exe", ".nii.gz.so"])
    def test_a_file_of_another_type_is_400_whatever_its_name_says(
        self, client: TestClient, label: bytes, name: str
    ) -> None:
        files = {"file": (name, label)}
        assert "send one of .nii.gz" in detail(client.put("/datastore/image?image=new", files=files), 400)

    def test_uploads_are_private_files_that_are_gone_afterwards(
        self, client: TestClient, app: Any, label: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[str, int]] = []
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

        def add_image(image: str, path: str, info: Any) -> str:
            seen.append((Path(path).suffix, Path(path).stat().st_mode | Path(path).parent.stat().st_mode))
            raise ZeroDivisionError("a defect")

        monkeypatch.setattr(app.datastore(), "add_image", add_image)
        client.put("/datastore/image?image=new", files={"file": ("x y;$(z).NII", label)})
        ((suffix, mode),) = seen
        assert suffix == ".nii"
        assert not mode & 0o077
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_many_parts_of_a_form_are_400(self, client: TestClient, label: bytes) -> None:
        files = [("file", (f"{number}.nii.gz", label)) for number in range(50)]
        assert "files" in detail(client.put("/datastore/image?image=new", files=files), 400).lower()

    def test_head_compares_checksums(self, client: TestClient, folder: Path) -> None:
        import hashlib

        content = (folder / "a.nii.gz").read_bytes()
        for sum_, status in (
            (hashlib.sha256(content).hexdigest(), 200),
            (f"MD5:{hashlib.md5(content).hexdigest()}", 200),
            ("SHA256:0", 404),
            ("CRC:1", 400),
        ):
            assert client.head("/datastore/image", params={"image": "a", "check_sum": sum_}).status_code == status
        assert client.head("/datastore/image?image=nobody").status_code == 404
        assert client.head("/datastore/label?image=nobody&tag=final").status_code == 404

    def test_the_archive_leaves_no_file(
        self, client: TestClient, label: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert save(client, "a", label).status_code == 200
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        for _ in range(3):
            assert client.get("/datastore/dataset").content.startswith(b"PK")
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_few_archives_are_made_at_a_time(
        self, app: Any, client: TestClient, label: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert save(client, "a", label).status_code == 200
        store = app.datastore()
        whole, begun, go_on = store.get_dataset_archive, threading.Semaphore(0), threading.Event()

        def slow(limit: int | None) -> str:
            begun.release()
            assert go_on.wait(30)
            return str(whole(limit))

        monkeypatch.setattr(store, "get_dataset_archive", slow)
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(client.get, "/datastore/dataset") for _ in range(2)]
            for _ in running:
                assert begun.acquire(timeout=30)
            try:
                answer = client.get("/datastore/dataset")
            finally:
                go_on.set()
            assert [each.result().status_code for each in running] == [200, 200]
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        assert client.get("/datastore/dataset").status_code == 200


def test_weights_are_neither_replaced_nor_removed(client: TestClient) -> None:
    assert "--conf weights" in detail(client.put("/model/sam3d", files={"file": ("w.pt", b"x")}), 400)
    for method, path in (("DELETE", "/model/sam3d"), ("GET", "/model/sam3d"), ("GET", "/model/info/nobody")):
        assert "no file of the model" in detail(client.request(method, path), 404)


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["all", "0", "cpu"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["gpus", "device", "max_epochs", "images", "label_tag", "client_id", "label_info", "strategy", "name", "labels"]
)
JSON = {"content-type": "application/json"}
BODIES = ODD | st.dictionaries(KEYS, ODD, max_size=3)
FORMS = (
    ("PUT", "/datastore/image/info?image=a", "info"),
    ("PUT", "/datastore/label/info?label=a&tag=final", "info"),
    ("PUT", "/datastore/image?image=a", "params"),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, path=st.sampled_from([*STARTING, "/activelearning/first"]))
def test_no_json_makes_a_route_fail(client: TestClient, app: Any, body: Any, path: str) -> None:
    answer = client.post(path, content=json.dumps(body), headers=JSON)
    assert answer.status_code < 500, answer.text
    for queue in app.tasks:
        queue.stop()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, form=st.sampled_from(FORMS))
def test_no_form_field_makes_a_route_or_a_later_read_fail(client: TestClient, body: Any, form: Any) -> None:
    method, path, field = form
    files = {"file": ("a.nii.gz", b"x")} if field == "params" else None
    answer = client.request(method, path, data={field: json.dumps(body)}, files=files)
    assert answer.status_code < 500, answer.text
    for later in ("/datastore/?output=all", "/datastore/image/info?image=a", "/info/"):
        assert client.get(later).status_code == 200
