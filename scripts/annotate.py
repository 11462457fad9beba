"""A simulated annotator at a running server: clicks on the errors of the mask, and saves the reference label.

For each file of LABELS, named after the id of its image, it sends up to --clicks requests, each with all clicks so far
as the viewers do, and then saves the file as the image's label. It replaces an annotator where labels exist: to try the
whole workflow on public data, or to upload existing labels to a DICOMweb server.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from sam3d_label.errors import VolumeError
from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.image.volume import Volume, save_mask
from sam3d_label.masks import dice
from sam3d_label.segmentation.prompts import Click
from sam3d_label.studies.folder import image_id

PLACE = ANNOTATORS["error_centre"]


class Annotator:
    """A simulated annotator who knows the true mask.

    Args:
        http: Client of the server.
        name: Which of the server's labels to draw.
        value: Value of the target in the label files; None for any but 0.
    """

    def __init__(self, http: Any, name: str, value: int | None = None) -> None:
        self._http, self._name, self._value = http, name, value

    def annotate(self, file: Path, clicks: int) -> list[float]:
        """Click on one image and save its label; Dice after each click.

        Args:
            file: Its label, named after its id.
            clicks: How many to place at most.
        """
        image, label = image_id(file), Volume.open(file)
        stored = np.asarray(label.array)
        truth = stored > 0 if self._value is None else stored == self._value
        mask = np.zeros(truth.shape, bool)
        given: list[Click] = []
        dices: list[float] = []
        for _ in range(clicks):
            click = PLACE(truth, mask, given, np.random.default_rng(0), label.spacing.tolist())
            if click is None:
                break
            given.append(click)
            mask = self._segmented(image, given)
            dices.append(dice(mask, truth))
        self._save(image, truth, label)
        return dices

    def _segmented(self, image: str | None, clicks: Sequence[Click]) -> np.ndarray:
        sides = {"foreground": True, "background": False}
        params: dict[str, Any] = {
            side: [click.ijk for click in clicks if click.positive == sign] for side, sign in sides.items()
        }
        params |= {"label": self._name, "result_extension": ".nii.gz"}
        query = {"image": image, "output": "image"}
        answer = _accepted(self._http.post("/infer/sam3d", params=query, data={"params": json.dumps(params)}))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "mask.nii.gz")
            file.write_bytes(answer.content)
            return np.asarray(Volume.open(file).array) > 0

    def _save(self, image: str | None, truth: np.ndarray, label: Volume) -> None:
        params = {"label_info": [{"name": self._name, "idx": 1}]}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "label.nii.gz")
            save_mask(file, truth.astype(np.uint8), label)
            _accepted(
                self._http.put(
                    "/datastore/label",
                    params={"image": image, "tag": "final"},
                    data={"params": json.dumps(params)},
                    files={"label": (file.name, file.read_bytes())},
                )
            )


def _accepted(answer: Any) -> Any:
    if answer.status_code != 200:
        raise VolumeError(f"the server refused: {answer.text}")
    return answer


def main() -> None:
    """Annotate the files of a folder, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", metavar="URL", help="the server, such as http://127.0.0.1:8000")
    parser.add_argument("labels", metavar="LABELS", type=Path, help="folder of labels, each named after its image's id")
    parser.add_argument("--clicks", type=int, default=5, help="most clicks on an image (5)")
    parser.add_argument("--cases", type=int, metavar="N", help="only the first N files")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="without the first N files")
    parser.add_argument("--name", default="tumor", help="which of the server's labels it is (tumor)")
    parser.add_argument("--value", type=int, help="value of the target in the files (any but 0)")
    given = parser.parse_args()
    files = [file for file in sorted(given.labels.iterdir()) if image_id(file)] if given.labels.is_dir() else []
    if not files:
        sys.exit(f"error: {given.labels} is no folder with labels")
    with httpx.Client(base_url=given.url, timeout=300) as http:
        annotator = Annotator(http, given.name, given.value)
        for file in files[given.skip :][: given.cases]:
            try:
                dices = annotator.annotate(file, given.clicks)
            except (VolumeError, httpx.TransportError) as error:
                sys.exit(f"error: {file.name}: {error}")
            print(f"{file.name}: Dice", *(f"{value:.2f}" for value in dices), flush=True)


if __name__ == "__main__":
    main()
