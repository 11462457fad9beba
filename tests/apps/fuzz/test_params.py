"""Random `params` of a request for a mask: whatever they hold, the answer is a mask or says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.fuzz_helpers import Probe, examples

NUMBERS = st.one_of(
    st.integers(-5, 40),
    st.integers(),
    st.floats(),
    st.sampled_from([2**63, -(2**63), 1e308, 0.5, -0.0, True, 10**400]),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.text(max_size=20), st.sampled_from(["", "\x00", "\ud800", "../x"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
)
POINT = st.lists(st.integers(0, 12), min_size=3, max_size=3)
POINTS = st.one_of(st.lists(POINT, max_size=3), st.lists(st.lists(NUMBERS, max_size=4), max_size=3), JSON)
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "foreground": POINTS,
    "background": POINTS,
    "roi": st.one_of(st.lists(st.integers(-2, 30), min_size=6, max_size=6), JSON),
    "points": POINTS,
    "point_labels": st.one_of(st.lists(st.integers(0, 1), max_size=3), JSON),
    "tumor": POINTS,
    "label": st.one_of(st.sampled_from(["tumor", "other"]), JSON),
    "device": st.one_of(st.sampled_from(["cpu", "cuda", "cuda:7", "meta", "mps"]), JSON),
    "result": st.one_of(st.sampled_from(["mask", "uncertainty"]), JSON),
    "result_extension": st.one_of(st.sampled_from([".nrrd", ".nii.gz", ".nii", ".exe", "/x"]), JSON),
    "result_dtype": st.one_of(st.sampled_from(["uint8", "float32", "object", "V8", "S3"]), JSON),
    "result_compress": JSON,
    "restore_label_idx": JSON,
    "save_label": JSON,
    "label_tag": st.one_of(st.sampled_from(["final", "original"]), JSON),
    "session": JSON,
    "session_id": JSON,
    "image": JSON,
    "model": JSON,
    "timeout": JSON,
    "slice": JSON,
    "logging": JSON,
    "client_id": JSON,
    "reset_state": JSON,
    "description": JSON,
    "label_info": JSON,
    "max_workers": JSON,
}
VALID = {"foreground": [[15, 13, 6]], "background": [[1, 1, 1]], "result_extension": ".nrrd", "device": "cpu"}
ONE_OR_TWO = st.lists(st.sampled_from(sorted(KNOWN)), min_size=1, max_size=2, unique=True)
PARAMS = st.one_of(
    ONE_OR_TWO.flatmap(lambda keys: st.fixed_dictionaries({key: KNOWN[key] for key in keys})).map(
        lambda odd: VALID | odd
    ),
    st.fixed_dictionaries({}, optional=KNOWN).map(lambda params: {**params, "foreground": [[15, 13, 6]]}),
    st.fixed_dictionaries({}, optional=KNOWN),
    st.dictionaries(st.one_of(st.sampled_from(sorted(KNOWN)), st.text(max_size=8)), JSON, max_size=4),
    JSON,
)


KINDS = [
    "application/x-www-form-urlencoded",
    "application/json",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "text/plain; charset=utf-7",
    "",
]
OUTPUTS, IMAGES = ["image", "json", "all", "dicom_seg", "x"], ["one", "two", "none"]
RECORDS = ["/datastore/image/info", "/datastore/label/info", "/datastore/updatelabelinfo"]


@pytest.mark.parametrize("model", ["sam3d", "sam3d_auto"])
def test_any_params_are_answered_with_a_mask_or_a_reason(probe: Probe, model: str) -> None:
    @examples(60)
    @given(params=PARAMS, output=st.sampled_from(OUTPUTS), image=st.sampled_from(IMAGES))
    def send(params: Any, output: str, image: str) -> None:
        query, data = {"image": image, "output": output}, {"params": json.dumps(params)}
        answer = probe.check("POST", f"/infer/{model}", params=query, data=data)
        if answer.status_code >= 400:
            assert answer.json()["detail"], answer.text

    send()
    assert probe.client.get("/info/").status_code == 200
    good = json.dumps({"foreground": [[15, 13, 6]]} if model == "sam3d" else {})
    answer = probe.check("POST", f"/infer/{model}", params={"image": "one"}, data={"params": good})
    assert answer.status_code == 200, answer.text


def test_any_bytes_as_params_are_answered(probe: Probe) -> None:
    @examples(60)
    @given(body=st.binary(max_size=200), kind=st.sampled_from(KINDS))
    def send(body: bytes, kind: str) -> None:
        probe.check("POST", "/infer/sam3d", params={"image": "one"}, content=body, headers={"Content-Type": kind})

    send()


def test_records_with_any_content_leave_the_datastore_readable(probe: Probe) -> None:
    @examples(40)
    @given(info=JSON, where=st.sampled_from(RECORDS))
    def send(info: Any, where: str) -> None:
        query, data = {"image": "one", "label": "one", "tag": "final"}, {"info": json.dumps(info)}
        probe.check("PUT", where, params=query, data=data)
        assert probe.check("GET", "/datastore/", params={"output": "all"}).status_code == 200
        assert probe.check("GET", "/info/").status_code == 200

    send()
