"""The app inside MONAI Label's own server object: routes, answers, refusals."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import schedule
from fastapi import FastAPI, HTTPException
from fastapi.routing import iter_route_contexts
from monailabel.config import settings
from monailabel.interfaces.utils import app as app_registry
from starlette.testclient import TestClient

import sam3d_label
from lib.server.access.roles import is_listed
from sam3d_label.studies.label_names import name_values
from tests.helpers.app_helpers import APP, CENTRE, SHAPE, make_app, post, write_nifti, write_weights

LISTED = ["nan", "flat", "series"]
"""Broken volumes whose size and header give no reason not to list them."""

BROKEN = [*LISTED, "empty", "truncated", "text"]


@pytest.fixture(scope="module")
def server_settings(studies: Path, weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """MONAI Label's global settings, set as start_server sets them and restored."""
    sessions = tmp_path_factory.mktemp("sessions")
    changed = {
        "MONAI_LABEL_APP_DIR": str(APP),
        "MONAI_LABEL_STUDIES": str(studies),
        "MONAI_LABEL_APP_CONF": {
            "weights": str(weights_path),
            "labels": "tumor,cyst",
            "model_dir": str(tmp_path_factory.mktemp("model")),
        },
        "MONAI_LABEL_SESSION_PATH": str(sessions),
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
        "MONAI_LABEL_AUTO_UPDATE_SCORING": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in changed.items():
            patch.setattr(settings, key, value)
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield sessions
    app_registry.clear_cache()
    schedule.clear()


@pytest.fixture(scope="module")
def client(server_settings: Path) -> Iterator[TestClient]:
    from monailabel.app import app

    handlers = dict(app.exception_handlers)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
    app.exception_handlers = handlers
    app.middleware_stack = None


def detail(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


def test_every_route_is_in_the_table_of_roles(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    routes = [
        (method, str(route.path).removeprefix(settings.MONAI_LABEL_API_STR))
        for route in iter_route_contexts(client.app.router.routes)
        for method in route.methods or ()
    ]
    assert len(routes) > 50
    assert [route for route in routes if not is_listed(*route)] == []


def test_info_has_what_ohif_and_slicer_read(client: TestClient) -> None:
    info = client.get("/info/").json()
    assert info["version"] == sam3d_label.__version__
    assert info["labels"] == ["tumor", "cyst"]
    assert "config" not in info
    model = info["models"]["sam3d"]
    assert (model["type"], model["dimension"], model["labels"]) == ("deepgrow", 3, ["tumor", "cyst"])
    auto = info["models"]["sam3d_auto"]
    assert (auto["type"], auto["dimension"], auto["labels"]) == ("segmentation", 3, ["tumor", "cyst"])
    assert {"random", "first"} <= set(info["strategies"])


def test_slicer_gets_a_form_with_the_mask_and_its_description(client: TestClient) -> None:
    response = post(client, label="tumor", foreground=[CENTRE], background=[], result_extension=".nrrd")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("multipart/form-data")
    assert b'name="params"' in response.content
    assert b"space: left-posterior-superior" in response.content


def test_ohif_gets_the_bare_nrrd(client: TestClient) -> None:
    response = post(
        client,
        query={"output": "image"},
        foreground=[CENTRE],
        background=[],
        result_extension=".nrrd",
        result_dtype="uint8",
        result_compress=False,
        restore_label_idx=False,
    )
    header, _, body = response.content.partition(b"\n\n")
    assert b"type: unsigned char" in header
    assert len(body) == np.prod(SHAPE)
    assert set(body) <= {0, 1}


def test_the_json_part_alone(client: TestClient) -> None:
    answer = post(client, query={"output": "json"}, foreground=[CENTRE]).json()
    assert {"label_names", "latencies", "model_version", "changed_box"} <= answer.keys()


@pytest.mark.parametrize("output", ["image", "json", "all"])
def test_no_result_file_is_left_behind(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert post(client, query={"output": output}, foreground=[CENTRE]).status_code == 200
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "No clicks"),
        ({"foreground": [[99, 1, 1]]}, "30 x 26 x 13"),
        ({"foreground": [[1, 1, float("nan")]]}, "NaN is not JSON"),
        ({"foreground": [CENTRE], "background": [CENTRE]}, "background row"),
        ({"foreground": [CENTRE, [1, 1, 1]], "background": [CENTRE]}, "both inside and outside"),
        ({"foreground": [CENTRE], "device": "abacus"}, "abacus"),
        ({"foreground": [CENTRE], "result_extension": ".dcm"}, "result_extension"),
        ({"foreground": [CENTRE], "save_label": True, "label_tag": "../../x"}, "cannot be a label tag"),
        ({"foreground": [CENTRE], "result": "entropy"}, "'mask', 'uncertainty' or 'candidates', not 'entropy'"),
        (
            {"foreground": [CENTRE], "result": "uncertainty", "save_label": True},
            "uncertainty cannot be saved: request a mask",
        ),
    ],
)
def test_wrong_prompts_are_400(client: TestClient, params: dict[str, Any], expected: str) -> None:
    assert expected in detail(post(client, **params), 400)


def test_the_uncertainty_comes_as_a_file_with_the_next_click(client: TestClient) -> None:
    request: dict[str, Any] = {
        "foreground": [CENTRE],
        "result": "uncertainty",
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
    }
    image = post(client, query={"output": "image"}, **request)
    assert b"type: float" in image.content.partition(b"\n\n")[0]
    answer = post(client, query={"output": "json"}, **request).json()
    assert answer["next_click"] is None or len(answer["next_click"]) == 3


def test_a_mask_without_a_click(client: TestClient) -> None:
    answer = post(client, model="sam3d_auto", query={"output": "json"}).json()
    assert answer["label_names"] == {"tumor": 1}
    assert {"latencies", "model_version", "changed_box"} <= answer.keys()
    image = post(client, model="sam3d_auto", query={"output": "image"}, result_extension=".nrrd")
    header, _, body = image.content.partition(b"\n\n")
    assert b"type: unsigned char" in header
    assert len(body) == np.prod(SHAPE)
    assert set(body) <= {0, 1}
    assert "takes neither clicks" in detail(post(client, model="sam3d_auto", foreground=[CENTRE]), 400)


@pytest.mark.parametrize("image", BROKEN)
def test_broken_volumes_are_400_without_the_servers_paths(client: TestClient, studies: Path, image: str) -> None:
    message = detail(post(client, image, foreground=[[1, 1, 1]]), 400)
    assert f"Image {image}.nii.gz" in message
    assert str(studies) not in message


@pytest.mark.parametrize("image", ["nobody", "mr.nii.gz", "apps"])
def test_an_unknown_image_is_404(client: TestClient, image: str) -> None:
    assert f"no image '{image}'" in detail(post(client, image, foreground=[CENTRE]), 404)


def test_an_unknown_model_is_404(client: TestClient) -> None:
    assert "offers: sam3d" in detail(post(client, model="nobody", foreground=[CENTRE]), 404)


def test_params_cannot_reach_other_models_or_files(client: TestClient, studies: Path) -> None:
    request: dict[str, Any] = {"foreground": [CENTRE]}
    path = str(studies / "mr.nii.gz")
    for image in (path, "../studies/mr", "..", "a\\b", ".lock"):
        assert detail(post(client, image, **request), 400)
    forgeries: tuple[dict[str, Any], ...] = (
        *({"image": image} for image in (path, "odd", "mr", 7, None, ["mr"], {"id": "mr"}, "")),
        {"session": {"name": "../x", "image": path}},
        {"model": "sam3d_auto"},
        {"description": "x"},
    )
    for forged in forgeries:
        answer = client.post("/infer/sam3d?image=mr", data={"params": json.dumps({**request, **forged})})
        assert "the server sets it" in detail(answer, 400), forged


def test_an_upload_with_the_request_is_sent_to_sessions(client: TestClient, studies: Path) -> None:
    with (studies / "mr.nii.gz").open("rb") as file:
        answer = client.post("/infer/sam3d", files={"file": ("mr.nii.gz", file)}, data={"params": "{}"})
    assert "upload it first" in detail(answer, 400)


@pytest.mark.parametrize(("params", "expected"), [("{", "not JSON"), ("[1]", "JSON object"), ("null_", "not JSON")])
def test_params_that_are_no_object_are_400(client: TestClient, params: str, expected: str) -> None:
    assert expected in detail(client.post("/infer/sam3d?image=mr", data={"params": params}), 400)


def test_no_image_at_all_is_400(client: TestClient) -> None:
    assert "Image" in detail(client.post("/infer/sam3d", data={"params": "{}"}), 400)


def test_an_unknown_strategy_is_400(client: TestClient) -> None:
    assert "no such strategy" in detail(client.post("/activelearning/nobody", json={}), 400)


def test_the_first_sample_is_the_first(client: TestClient) -> None:
    assert client.post("/activelearning/first", json={"client_id": "x"}).json()["id"] == "flat"


class TestSessions:
    def create(self, client: TestClient, tmp_path: Path) -> str:
        with write_nifti(tmp_path / "local.nii.gz").open("rb") as file:
            return str(client.put("/session/", files={"files": ("local.nii.gz", file)}).json()["session_id"])

    def test_clicks_on_a_local_volume(self, client: TestClient, tmp_path: Path) -> None:
        session = self.create(client, tmp_path)
        answer = post(client, "", query={"session_id": session}, foreground=[CENTRE])
        assert answer.status_code == 200
        assert client.get(f"/session/{session}").status_code == 200

    def test_a_session_that_is_gone_is_404(self, client: TestClient, tmp_path: Path) -> None:
        session = self.create(client, tmp_path)
        assert client.delete(f"/session/{session}").status_code == 200
        for image in ("", "mr"):
            answer = post(client, image, query={"session_id": session}, foreground=[CENTRE])
            assert "does not exist or has expired" in detail(answer, 404)
        assert "does not exist" in detail(client.get(f"/session/{session}"), 404)
        assert "does not exist" in detail(client.delete(f"/session/{session}"), 404)

    def test_a_session_cannot_point_out_of_its_folder(
        self, client: TestClient, server_settings: Path, studies: Path
    ) -> None:
        planted = server_settings / "planted"
        planted.mkdir()
        (planted / "meta.info").write_text(json.dumps({"image": str(studies / "mr.nii.gz"), "name": "planted"}))
        nested = server_settings / "planted" / "inner"
        nested.mkdir()
        (nested / "meta.info").write_text(json.dumps({"image": str(nested / "meta.info"), "name": "inner"}))
        for session in ("planted", "planted/inner", "..", "."):
            detail(post(client, "mr", query={"session_id": session}, foreground=[CENTRE]), 404)

    def test_expired_sessions_go_and_half_made_ones_do_not_stop_the_cleaning(
        self, client: TestClient, server_settings: Path, tmp_path: Path
    ) -> None:
        session = self.create(client, tmp_path)
        (server_settings / "half").mkdir(exist_ok=True)
        sessions = app_registry.app_instance().sessions()
        assert sessions.remove_expired() == 0
        meta = server_settings / session / "meta.info"
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "last_access_ts": 1}))
        sessions.pop(session)
        assert sessions.remove_expired() == 1
        assert not meta.parent.exists()


