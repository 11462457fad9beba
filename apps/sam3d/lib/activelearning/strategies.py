"""Strategies that choose the next image: by uncertainty, by distance to the labelled images, first, or random."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from pydantic import ValidationError

from lib.activelearning.idle import Idleness, between_layers
from lib.configs.active_weights import ActiveWeights
from lib.datastores.json_files import load, store
from lib.datastores.studies import remember
from lib.infers.open_volumes import Segmenters
from lib.infers.sam3d import resolve_device
from sam3d_label.active_learning.score import ImageScore, ImageScores, farthest_vector, score_volume
from sam3d_label.errors import Sam3dError
from sam3d_label.io import locked, storing

logger = logging.getLogger(__name__)
SCORES = "scores.json"
HANDED_OUT_SECONDS = 3600
"""Seconds for which an image is not handed out again, neither to others nor to an annotator who skipped it."""

INFO = "sam3d"
"""Key of the score in an image's info."""

STRATEGY = "strategy"
"""Key of the record who received the image, by strategy: `ts` and `client_id`."""


class Chosen(TypedDict, total=False):
    """The next image to label, its weight in a random choice, and why it was chosen."""

    id: str
    weight: int
    why: str


class ScoreFile:
    """The scores of the images, in a file.

    Args:
        model_dir: Folder of the file.
    """

    def __init__(self, model_dir: Path) -> None:
        self.path = model_dir / SCORES

    def read(self) -> dict[str, ImageScore]:
        """Return all usable scores; those of an earlier version stay until the image is scored again."""
        stored = load(ImageScores, self.path) or ImageScores()
        found = {image: _score(image, score) for image, score in stored.scores.items()}
        return {image: score for image, score in found.items() if score}

    def add(self, image: str, score: ImageScore) -> None:
        """Store the score of an image."""
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            store(self.path, ImageScores(scores={**self.read(), image: score}))


def _score(image: str, stored: object) -> ImageScore | None:
    """Return a stored score; a damaged one is reported, and its image is scored again."""
    try:
        return ImageScore.model_validate(stored)
    except ValidationError:
        logger.warning("The stored score of image %r is damaged and is left out", image)
        return None


class VolumeScoring(ScoringMethod):
    """Scores every image that the active version has not scored yet, while the server is idle.

    Args:
        serving: The active weights.
        segmenters: Opens images.
        scores: The file of scores.
        idle: Whether nobody else needs the machine.
    """

    def __init__(self, serving: ActiveWeights, segmenters: Segmenters, scores: ScoreFile, idle: Idleness) -> None:
        super().__init__("Uncertainty of the model and feature vector, for each image")
        self._serving, self._segmenters, self._scores, self._idle = serving, segmenters, scores, idle

    def __call__(self, request: Mapping[str, object], datastore: Datastore) -> dict[str, object]:
        """Score the images.

        Args:
            request: `device`, if a certain one is required.
            datastore: The images; scores are also stored in their info.

        Returns:
            `version`, the images `scored` now, those `failed` with the reason.
        """
        device = resolve_device(str(request["device"]) if request.get("device") else None)
        version = self._serving(device).version
        known = self._scores.read()
        unlabelled = set(datastore.get_unlabeled_images())
        pending = [image for image in datastore.list_images() if image not in known or known[image].version != version]
        scored, failed = [], {}
        for image in sorted(pending, key=lambda image: (image not in unlabelled, image)):
            self._idle.wait()
            try:
                score = self._score(image, device, datastore)
                remember(datastore, image, {INFO: score.model_dump(mode="json", include={"version", "doubt", "click"})})
            except HTTPException as error:  # it was removed meanwhile
                failed[image] = str(error.detail)
                continue
            except Sam3dError as error:
                failed[image] = str(error)
                continue
            except Exception as error:
                logger.exception("%s cannot be scored", image)
                failed[image] = f"{type(error).__name__}: {error}"
                continue
            self._scores.add(image, score)
            scored.append(image)
            logger.info(f"%s: doubt {score.doubt:.3f} under {version}", image)
        return {"version": version, "scored": scored, "failed": failed}

    def _score(self, image: str, device: str, datastore: Datastore) -> ImageScore:
        path = datastore.get_image_uri(image)
        with between_layers(self._idle.wait):
            return ImageScore.of(score_volume(self._segmenters.open(path, device)))


