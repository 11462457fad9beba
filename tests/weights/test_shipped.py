"""The weights that come with the package, on volumes that did not train them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sam3d_label.weights
from sam3d_label.evaluation.annotators import error_centre
from sam3d_label.image.volume import Volume
from sam3d_label.masks import dice
from sam3d_label.segmentation.prompts import Click
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.weights import Weights, locations, open_weights

ROOT = Path(sam3d_label.__file__).resolve().parent
SAMPLES = ROOT.parent / "sample-data"


@pytest.fixture(autouse=True)
def no_files_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped weights as they are, unlike in the other tests of this folder."""
    monkeypatch.setattr(locations, "SHIPPED", ROOT / "weights" / "shipped")


@pytest.fixture(scope="module")
def default() -> Weights:
    return open_weights()


@pytest.fixture(scope="module")
def tiny() -> Weights:
    return open_weights("tiny")


def session(weights: Weights, image: Path, label: Path, clicks: int) -> list[float]:
    """Dice after each click on the centre of the larger error."""
    truth = Volume.open(label).array > 0
    segmenter = Segmenter(Volume.open(image), weights)
    mask = np.zeros_like(truth)
    drawn: list[Click] = []
    scores: list[float] = []
    for _ in range(clicks):
        click = error_centre(truth, mask, drawn, np.random.default_rng(0), (1.0, 1.0, 1.0))
        assert click is not None
        drawn.append(click)
        mask = segmenter.segment(drawn).mask > 0
        scores.append(dice(mask, truth))
    return scores


def test_the_default_takes_every_kind_of_prompt(default):
    assert default.signature == open_weights("tiny-geodesic").signature
    assert set(default.card.capabilities) == {"positive_click", "negative_click", "mask", "box", "no_click"}
    assert default.model.config.candidates == 3


@pytest.mark.parametrize("folder", sorted((ROOT / "weights" / "shipped").iterdir()), ids=lambda folder: folder.name)
def test_weights_are_small_enough_to_ship(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12 * 2**20


def test_its_card_says_where_it_comes_from(tiny):
    assert tiny.card.preset == "tiny"
    assert {"positive_click", "negative_click"} <= set(tiny.card.capabilities)
    assert "CC BY 3.0" in {source.licence for source in tiny.card.training.data}
    patients = {name.split("_")[1] for name in tiny.card.training.model_extra["cases"] if name.startswith("sts")}
    assert max(patients) <= "028"


def test_clicks_on_the_samples_find_their_lesions(default):
    scores = [
        session(default, image, SAMPLES / "labels" / image.name, 3) for image in sorted((SAMPLES / "images").iterdir())
    ]
    assert np.mean(scores, axis=0)[-1] > 0.6


def test_clicks_on_tumours_of_patients_who_never_trained(default, real_data):
    scores = [
        session(default, image, real_data / "sts" / "labels" / image.name, 3)
        for image in sorted((real_data / "sts" / "images").glob("sts_03[123]_mr*"))
    ]
    first, _, third = np.mean(scores, axis=0)
    assert first > 0.6
    assert third > 0.7


def test_one_click_finds_a_large_smooth_tumour_in_pet(default, real_data):
    """The image around the click suggests a small target; the predicted Dice shows that it is large."""
    names = ["sts_030_pet.nii.gz", "sts_034_pet.nii.gz"]
    folder = real_data / "sts_pet"
    scores = [session(default, folder / "images" / name, folder / "labels" / name, 1)[0] for name in names]
    assert min(scores) > 0.7