class TestDatastore:
    def test_upload_click_save_and_remove(self, client: TestClient, tmp_path: Path) -> None:
        image = write_nifti(tmp_path / "new case.nii.gz")
        with image.open("rb") as file:
            answer = client.put("/datastore/?image=new case", files={"file": ("new case.nii.gz", file)})
        assert answer.json() == {"image": "new case"}
        answer = post(client, "new case", query={"output": "image"}, foreground=[CENTRE])
        mask = tmp_path / "mask.nii.gz"
        mask.write_bytes(answer.content)
        with mask.open("rb") as file:
            saved = client.put("/datastore/label?image=new case", files={"label": ("mask.nii.gz", file)})
        assert saved.json()["label"] == "new case"
        stored = client.get("/datastore/label?label=new case&tag=final")
        np.testing.assert_array_equal(
            nib.Nifti1Image.from_bytes(gzip.decompress(stored.content)).get_fdata(),
            nib.Nifti1Image.from_filename(mask).get_fdata(),
        )
        assert client.delete("/datastore/?id=new case").status_code == 200
        assert "no image" in detail(post(client, "new case", foreground=[CENTRE]), 404)

    def test_a_result_can_be_saved_at_once(self, client: TestClient) -> None:
        before = client.get("/datastore/").json()["label_tags"].get("original", 0)
        answer = post(client, "odd", foreground=[[8, 8, 6]], save_label=True, label_tag="original")
        assert answer.status_code == 200
        assert client.get("/datastore/").json()["label_tags"]["original"] == before + 1

    def test_a_result_that_is_saved_is_what_was_requested(self, client: TestClient) -> None:
        post(client, "odd", foreground=[[8, 8, 6]], label="cyst", save_label=True, label_tag="checked")
        info = client.get("/datastore/label/info?label=odd&tag=checked").json()
        assert info["label_info"] == [{"name": "cyst", "idx": 1}]
        assert name_values([1], info, ["tumor", "cyst"]) == {1: "cyst"}
        client.delete("/datastore/label?id=odd&tag=checked").raise_for_status()

    @pytest.mark.parametrize("query", ["image=../x", "image=.x"])
    def test_bad_ids_are_400(self, client: TestClient, studies: Path, query: str) -> None:
        with (studies / "mr.nii.gz").open("rb") as file:
            answer = client.put(f"/datastore/?{query}", files={"file": ("x.nii.gz", file)})
        assert "cannot be an image id" in detail(answer, 400)

    @pytest.mark.parametrize("image", BROKEN)
    def test_broken_uploads_are_400(self, client: TestClient, studies: Path, image: str) -> None:
        content = (studies / f"{image}.nii.gz").read_bytes()
        answer = client.put("/datastore/image?image=new", files={"file": (f"{image}.nii.gz", content)})
        assert "The file" in detail(answer, 400)

    def test_garbage_is_no_label(self, client: TestClient) -> None:
        answer = client.put("/datastore/label?image=mr", files={"label": ("x.nii.gz", b"garbage" * 50)})
        assert "cannot be read" in detail(answer, 400)
        assert client.get("/datastore/").json()["completed"] == 0

    @pytest.mark.parametrize("params", ["[1]", "7", '"text"'])
    def test_params_that_are_no_object_are_400(self, client: TestClient, studies: Path, params: str) -> None:
        files = {"file": ("x.nii.gz", (studies / "mr.nii.gz").read_bytes())}
        answer = client.put("/datastore/?image=new", files=files, data={"params": params})
        assert "JSON object" in detail(answer, 400)
        files = {"label": files["file"]}
        answer = client.put("/datastore/label?image=mr", files=files, data={"params": params})
        assert "JSON object" in detail(answer, 400)

    def test_unknown_images_are_404(self, client: TestClient, studies: Path) -> None:
        with (studies / "mr.nii.gz").open("rb") as file:
            detail(client.put("/datastore/label?image=nobody", files={"label": ("x.nii.gz", file)}), 404)
        detail(client.delete("/datastore/image?id=nobody"), 404)
        detail(client.get("/datastore/image?image=nobody"), 404)
        detail(client.get("/datastore/dataset"), 404)
        detail(client.put("/datastore/image/info?image=nobody", data={"info": "{}"}), 404)