class ScoredStrategy(Strategy):
    """Chooses among the unlabelled images that have a score, and reports why; at random until there are any.

    Images that were handed out recently are left out as long as there are others.

    Args:
        description: Description for people.
        scores: The file of scores.
    """

    def __init__(self, description: str, scores: ScoreFile) -> None:
        super().__init__(description)
        self._scores = scores

    def __call__(self, request: Mapping[str, object], datastore: Datastore) -> Chosen | None:
        """Return the next image: `id`, and `why` it was chosen; None when all are labelled."""
        unlabelled = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        if not unlabelled:
            return None
        free = [image for image in unlabelled if not is_handed_out(datastore, image)]
        scores = self._scores.read()
        candidates = {image: scores[image] for image in sorted(free or unlabelled) if image in scores}
        if not candidates:
            chosen = random_choice(unlabelled, datastore)
            return {**chosen, "why": "at random: no image is scored yet; scoring runs in the background"}
        labelled = [scores[image] for image in datastore.get_labeled_images() if image in scores]
        image, why = self.choose(candidates, labelled)
        logger.info(f"Next sample: {why}")
        return {"id": image, "why": why}

    def choose(self, candidates: Mapping[str, ImageScore], labelled: list[ImageScore]) -> tuple[str, str]:
        """Return one of the candidates and the reason.

        Args:
            candidates: Scores of unlabelled images.
            labelled: Scores of labelled images.
        """
        raise NotImplementedError


class UncertaintyStrategy(ScoredStrategy):
    """Chooses the image with the highest uncertainty; without any label, the most typical one."""

    def __init__(self, scores: ScoreFile) -> None:
        super().__init__("The image with the highest uncertainty", scores)

    def choose(self, candidates: Mapping[str, ImageScore], labelled: list[ImageScore]) -> tuple[str, str]:
        """Choose the image with the highest uncertainty, or the most typical one while nothing is labelled."""
        if not labelled:
            return most_typical(candidates)
        image = max(candidates, key=lambda image: candidates[image].doubt)
        doubt, version = candidates[image].doubt, candidates[image].version
        return image, f"doubt {doubt:.3f} under version {version}, the highest of {len(candidates)} unlabelled images"


class DiversityStrategy(ScoredStrategy):
    """Chooses the image that is least similar to the labelled ones."""

    def __init__(self, scores: ScoreFile) -> None:
        super().__init__("The image that is least similar to the labelled ones", scores)

    def choose(self, candidates: Mapping[str, ImageScore], labelled: list[ImageScore]) -> tuple[str, str]:
        """Choose the image least similar to any labelled one, or the most typical one while nothing is labelled."""
        if not labelled:
            return most_typical(candidates)
        image, away = farthest_vector(vectors(candidates), [np.array(score.vector, np.float32) for score in labelled])
        return image, f"distance {away:.2f} from the labelled images, the largest of {len(candidates)} unlabelled ones"


def most_typical(candidates: Mapping[str, ImageScore]) -> tuple[str, str]:
    """Return the candidate whose vector is nearest to their mean, and the reason."""
    image, _ = farthest_vector(vectors(candidates), [])
    return image, f"the most typical of {len(candidates)} unlabelled images, to begin with"


def vectors(scores: Mapping[str, ImageScore]) -> dict[str, np.ndarray]:
    """Return the feature vector of each image."""
    return {image: np.array(score.vector, np.float32) for image, score in scores.items()}


def is_handed_out(datastore: Datastore, image: str) -> bool:
    """Return whether an image was handed out recently, by any strategy."""
    return time.time() - handed_out_at(datastore, image) < HANDED_OUT_SECONDS


def handed_out_at(datastore: Datastore, image: str) -> float:
    """Return when an image was last handed out, seconds since 1970; 0 if never."""
    times = [entry.get("ts") for entry in handed_out_by(datastore.get_image_info(image)).values()]
    return max(map(_seconds, times), default=0.0)


def handed_out_by(info: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Return who received an image and when, by strategy; malformed records are ignored."""
    given = info.get(STRATEGY)
    entries = given.items() if isinstance(given, Mapping) else ()
    return {str(name): entry for name, entry in entries if isinstance(entry, Mapping)}


def _seconds(value: object) -> float:
    """Return a stored time; 0 if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value)


def random_choice(images: list[str], datastore: Datastore) -> Chosen:
    """Return one of the images at random: `id` and `weight`, which grows with the time since it was handed out.

    MONAI Label's own strategy fails when all images were handed out within the last second: all weights are 0 then.
    """
    now = time.time()
    weights = [max(1, int(now - handed_out_at(datastore, image))) for image in images]
    place = random.choices(range(len(images)), weights=weights)[0]
    return {"id": images[place], "weight": weights[place]}


class RandomStrategy(Strategy):
    """Chooses an unlabelled image at random, preferably one that was not handed out recently."""

    def __init__(self) -> None:
        super().__init__("Random Strategy")

    def __call__(self, request: Mapping[str, object], datastore: Datastore) -> Chosen | None:
        """Return the next image: `id` and `weight`; None when all are labelled."""
        unlabelled = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        return random_choice(unlabelled, datastore) if unlabelled else None


def make_strategies(scores: ScoreFile, random: str) -> dict[str, Strategy]:
    """Return all strategies by name; `random` names the one that answers requests for `random`."""
    known: dict[str, Strategy] = {
        "random": RandomStrategy(),
        "first": First(),
        "uncertainty": UncertaintyStrategy(scores),
        "diverse": DiversityStrategy(scores),
    }
    return known | {"random": known[random]}
