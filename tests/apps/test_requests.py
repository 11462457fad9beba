"""The JSON of each client -> prompts, or an error that helps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.requests import RESERVED_KEYS, SERVER_KEYS, parse
from sam3d_label.errors import PromptError
from sam3d_label.segmentation.prompts import Box, ChosenCandidate, Click, Prompts

LABELS = ("tumor", "cyst")
INSIDE, OUTSIDE = Click((81, 54, 36)), Click((50, 64, 30), positive=False)
BOTH = (INSIDE, OUTSIDE)

OHIF_TAIL = {
    "result_extension": ".nrrd",
    "result_dtype": "uint8",
    "result_compress": False,
    "restore_label_idx": False,
}
SLICER_TAIL = {
    "device": "cpu",
    "result_extension": ".nrrd",
    "result_dtype": "uint8",
    "client_id": "user-xyz",
}
SERVER = {"model": "sam3d", "image": "/studies/mr.nii.gz", "description": "text", "session": {"name": "1"}}


def read(**request: Any) -> tuple[Prompts, Any]:
    return parse(json.loads(json.dumps({**SERVER, **request})), labels=LABELS)


@pytest.mark.parametrize(
    ("request_", "clicks", "label"),
    [
        pytest.param({"foreground": [[81, 54, 36]], "background": [], **OHIF_TAIL}, (INSIDE,), "tumor", id="ohif-one"),
        pytest.param(
            {"foreground": [[81, 54, 36]], "background": [[50, 64, 30]], **OHIF_TAIL},
            BOTH,
            "tumor",
            id="ohif-both",
        ),
        pytest.param({"background": [[50, 64, 30]], **OHIF_TAIL}, (OUTSIDE,), "tumor", id="ohif-no-foreground-key"),
        pytest.param(
            {"foreground": [[81, 54, 36]], "background": None, "null": [[1, 2, 3]], **OHIF_TAIL},
            (INSIDE,),
            "tumor",
            id="ohif-no-label-selected",
        ),
        pytest.param({"background": [], "cyst": [[81, 54, 36]], **OHIF_TAIL}, (INSIDE,), "cyst", id="ohif-deepedit"),
        pytest.param(
            {
                "points": [[81, 54, 36], [50, 64, 30]],
                "point_labels": [1, 0],
                "label_prompt": [2],
                **OHIF_TAIL,
            },
            BOTH,
            "cyst",
            id="ohif-vista3d",
        ),
        pytest.param(
            {
                "label": "Segment_1",
                "foreground": [[81, 54, 36]],
                "background": [[50, 64, 30]],
                "reset_state": True,
                "slice": None,
                **SLICER_TAIL,
            },
            BOTH,
            "Segment_1",
            id="slicer-deepgrow",
        ),
        pytest.param(
            {
                "tumor": [[1, 1, 1]],
                "cyst": [[81, 54, 36]],
                "label": "cyst",
                "background": [[50, 64, 30]],
                **SLICER_TAIL,
            },
            BOTH,
            "cyst",
            id="slicer-deepedit",
        ),
        pytest.param(
            {"label": "tumor", "foreground": [[81, 54, 36]], "background": [], "roi": [], **SLICER_TAIL},
            (INSIDE,),
            "tumor",
            id="slicer-empty-roi",
        ),
        pytest.param(
            {"foreground": [[81, 54, 36]], "points": [[9, 9, 9]], "point_labels": [1], "cyst": [[8, 8, 8]]},
            (INSIDE,),
            "tumor",
            id="keys-of-earlier-requests",
        ),
        pytest.param({"points": [[81, 54, 36]]}, (INSIDE,), "tumor", id="points-alone-are-inside"),
        pytest.param(
            {"points": [[81, 54, 36], [0, 0, 0]], "point_labels": [1, -1], "label_prompt": 1},
            (INSIDE,),
            "tumor",
            id="padding-point",
        ),
        pytest.param({"foreground": [[80.6, 54.4, 35.5]]}, (INSIDE,), "tumor", id="fractions-are-rounded"),
        pytest.param({"foreground": [[81, 54, 36]] * 3}, (INSIDE,), "tumor", id="repeated-click"),
        pytest.param(
            {"foreground": [[81, 54, 36]], "label": "/tmp/scribbles.nii.gz"},
            (INSIDE,),
            "tumor",
            id="label-is-a-file",
        ),
    ],
)
def test_each_client_dialect(request_: dict[str, Any], clicks: tuple[Click, ...], label: str) -> None:
    prompts, output = read(**request_)
    assert prompts == Prompts(clicks=clicks)
    assert output.label == label


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, "No clicks"),
        ({"foreground": [], "background": []}, "Place a point inside the lesion first"),
        ({"label_prompt": [1], **OHIF_TAIL}, "No clicks"),
        ({"foreground": [[1, 2, 3]], "background": [[1, 2, 3]]}, "background row"),
        ({"foreground": [[1, 2]]}, r"foreground: a click is \[i, j, k\].*not \[1, 2\]"),
        ({"foreground": [1, 2, 3]}, r"foreground: a click is \[i, j, k\].*not 1"),
        ({"foreground": "1,2,3"}, "foreground: must be a list of clicks"),
        ({"background": [[1, 2, float("nan")]]}, "background: nan is not a voxel number"),
        ({"foreground": [[1, 2, float("inf")]]}, "foreground: inf is not a voxel number"),
        ({"foreground": [["1", 2, 3]]}, "foreground: '1' is not a voxel number"),
        ({"foreground": [[True, 2, 3]]}, "foreground: True is not a voxel number"),
        ({"cyst": [[1, 2]]}, "cyst: a click is"),
        ({"points": [[1, 2, 3]], "point_labels": [1, 0]}, "point_labels: 2 of them for 1 points"),
        ({"points": [[1, 2, 3]], "point_labels": [2]}, "point_labels: 2 is not 1"),
        ({"points": [[1, 2, 3]], "label_prompt": [3]}, "no label 3, only 1 = tumor, 2 = cyst"),
        ({"points": [[1, 2, 3]], "label_prompt": [1, 2]}, "give one label"),
        ({"tumor": [[1, 2, 3]], "cyst": [[4, 5, 6]]}, 'several labels.*name one of them as "label"'),
        ({"foreground": [[1, 2, 3]], "roi": [1, 2, 3]}, "roi: must be six voxel numbers"),
        ({"foreground": [[1, 2, 3]], "result_extension": ".dcm"}, r"result_extension: .*'\.dcm'"),
        ({"foreground": [[1, 2, 3]], "result_dtype": "complex64"}, "result_dtype: .*'complex64'"),
        ({"foreground": [[1, 2, 3]], "result_compress": "maybe"}, "result_compress: .*'maybe'"),
        ({"foreground": [[1, 2, 3]], "device": {"name": "cpu"}}, "device: "),
        ({"foreground": [[1, 2, 3]], "result_crop": True, "save_label": True}, "result_crop: a label has the grid"),
    ],
)
def test_what_is_wrong_is_named(request_: dict[str, Any], expected: str) -> None:
    with pytest.raises(PromptError, match=expected):
        parse({**SERVER, **request_}, labels=LABELS)


def test_a_region_of_slicer_is_a_box_whatever_its_order() -> None:
    prompts, _ = read(foreground=[[5, 5, 5]], roi=[9, 2, 8, 3, 4, 7.4])
    assert prompts.boxes == (Box((2, 3, 4), (9, 8, 7)),)


def test_a_chosen_candidate_is_named_by_its_prompts_and_its_number() -> None:
    earlier = {"number": 2, "foreground": [[81, 54, 36]], "roi": [0, 9, 0, 8, 0, 7]}
    prompts, _ = read(foreground=[[81, 54, 36]], background=[[50, 64, 30]], chosen_candidate=earlier)
    assert prompts.clicks == BOTH
    expected = ChosenCandidate(Prompts((INSIDE,), (Box((0, 0, 0), (9, 8, 7)),)), 2)
    assert prompts.chosen == expected
    named, _ = read(foreground=[[81, 54, 36]], chosen_candidate={**earlier, "version": "0002"})
    assert named.chosen == replace(expected, version="0002")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"foreground": [[1, 2, 3]]}, "chosen_candidate.number: Field required"),
        ({"number": -1}, "chosen_candidate.number"),
        ({"number": 0, "clicks": []}, "chosen_candidate.clicks"),
        ({"number": 0, "version": 2}, "chosen_candidate.version"),
        ({"number": 0, "foreground": [[1, 2]]}, "chosen_candidate.foreground: a click is"),
        (3, "chosen_candidate"),
    ],
)
def test_a_wrong_choice_is_named(chosen: Any, expected: str) -> None:
    with pytest.raises(PromptError, match=expected):
        read(foreground=[[1, 2, 3]], chosen_candidate=chosen)


def test_a_region_alone_is_enough() -> None:
    prompts, _ = read(roi=[1, 5, 1, 5, 1, 5])
    assert not prompts.clicks
    assert prompts.boxes


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("result_extension", "nii.gz", "extension", ".nii.gz"),
        ("result_extension", ".NRRD", "extension", ".nrrd"),
        ("result_extension", None, "extension", None),
        ("result_dtype", "float32", "dtype", "float32"),
        ("result_dtype", None, "dtype", "uint8"),
        ("result_compress", True, "compress", True),
        ("result_compress", None, "compress", False),
        ("result_crop", True, "crop", True),
        ("result_crop", None, "crop", False),
        ("device", ["NVIDIA A100", "cpu"], "device", "NVIDIA A100"),
        ("device", [], "device", None),
        ("device", "", "device", None),
    ],
)
def test_the_form_of_the_answer(key: str, value: Any, field: str, expected: Any) -> None:
    _, output = read(foreground=[[1, 2, 3]], **{key: value})
    assert getattr(output, field) == expected


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab1./", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*sorted(RESERVED_KEYS - SERVER_KEYS), "tumor", "cyst"]), ANYTHING, max_size=4))
def test_no_json_gets_through_as_anything_but_prompts_or_a_prompt_error(request_: dict[str, Any]) -> None:
    try:
        prompts, _ = parse(request_, labels=LABELS)
    except PromptError:
        return
    assert prompts.clicks or prompts.boxes