def test_weights_cannot_be_replaced_or_removed_over_http(client: TestClient) -> None:
    assert "--conf weights" in detail(client.put("/model/sam3d", files={"file": ("w.pt", b"x")}), 400)
    detail(client.delete("/model/sam3d"), 404)


def test_a_batch_without_clicks_is_a_clear_400(client: TestClient) -> None:
    for query in ("run_sync=true&images=labeled", "images=all"):
        answer = client.post(f"/batch/infer/sam3d?{query}", json={"multi_gpu": False, "images": ["mr"]})
        assert "No clicks" in detail(answer, 400)
        assert "sam3d_auto" in detail(answer, 400)


class TestBatch:
    def run(self, client: TestClient, query: str = "", **body: Any) -> Any:
        body = {"label_tag": "auto", **body}
        return client.post(f"/batch/infer/sam3d_auto?run_sync=true{query}", json=body)

    def test_one_broken_volume_does_not_end_it(
        self, client: TestClient, studies: Path, tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with caplog.at_level("INFO"):
            answers = self.run(client, images=["odd", "text", "mr"]).json()
        assert list(answers) == ["mr", "odd", "text"]
        assert answers["mr"]["label"] == "mr"
        assert answers["mr"]["tag"] == "auto"
        assert answers["mr"]["params"]["label_names"] == {"tumor": 1}
        assert "Image text.nii.gz" in answers["text"]["error"]
        assert "2 of 3: odd: saved as auto" in caplog.text
        assert "3 of 3: text: failed: Image text.nii.gz" in caplog.text
        assert "2 saved, 1 failed text" in caplog.text
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        alone = post(client, "odd", model="sam3d_auto", query={"output": "image"}).content
        saved = client.get("/datastore/label?label=odd&tag=auto").content
        read = [nib.Nifti1Image.from_bytes(gzip.decompress(content)).get_fdata() for content in (alone, saved)]
        np.testing.assert_array_equal(read[1], read[0])
        info = client.get("/datastore/label/info?label=odd&tag=auto").json()
        assert info["params"]["label_names"] == {"tumor": 1}
        assert info["model"] == "sam3d_auto"

    def test_a_failure_that_nobody_expects_is_reported_as_well(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any) -> None:
            raise ZeroDivisionError("one over nothing")

        monkeypatch.setattr(app_registry.app_instance()._infers["sam3d_auto"]._segmenters, "borrow", broken)
        assert self.run(client, images=["mr"]).json() == {"mr": {"error": "ZeroDivisionError: one over nothing"}}

    def test_the_images_are_chosen_as_monai_label_does(self, client: TestClient) -> None:
        unlabelled = self.run(client, "&images=unlabeled", max_workers=2).json()
        assert {*LISTED, "mr", "odd"} == set(unlabelled)
        assert self.run(client, "&images=labeled").json() == {}
        assert list(self.run(client, max_batch_size=2).json()) == sorted(unlabelled)[:2]
        assert "no image 'nobody'" in self.run(client, images=["nobody"]).json()["nobody"]["error"]

    def test_the_default_request_works_without_a_gpu(self, client: TestClient) -> None:
        body: dict[str, Any] = {"device": "cuda", "multi_gpu": True, "gpus": "all", "max_workers": 1, "images": ["mr"]}
        assert "label" in self.run(client, **body).json()["mr"]

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"images": "some"}, "images: .*'unlabeled'"),
            ({"images": [1]}, "images"),
            ({"label_tag": "../x"}, "cannot be a label tag"),
            ({"max_batch_size": -1}, "max_batch_size: .* not -1"),
            ({"max_workers": "many"}, "max_workers"),
            ({"device": "abacus"}, "no 'abacus' here"),
        ],
    )
    def test_what_would_fail_on_every_image_is_400(
        self, client: TestClient, body: dict[str, Any], expected: str
    ) -> None:
        assert re.search(expected, detail(self.run(client, **body), 400))

    def test_an_unknown_model_is_404(self, client: TestClient) -> None:
        assert "offers: sam3d, sam3d_auto" in detail(client.post("/batch/infer/nobody?run_sync=true", json={}), 404)

    def test_gpus_share_the_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from lib.infers import batch as module
        from lib.requests import Batch

        monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(module, "resolve_device", lambda name: name)
        assert module.devices_of(Batch()) == ["cuda:0", "cuda:1"]
        assert module.devices_of(Batch(device="cuda", gpus="1")) == ["cuda:1"]
        assert module.devices_of(Batch(multi_gpu=False, device="cuda")) == ["cuda"]
        assert module.devices_of(Batch(device="cpu")) == ["cpu"]


