"""What MONAI Label's Slicer module (plugins/slicer/MONAILabel/MONAILabel.py) does at each button, without Slicer.

The requests are its own, word for word, through the client library that it uses. What it draws of the answers is
reduced to arrays: a mask is put into segments by its values' places in a list of names, as
`ImportLabelmapToSegmentationNode` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monailabel.client.client import MONAILabelClient

Point = Sequence[float]
NOT_SAVED = ("background", "foreground_scribbles", "background_scribbles")


class Slicer:
    """One Slicer with a volume open.

    Args:
        url: Of the server.
        folder: Its temporary folder.
        client_id: `Client/User-ID` of the settings.
    """

    def __init__(self, url: str, folder: Path, client_id: str = "user-xyz") -> None:
        self.client = MONAILabelClient(url, tmpdir=str(folder), client_id=client_id)
        self.folder = folder
        self.info = self.client.info()
        self.sample: dict[str, Any] = {}
        self.segments: dict[str, np.ndarray | None] = {}
        self.reset_label_state = False

    def open(self, sample: Mapping[str, Any], volume: Path) -> None:
        """`initSample`: a volume is in the scene, with an empty segment for each of the server's labels."""
        self.sample, self.file, self.volume = dict(sample), volume, sitk.ReadImage(str(volume))
        self.segments = dict.fromkeys(self.info["labels"])

    def open_local(self, name: str, volume: Path) -> None:
        """A volume that the user loaded becomes the selected one."""
        self.open({"id": name, "session": True}, volume)

    def options(self, section: str, name: str) -> dict[str, Any]:
        """`getParamsFromConfig`, after the table of options was shown and read back (`invalidateConfigTable`)."""
        config = self.info[section][name].get("config", {})
        return {key: _read_back(value) for key, value in config.items()}

    def voxel(self, ras: Point) -> list[int]:
        """`getControlPointXYZ`: where a point in the world lies, which may be outside."""
        return [round(float(x)) for x in self._ijk(ras)]

    def roi(self, centre: Point, size: Point) -> list[int]:
        """`getROIPointsXYZ`: the corners of a box in the world, in whatever order the axes of the volume give them."""
        half = np.array(size) / 2
        low, high = (self.voxel(corner) for corner in (np.array(centre) - half, np.array(centre) + half))
        return [index for pair in zip(low, high, strict=True) for index in pair]

    def select(self, segment: str) -> None:
        """`onSelectLabel`."""
        self.segments.setdefault(segment, None)
        self.selected, self.reset_label_state = segment, True

    def smart_edit(
        self, inside: Sequence[Point], outside: Sequence[Point] = (), roi: tuple[Point, Point] | None = None
    ) -> dict[str, Any]:
        """`onClickDeepgrow`: all points of the selected segment, in RAS mm; the JSON part of the answer."""
        params: dict[str, Any] = {
            "label": self.selected,
            "foreground": [self.voxel(point) for point in inside],
            "background": [self.voxel(point) for point in outside],
        }
        params.update(self.options("models", "sam3d"))
        if roi:
            params["roi"] = self.roi(*roi)
        if not params.get("reset_state") and self.reset_label_state:
            params["reset_state"], self.reset_label_state = True, False
        file, answer = self._infer("sam3d", params)
        self._import(file, [self.selected])
        return answer

    def auto_segmentation(self, model: str = "sam3d_auto") -> dict[str, Any]:
        """`onClickSegmentation`."""
        file, answer = self._infer(model, self.options("models", model))
        named = answer.get("label_names") or self.info["models"][model]["labels"]
        if isinstance(named, dict):
            named = [name for name, _ in sorted(named.items(), key=lambda item: item[1])]
        self._import(file, named)
        return answer

    def next_sample(self, strategy: str, download: Any) -> Path | None:
        """`onNextSampleButton`: file of the next volume, with what a batch found on it in the segments.

        Args:
            strategy: Selected in the options.
            download: Gets the bytes of an image, given its id.
        """
        sample = self.client.next_sample(strategy, self.options("strategies", strategy))
        if not sample.get("id"):
            return None
        name = sample.get("name", sample["id"])
        if sample.get("path") and Path(sample["path"]).exists():
            volume = Path(sample["path"])
        else:
            volume = self.folder / name
            volume.write_bytes(download(sample["id"]))
        self.open(sample, volume)
        labels = self.client.datastore()["objects"][sample["id"]]["labels"]
        if "original" in labels:
            names = labels["original"]["info"].get("params", {}).get("label_names", {})
            file = self.client.download_label(sample["id"], "original")
            self._import(file, list(names) or self.client.info()["labels"])
        return volume

    def submit_label(self) -> Any:
        """`onSaveLabel`: a volume of a session is uploaded first; `idx` also counts what the label map leaves out."""
        if self.sample.get("session"):
            self.upload()
        label = np.zeros(self.volume.GetSize()[::-1], np.uint8)
        listed: list[dict[str, Any]] = []
        for place, (name, mask) in enumerate(self.segments.items(), start=1):
            if name in NOT_SAVED:
                continue
            listed.append({"name": name, "idx": place})
            if mask is not None:
                label[mask] = len(listed)
        image = sitk.GetImageFromArray(label)
        image.CopyInformation(self.volume)
        file = self._write(image, "label")
        return self.client.save_label(self.sample["id"], file, params={"label_info": listed})

    def upload(self) -> None:
        """`onUploadImage`: the selected volume goes into the datastore under its name in the scene."""
        self.client.upload_image(self._write(self.volume, "volume"), self.sample["id"])
        self.sample["session"] = False

    def train(self, **changed: Any) -> Any:
        """`onTraining`, with what the user changed in the table of options."""
        return self.client.train_start("sam3d", {**self.options("trainers", "sam3d"), **changed})

    def auto_update(self, **changed: Any) -> Any:
        """What follows a submitted label with `Auto-Update Model` on: a running training is stopped for a new one."""
        if self.client.train_status(check_if_running=True):
            self.client.train_stop()
        return self.train(**changed)

    def progress(self) -> tuple[float, float]:
        """`monitorTraining`: per cent of the epochs, and of the accuracy bar."""
        self.info = self.client.info()
        stats = next(iter(self.info["train_stats"].values()))
        current = 0 if stats.get("total_time") else stats.get("epoch", 1)
        return max(1, 100 * current / stats.get("total_epochs", 1)), 100 * stats.get("best_metric", 0)

    def _infer(self, model: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        params |= {"result_extension": ".nrrd", "result_dtype": "uint8"}
        file, answer = self.client.infer(model, self.sample["id"], params, session_id=self._session())
        return str(file), dict(answer)

    def _session(self) -> str | None:
        """`getSessionId`: a local volume is sent when it is asked about for the first time."""
        if not self.sample.get("session"):
            return None
        known = self.sample.get("session_id")
        if not known or not self.client.get_session(known):
            self.sample["session_id"] = self.client.create_session(self._write(self.volume, "volume"))["session_id"]
        return str(self.sample["session_id"])

    def _import(self, file: str, names: Sequence[str]) -> None:
        """`updateSegmentationMask`: the n-th name gets the voxels of the value n, and loses those that it had."""
        answer = sitk.ReadImage(file)
        for ours, theirs in (
            (answer.GetOrigin(), self.volume.GetOrigin()),
            (answer.GetSpacing(), self.volume.GetSpacing()),
            (answer.GetDirection(), self.volume.GetDirection()),
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        values = sitk.GetArrayFromImage(answer)
        assert answer.GetSize() == self.volume.GetSize()
        named = [name for name in names if name != "background"]
        assert values.max() <= len(named), "Slicer would draw a segment without a name"
        self.segments |= {name: values == value for value, name in enumerate(named, start=1)}

    def _write(self, image: sitk.Image, name: str) -> str:
        file = self.folder / f"{name}-{len(list(self.folder.iterdir()))}.nii.gz"
        sitk.WriteImage(image, str(file))
        return str(file)

    def _ijk(self, ras: Point) -> np.ndarray:
        return np.array(self.volume.TransformPhysicalPointToContinuousIndex([-ras[0], -ras[1], ras[2]]))


def world(volume: Path, ijk: Sequence[float]) -> np.ndarray:
    """Where a voxel lies, RAS mm."""
    return (nib.Nifti1Image.from_filename(volume).affine @ [*ijk, 1])[:3]


def _read_back(value: Any) -> Any:
    """What the table of options makes of a value that nobody changed: the first of a list, text turned to numbers."""
    if isinstance(value, list):
        return value[0]
    if isinstance(value, bool):
        return value
    text = str(value) if value else ""
    if isinstance(value, int):
        return int(text) if text else 0
    return (float(text) if text else 0.0) if isinstance(value, float) else text
