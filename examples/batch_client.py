"""Sends the clicks of a table to a server and saves the masks: batch work over HTTP, without a viewer.

    python examples/batch_client.py http://127.0.0.1:8000 clicks.csv masks

clicks.csv has the columns image, i, j, k and inside: the id of an image of the server, a voxel of it, and 1 for a click
in the target or 0 for one outside. All clicks of an image are sent as one request. Each mask becomes masks/IMAGE.nii.gz
and a row of masks/summary.csv. Images whose mask exists are left out, so the same command continues an interrupted run.
On a server with a login, SAM3D_API_KEY holds the key. Needs only the packages requests, numpy and nibabel.

Exit status: 0 if each image has a mask, 1 if one was rejected, 2 if the table or the server cannot be used.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import nibabel as nib
import numpy as np
import requests

COLUMNS = ("image", "i", "j", "k", "inside")
SECONDS = 600
"""Longest wait for an answer; a first click on a large volume may take minutes on a CPU."""


@dataclass
class Clicks:
    """The clicks in one image, voxels i, j, k."""

    inside: list[list[int]] = field(default_factory=list)
    outside: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """The outcome of one image, a row of summary.csv."""

    image: str
    millilitres: str = ""
    seconds: str = ""
    error: str = ""


def read_clicks(table: Path) -> dict[str, Clicks]:
    """Return the clicks of each image.

    Raises:
        ValueError: The table lacks a column, or a row is damaged; the message names the line.
    """
    found: dict[str, Clicks] = {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{table} lacks the column {missing[0]}: it needs {', '.join(COLUMNS)}")
        for row in reader:
            try:
                voxel = [int(row[axis]) for axis in "ijk"]
                clicks = found.setdefault(_file_name(row["image"]), Clicks())
                {"1": clicks.inside, "0": clicks.outside}[row["inside"].strip()].append(voxel)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise ValueError(
                    f"{table}, line {reader.line_num}: image is an id without slashes, i, j and k are whole numbers,"
                    " inside is 1 or 0"
                ) from None
    return found


def _file_name(image: str) -> str:
    """Return an id that can name a file; ValueError for any other."""
    if not image or image.startswith(".") or Path(image).name != image:
        raise ValueError(image)
    return image


class Client:
    """Requests to one server.

    Args:
        url: Its address.
        key: API key, for a server with a login.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"

    def check(self) -> None:
        """Raise requests.RequestException unless the server answers and accepts the key."""
        self._session.get(f"{self._url}/info/", timeout=SECONDS).raise_for_status()

    def segment(self, image: str, clicks: Clicks) -> bytes:
        """Return the mask of one image, a gzipped NIfTI.

        Raises:
            requests.RequestException: The server rejects the request; the message has its reason.
        """
        params = {"foreground": clicks.inside, "background": clicks.outside, "result_extension": ".nii.gz"}
        answer = self._session.post(
            f"{self._url}/infer/sam3d",
            params={"image": image, "output": "image"},
            data={"params": json.dumps(params)},
            timeout=SECONDS,
        )
        if not answer.ok:
            raise requests.HTTPError(f"{answer.status_code}: {reason(answer)}", response=answer)
        return answer.content


def reason(answer: requests.Response) -> str:
    """Return the server's reason for an error."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200] or answer.reason


def millilitres(mask: Path) -> float:
    """Return the volume of a mask, mL."""
    nifti = nib.Nifti1Image.from_filename(mask)
    voxels = np.count_nonzero(np.asarray(nifti.dataobj))
    return float(voxels * np.prod(nifti.header.get_zooms()) / 1000)


def save_masks(client: Client, table: Mapping[str, Clicks], out: Path) -> Iterator[Row]:
    """Yield the outcome of each image that has no mask yet, and save its mask."""
    for image, clicks in table.items():
        mask = out / f"{image}.nii.gz"
        if mask.exists():
            continue
        start = time.monotonic()
        part = out / f".{image}.part.nii.gz"
        try:
            part.write_bytes(client.segment(image, clicks))
            volume = millilitres(part)
            part.replace(mask)
        except requests.RequestException as error:
            yield Row(image, error=" ".join(str(error).split()))
        else:
            yield Row(image, f"{volume:.2f}", f"{time.monotonic() - start:.1f}")


def write_summary(out: Path, rows: list[Row]) -> None:
    """Add rows to summary.csv; later rows of an image replace earlier ones."""
    path, known = out / "summary.csv", {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            known = {row["image"]: row for row in csv.DictReader(file)}
    known |= {row.image: asdict(row) for row in rows}
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Row)])
        writer.writeheader()
        writer.writerows(known.values())
    part.replace(path)


def main() -> None:
    """Read the table, send the clicks, and report each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the server")
    parser.add_argument("table", type=Path, help="CSV with image, i, j, k, inside")
    parser.add_argument("out", type=Path, help="folder for the masks")
    arguments = parser.parse_args()
    client = Client(arguments.url, os.environ.get("SAM3D_API_KEY"))
    try:
        table = read_clicks(arguments.table)
        client.check()
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a RequestException is an OSError
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    failed = 0
    for row in save_masks(client, table, arguments.out):
        failed += bool(row.error)
        print(f"{row.image}: {row.error or f'{row.millilitres} mL in {row.seconds} s'}", flush=True)
        write_summary(arguments.out, [row])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