def test_a_defect_is_reported_with_the_request_id_and_without_its_text(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr(app_registry.app_instance()._infers["sam3d"]._segmenters, "borrow", broken)
    answer = post(client, "odd", foreground=[[3, 3, 3]])
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    assert answer.json()["request_id"] in detail(answer, 500)
    assert "one over nothing" not in answer.text


class TestHealth:
    def test_a_server_with_weights_and_a_folder_is_ready(self, client: TestClient, studies: Path) -> None:
        answer = client.get("/sam3d/health")
        assert answer.status_code == 200, answer.text
        report = answer.json()
        assert report["ready"] is True
        assert {"weights", "datastore", "labels", "models", "disk", "queue"} <= report["checks"].keys()
        assert str(studies) not in answer.text
        assert client.get("/sam3d/health/live").json() == {"live": True}

    def test_clicks_and_refusals_are_in_the_metrics(self, client: TestClient) -> None:
        post(client, foreground=[CENTRE])
        post(client, foreground=[[9999, 0, 0]])
        text = client.get("/sam3d/metrics").text
        assert 'sam3d_inferences_total{model="sam3d",result="ok"}' in text
        assert 'sam3d_inferences_total{model="sam3d",result="failed"}' in text
        assert 'sam3d_stage_seconds_count{stage="total"}' in text
        assert 'route="/infer/{model}",status="400"' in text
        assert "sam3d_embedding_cache_bytes" in text

    def test_an_error_carries_the_id_of_its_request(self, client: TestClient) -> None:
        answer = post(client, "nobody", foreground=[CENTRE])
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


class TestTraining:
    @pytest.mark.parametrize(
        ("path", "body", "status", "expected"),
        [
            ("/train/sam3d", {"epochs": 3}, 400, "epochs: no such key"),
            ("/train/sam3d", {"max_epochs": "many"}, 400, "max_epochs"),
            ("/train/", {"sam3d": {"colour": "red"}}, 400, "colour: no such key"),
            ("/train/nobody", {}, 404, "no trainer 'nobody'; this server has: sam3d"),
        ],
    )
    def test_a_wrong_request_is_refused_before_anything_starts(
        self, client: TestClient, path: str, body: Any, status: int, expected: str
    ) -> None:
        assert expected in detail(client.post(path, json=body), status)
        assert client.get("/train/").status_code == 404

    def test_without_labels_there_is_nothing_to_train_on(self, client: TestClient) -> None:
        assert "no image has a final label yet" in detail(client.post("/train/sam3d?run_sync=true", json={}), 400)


class TestConfiguration:
    def test_untrained_weights_are_not_offered(self, studies: Path, untrained_path: Path, caplog: Any) -> None:
        app = make_app(studies, {"weights": str(untrained_path)})
        assert app.info()["models"] == {}
        assert app.info()["labels"] == ["tumor"]
        with pytest.raises(HTTPException) as caught:
            app.infer({"model": "sam3d", "image": "mr", "foreground": [CENTRE]})
        assert caught.value.status_code == 400
        for text in (caught.value.detail, caplog.text):
            assert "never trained" in text
            assert "sam3d_label train" in text
            assert "convert-reference" in text

    def test_weights_that_need_clicks_offer_the_automatic_model_and_refuse_it(
        self, studies: Path, tmp_path: Path
    ) -> None:
        app = make_app(studies, {"weights": str(write_weights(tmp_path, ("positive_click",)))})
        assert set(app.info()["models"]) == {"sam3d", "sam3d_auto"}
        refused = (
            lambda: app.infer({"model": "sam3d_auto", "image": "mr"}),
            lambda: app.infer({"model": "sam3d", "image": "mr", "foreground": [CENTRE], "background": [[1, 1, 1]]}),
            lambda: app.batch_infer({"model": "sam3d_auto"}),
        )
        for request in refused:
            with pytest.raises(HTTPException, match="have not learned") as caught:
                request()
            assert caught.value.status_code == 400

    def test_a_preset_without_weights_says_what_is_missing(self, studies: Path) -> None:
        app = make_app(studies, {"preset": "vit_b"})
        assert app.info()["models"] == {}
        with pytest.raises(HTTPException, match="preset vit_b has no shipped weights") as caught:
            app.infer({"model": "sam3d", "image": "mr", "foreground": [CENTRE]})
        assert caught.value.status_code == 400

    def test_a_bad_key_stops_the_start(self, studies: Path) -> None:
        with pytest.raises(ValueError, match="--conf colour: unknown key"):
            make_app(studies, {"colour": "red"})

    def test_weights_that_do_not_exist_stop_the_start(self, studies: Path) -> None:
        with pytest.raises(ValueError, match="nowhere"):
            make_app(studies, {"weights": "nowhere.safetensors"})

    def test_inference_in_a_pool_answers_the_same(
        self, studies: Path, weights_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settings, "MONAI_LABEL_INFER_CONCURRENCY", 2)
        app = make_app(studies, {"weights": str(weights_path)})
        answers: list[Any] = []
        request = {"model": "sam3d", "image": "mr", "foreground": [CENTRE]}
        threads = [threading.Thread(target=lambda: answers.append(app.infer(dict(request)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        masks = [nib.Nifti1Image.from_filename(answer["file"]).get_fdata() for answer in answers]
        np.testing.assert_array_equal(masks[1], masks[0])
        for answer in answers:
            Path(answer["file"]).unlink()
