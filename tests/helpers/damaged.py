"""Damaged and hostile NIfTI, NRRD, MetaImage and DICOM files, and the small good files that they are made from.

`BAD` holds one maker for each kind of damage: `BAD[kind](folder)` writes a file (or a DICOM folder) and returns its
path. A reader must reject each with a `Sam3dError`, at once and with little memory. `mutated` yields random variants
of good files, which a reader must reject or read exactly as stored.
"""

from __future__ import annotations

import bz2
import gzip
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    generate_uid,
)

SHAPE = (7, 6, 5)
AFFINE = np.array([[-1.5, 0, 0, 20], [0, -1.5, 0, 30], [0, 0, 2.0, -10], [0, 0, 0, 1.0]])
SECRET = b"secret-of-the-server " * 100


def array(dtype: Any = np.int16) -> np.ndarray:
    """Voxels (I, J, K) that differ from each other."""
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def nifti(dtype: Any = np.int16, **fields: Any) -> bytes:
    """A NIfTI-1 file, uncompressed, with fields of its header set as given."""
    image = nib.Nifti1Image(array(dtype), AFFINE, dtype=dtype)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    stored = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(stored[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    stored[:348] = header.binaryblock
    return bytes(stored)


def nrrd(
    data: bytes | None = None, *, encoding: str = "raw", extra: str = "", remove: str = "", **fields: str
) -> bytes:
    """An NRRD file; `fields` replace those of the header, `remove` names one to leave out, `extra` is added."""
    header = {
        "type": "int16",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, SHAPE)),
        "space directions": "(1.5,0,0) (0,1.5,0) (0,0,2)",
        "endian": "little",
        "encoding": encoding,
        "space origin": "(-20,-30,-10)",
    } | {name.replace("_", " "): value for name, value in fields.items()}
    header.pop(remove, None)
    lines = "".join(f"{name}: {value}\n" for name, value in header.items())
    raw = array().T.tobytes()
    compress: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "gz": gzip.compress,
        "bzip2": bz2.compress,
        "bz2": bz2.compress,
    }
    stored = compress.get(encoding, bytes)(raw) if data is None else data
    return f"NRRD0005\n{lines}{extra}\n".encode() + stored


def metaimage(data: bytes | None = None, *, compressed: bool = False, **fields: str) -> bytes:
    """A MetaImage file; `fields` replace those of the header."""
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compressed),
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "-20 -30 -10",
        "ElementSpacing": "1.5 1.5 2",
        "DimSize": " ".join(map(str, SHAPE)),
        "ElementType": "MET_SHORT",
    } | {name: value for name, value in fields.items() if name != "ElementDataFile"}
    header["ElementDataFile"] = fields.get("ElementDataFile", "LOCAL")  # the voxels follow this line
    raw = array().T.tobytes()
    stored = (zlib.compress(raw) if compressed else raw) if data is None else data
    return "".join(f"{name} = {value}\n" for name, value in header.items() if value).encode() + stored


def dicom_series(folder: Path, slices: int = 4, **attributes: Any) -> Path:
    """A DICOM series; `attributes` are set on every instance, or removed where they are None."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    for k in range(slices):
        _instance(k, series, study, attributes).save_as(folder / f"{k:03}.dcm", write_like_original=False)
    return folder


def _instance(k: int, series: str, study: str, attributes: dict[str, Any]) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = attributes.get("syntax", ExplicitVRLittleEndian)
    one = Dataset()
    one.file_meta = meta
    one.is_little_endian, one.is_implicit_VR = True, False
    one.SOPClassUID, one.SOPInstanceUID, one.Modality = CTImageStorage, meta.MediaStorageSOPInstanceUID, "CT"
    one.SeriesInstanceUID, one.StudyInstanceUID, one.InstanceNumber = series, study, k + 1
    one.Rows, one.Columns = 6, 7
    one.PixelSpacing, one.ImagePositionPatient = [0.8, 0.9], [-10, -20, 2.5 * k]
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    one.PixelData = (np.arange(42, dtype="<i2") + 100 * k).tobytes()
    for name, value in attributes.items():
        if name == "syntax":
            continue
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    return one


def _file(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def _next_to_secret(name: str, content: Callable[[str], bytes]) -> Callable[[Path], Path]:
    """A file whose header may refer to another file of the server, whose path it gets."""

    def make(folder: Path) -> Path:
        (folder / "secret.raw").write_bytes(SECRET)
        (folder / name).write_bytes(content(str(folder / "secret.raw")))
        return folder / name

    return make


def _series(**attributes: Any) -> Callable[[Path], Path]:
    return lambda folder: dicom_series(folder / "series", **attributes)


def _cut_series(folder: Path) -> Path:
    series = dicom_series(folder / "series")
    file = series / "002.dcm"
    file.write_bytes(file.read_bytes()[:-30])
    return series


def _deflated_series(folder: Path) -> Path:
    """Instances of a few kB whose data set inflates to 64 MiB."""
    series = dicom_series(folder / "series", syntax=DeflatedExplicitVRLittleEndian)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflater.compress(bytes(2**26)) + deflater.flush()
    for file in series.iterdir():
        stored = file.read_bytes()
        length = struct.unpack("<I", stored[140:144])[0]
        file.write_bytes(stored[: 144 + length] + bomb)
    return series


def _dicomdir(folder: Path) -> Path:
    """A folder with nothing but a DICOMDIR, which refers to files elsewhere."""
    (folder / "series").mkdir()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MediaStorageDirectoryStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index = Dataset()
    index.file_meta, index.is_little_endian, index.is_implicit_VR = meta, True, False
    record = Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["..", "secret.dcm"]
    index.DirectoryRecordSequence = [record]
    index.save_as(folder / "series" / "DICOMDIR", write_like_original=False)
    return folder / "series"


def _nifti_claim(shape: tuple[int, ...]) -> bytes:
    dim = [len(shape), *shape, *[1] * (7 - len(shape))]
    return nifti(dim=dim)[:352]


LONG = (300, 700, 1100, 5000, 200_000)
"""Characters of values that are longer than the buffers of programs."""

_NRRD_LONG = {
    "kinds": "domain domain {}",
    "labels": '"a" "b" "{}"',
    "units": '"mm" "mm" "{}"',
    "space units": '"mm" "mm" "{}"',
    "space origin": "(0,0,{})",
    "space directions": "(1,0,0) (0,1,0) (0,0,{})",
    "thicknesses": "1 1 {}",
    "axis mins": "0 0 {}",
    "axis maxs": "0 0 {}",
    "centers": "cell cell {}",
    "measurement frame": "(1,0,0) (0,1,0) (0,0,{})",
    **dict.fromkeys(("old min", "old max", "space dimension", "space", "content", "sample units", "number"), "{}"),
    **dict.fromkeys(("min", "max", "block size", "type", "dimension", "endian", "encoding", "x{}"), "{}"),
}
_METAIMAGE_LONG = (
    "Name",
    "Comment",
    "ID",
    "Color",
    "ObjectSubType",
    "AnatomicalOrientation",
    "DistanceUnits",
    "TransformMatrix",
    "Offset",
    "ElementSpacing",
    "CenterOfRotation",
    "Modality",
    "ElementMin",
    "ElementType",
    "BinaryData",
    "CompressedDataSize",
    "SequenceID",
    "x{}",
)


def long_values() -> Iterator[tuple[str, str, bytes]]:
    """Files with one very long value in their header: what is long, the file's name, its content."""
    for length in LONG:
        for filler in ("1", "m", "1 ", "1,"):
            text = (filler * length)[:length]
            fields: dict[str, Any]
            for name, value in _NRRD_LONG.items():
                fields = {name.format(text).replace(" ", "_"): value.format(text)}
                yield f"{name} {filler * 2} {length}", "a.nrrd", nrrd(**fields)
            bare = nrrd(remove="space directions", extra=f"spacings: 1 1 {text}\n")
            bare = bare.replace(b"space: left-posterior-superior\n", b"").replace(b"space origin: (-20,-30,-10)\n", b"")
            yield f"spacings {filler} {length}", "a.nrrd", bare
            yield f"key-value {filler} {length}", "a.nrrd", nrrd(extra=f"key:={text}\n{text}:=value\n")
            yield f"comment {filler} {length}", "a.nrrd", nrrd(extra=f"# {text}\n")
            for name in _METAIMAGE_LONG:
                fields = {name.format(text): text}
                yield f"{name} {filler} {length}", "a.mha", metaimage(**fields)


GOOD: dict[str, Callable[[Path], Path]] = {
    "nifti": _file("a.nii", nifti),
    "nifti gzip": _file("a.nii.gz", lambda: gzip.compress(nifti(), mtime=0)),
    "nrrd raw": _file("a.nrrd", nrrd),
    "nrrd gzip": _file("a.nrrd", lambda: nrrd(encoding="gzip")),
    "nrrd bzip2": _file("a.nrrd", lambda: nrrd(encoding="bzip2")),
    "metaimage": _file("a.mha", metaimage),
    "metaimage zlib": _file("a.mha", lambda: metaimage(compressed=True)),
}
"""Makers of good files, each with the voxels of `array()` on the grid of `AFFINE`."""

BAD: dict[str, Callable[[Path], Path]] = {
    "empty": _file("a.nii.gz", lambda: b""),
    "text": _file("a.nrrd", lambda: b"not an image"),
    "gzip of nothing": _file("a.nii.gz", lambda: gzip.compress(b"")),
    "gzip of text": _file("a.nii.gz", lambda: gzip.compress(b"not an image" * 100)),
    "half a gzip header": _file("a.nii.gz", lambda: b"\x1f\x8b\x08\x04\0\0\0\0\0\3\xff\xff"),
    "nifti called nrrd": _file("a.nrrd", nifti),
    "nrrd called nifti": _file("a.nii", nrrd),
    "gzip called nii": _file("a.nii", lambda: gzip.compress(nifti())),
    "nii called gzip": _file("a.nii.gz", nifti),
    "nifti header cut": _file("a.nii", lambda: nifti()[:300]),
    "nifti cut": _file("a.nii", lambda: nifti()[:-1]),
    "nifti with bytes after it": _file("a.nii", lambda: nifti() + b"\0"),
    "nifti gzip cut in its checksum": _file("a.nii.gz", lambda: gzip.compress(nifti())[:-3]),
    "nifti gzip without checksum": _file("a.nii.gz", lambda: gzip.compress(nifti())[:-8]),
    "nifti gzip with bytes after it": _file("a.nii.gz", lambda: gzip.compress(nifti()) + b"garbage"),
    "nifti gzip with zeros after it": _file("a.nii.gz", lambda: gzip.compress(nifti()) + bytes(8)),
    "nifti gzip with a second member": _file("a.nii.gz", lambda: gzip.compress(nifti()) + gzip.compress(b"more")),
    "nifti gzip with more voxels": _file("a.nii.gz", lambda: gzip.compress(nifti() + bytes(8))),
    "nifti gzip with fewer voxels": _file("a.nii.gz", lambda: gzip.compress(nifti()[:-8])),
    "nifti gzip with a wrong checksum": _file("a.nii.gz", lambda: gzip.compress(nifti())[:-8] + bytes(8)),
    "nifti claims 2000 x 2000 x 500": _file("a.nii.gz", lambda: gzip.compress(_nifti_claim((2000, 2000, 500)))),
    "nifti claims 32767 cubed": _file("a.nii.gz", lambda: gzip.compress(_nifti_claim((32767, 32767, 32767)))),
    "nifti claims 32767 cubed, raw": _file("a.nii", lambda: _nifti_claim((32767, 32767, 32767))),
    "nifti claims 700 cubed": _file("a.nii.gz", lambda: gzip.compress(_nifti_claim((700, 700, 700)))),
    "nifti 4D": _file("a.nii", lambda: nifti(dim=[4, 7, 3, 5, 2, 1, 1, 1])),
    "nifti 5D": _file("a.nii", lambda: nifti(dim=[5, 7, 6, 5, 1, 3, 1, 1])),
    "nifti 2D": _file("a.nii", lambda: nifti(dim=[2, 7, 30, 1, 1, 1, 1, 1])),
    "nifti 0D": _file("a.nii", lambda: nifti(dim=[0, 7, 6, 5, 1, 1, 1, 1])),
    "nifti negative": _file("a.nii", lambda: nifti(dim=[3, -7, 6, 5, 1, 1, 1, 1])),
    "nifti zero": _file("a.nii", lambda: nifti(dim=[3, 7, 0, 5, 1, 1, 1, 1])),
    "nifti pair": _file("a.nii", lambda: nifti(magic=b"ni1")),
    "analyze": _file("a.nii", lambda: nifti(magic=b"")),
    "nifti of another magic": _file("a.nii", lambda: nifti(magic=b"n+9")),
    "nifti offset before the header's end": _file("a.nii", lambda: nifti(vox_offset=100)),
    "nifti offset NaN": _file("a.nii", lambda: nifti(vox_offset=np.nan)),
    "nifti offset far away": _file("a.nii.gz", lambda: gzip.compress(nifti(vox_offset=2e9))),
    "nifti complex": _file("a.nii", lambda: nifti(datatype=32, bitpix=64)),
    "nifti float128": _file("a.nii", lambda: nifti(datatype=1536, bitpix=128)),
    "nifti RGB": _file("a.nii", lambda: nifti(datatype=128, bitpix=24)),
    "nifti bits": _file("a.nii", lambda: nifti(datatype=1, bitpix=1)),
    "nifti unknown type": _file("a.nii", lambda: nifti(datatype=777)),
    "nifti contradictory bits": _file("a.nii", lambda: nifti(bitpix=32)),
    "nifti scl_inter NaN": _file("a.nii", lambda: nifti(scl_slope=2, scl_inter=np.nan)),
    "nifti voxels of 0 mm": _file("a.nii", lambda: nifti(pixdim=[1, 0, 1, 1, 0, 0, 0, 0])),
    "nifti voxels of -1 mm": _file("a.nii", lambda: nifti(pixdim=[1, -1, 1, 1, 0, 0, 0, 0])),
    "nifti voxels of NaN mm": _file("a.nii", lambda: nifti(pixdim=[1, np.nan, 1, 1, 0, 0, 0, 0])),
    "nifti two voxel sizes": _file("a.nii", lambda: nifti(pixdim=[1, 3, 3, 3, 0, 0, 0, 0])),
    "nifti sform NaN": _file("a.nii", lambda: nifti(srow_x=[np.nan] * 4)),
    "nifti no sform in use": _file("a.nii", lambda: nifti(srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4)),
    "nifti unit unknown": _file("a.nii", lambda: nifti(xyzt_units=5)),
    "nifti NaN": _file("a.nii", lambda: nifti(np.float32)[:-4] + struct.pack("<f", np.nan)),
    "nifti infinity": _file("a.nii", lambda: nifti(np.float32)[:-4] + struct.pack("<f", np.inf)),
    "nifti beyond float32": _file("a.nii", lambda: nifti(np.float64)[:-8] + struct.pack("<d", 1e300)),
    "nrrd data file": _next_to_secret("a.nrrd", lambda path: nrrd(b"", data_file=path)),
    "nrrd datafile": _next_to_secret("a.nrrd", lambda path: nrrd(b"", datafile=path)),
    "nrrd Data File": _next_to_secret("a.nrrd", lambda path: nrrd(b"", extra=f"Data  File :  {path}\n")),
    "nrrd DATA FILE after voxels of its own": _next_to_secret(
        "a.nrrd", lambda path: nrrd(extra=f"DATA FILE: {path}\n")
    ),
    "nrrd list of files": _next_to_secret("a.nrrd", lambda path: nrrd(b"", extra=f"data file: LIST\n{path}\n")),
    "nrrd numbered files": _next_to_secret("a.nrrd", lambda path: nrrd(b"", extra=f"data file: {path}%d 1 5 1\n")),
    "nrrd link behind a carriage return": _next_to_secret(
        "a.nrrd", lambda path: nrrd(b"", extra=f"# comment\rdata file: {path}\n")
    ),
    "nrrd without an empty line": _next_to_secret("a.nrrd", lambda path: nrrd(b"", data_file=path).rstrip()),
    "nhdr": _next_to_secret("a.nhdr", lambda path: nrrd(b"", data_file=path)),
    "nrrd cut": _file("a.nrrd", lambda: nrrd()[:-2]),
    "nrrd with bytes after it": _file("a.nrrd", lambda: nrrd() + b"x"),
    "nrrd gzip cut": _file("a.nrrd", lambda: nrrd(encoding="gzip")[:-5]),
    "nrrd gzip with bytes after it": _file("a.nrrd", lambda: nrrd(encoding="gzip") + b"x"),
    "nrrd bzip2 cut": _file("a.nrrd", lambda: nrrd(encoding="bzip2")[:-5]),
    "nrrd bzip2 with bytes after it": _file("a.nrrd", lambda: nrrd(encoding="bzip2") + b"x"),
    "nrrd bzip2 bomb": _file("a.nrrd", lambda: nrrd(bz2.compress(bytes(2**26)), encoding="bzip2")),
    "nrrd gzip bomb": _file("a.nrrd", lambda: nrrd(gzip.compress(bytes(2**26)), encoding="gzip")),
    "nrrd claims 32767 cubed": _file("a.nrrd", lambda: nrrd(sizes="32767 32767 32767")),
    "nrrd claims 10^30 voxels": _file("a.nrrd", lambda: nrrd(sizes="10000000000 10000000000 10000000000")),
    "nrrd negative": _file("a.nrrd", lambda: nrrd(sizes="7 -6 5")),
    "nrrd two sizes": _file("a.nrrd", lambda: nrrd(sizes="7 30")),
    "nrrd 4D": _file("a.nrrd", lambda: nrrd(dimension="4", sizes="1 7 6 5")),
    "nrrd text": _file("a.nrrd", lambda: nrrd(b" 1" * 210, encoding="ascii")),
    "nrrd hex": _file("a.nrrd", lambda: nrrd(b"00" * 420, encoding="hex")),
    "nrrd unknown encoding": _file("a.nrrd", lambda: nrrd(b"", encoding="zip")),
    "nrrd unknown type": _file("a.nrrd", lambda: nrrd(type="quaternion")),
    "nrrd block": _file("a.nrrd", lambda: nrrd(type="block")),
    "nrrd no endian": _file("a.nrrd", lambda: nrrd(remove="endian")),
    "nrrd byte skip": _file("a.nrrd", lambda: nrrd(extra="byte skip: -1\n")),
    "nrrd line skip": _file("a.nrrd", lambda: nrrd(extra="line skip: 1\n")),
    "nrrd no voxel size": _file("a.nrrd", lambda: nrrd(remove="space directions")),
    "nrrd voxels of 0 mm": _file("a.nrrd", lambda: nrrd(space_directions="(0,0,0) (0,1,0) (0,0,1)")),
    "nrrd voxels of NaN mm": _file("a.nrrd", lambda: nrrd(space_directions="(nan,nan,nan) (0,1,0) (0,0,1)")),
    "nrrd in micrometres": _file("a.nrrd", lambda: nrrd(extra='space units: "um" "um" "um"\n')),
    "nrrd unknown field": _file("a.nrrd", lambda: nrrd(extra="space orign: (0,0,0)\n")),
    "nrrd infinite origin": _file("a.nrrd", lambda: nrrd(space_origin="(0,0,1e999)")),
    "nrrd sizes twice": _file("a.nrrd", lambda: nrrd(extra="sizes: 7 6 5\n")),
    "metaimage data file": _next_to_secret("a.mha", lambda path: metaimage(b"", ElementDataFile=path)),
    "metaimage list of files": _next_to_secret(
        "a.mha", lambda path: metaimage(f"{path}\n".encode(), ElementDataFile="LIST")
    ),
    "mhd": _next_to_secret("a.mhd", lambda path: metaimage(b"", ElementDataFile=path)),
    "metaimage cut": _file("a.mha", lambda: metaimage()[:-1]),
    "metaimage with bytes after it": _file("a.mha", lambda: metaimage() + b"x"),
    "metaimage zlib cut": _file("a.mha", lambda: metaimage(compressed=True)[:-2]),
    "metaimage zlib bomb": _file("a.mha", lambda: metaimage(zlib.compress(bytes(2**26)), compressed=True)),
    "metaimage no voxel size": _file("a.mha", lambda: metaimage(ElementSpacing="")),
    "metaimage voxels of 0 mm": _file("a.mha", lambda: metaimage(ElementSpacing="0 1 1")),
    "metaimage voxels of -1 mm": _file("a.mha", lambda: metaimage(ElementSpacing="-1 1 1")),
    "metaimage text": _file("a.mha", lambda: metaimage(BinaryData="False")),
    "metaimage claims 32767 cubed": _file("a.mha", lambda: metaimage(DimSize="32767 32767 32767")),
    "metaimage header skipped": _file("a.mha", lambda: metaimage(HeaderSize="-1")),
    "metaimage in micrometres": _file("a.mha", lambda: metaimage(DistanceUnits="um")),
    "metaimage in centimetres": _file("a.mha", lambda: metaimage(DistanceUnits="cm")),
    "metaimage two numbers of three": _file("a.mha", lambda: metaimage(Offset="1 2")),
    "metaimage components": _file("a.mha", lambda: metaimage(ElementNumberOfChannels="3")),
    "picture": _file("a.png", lambda: b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "dicom empty folder": lambda folder: dicom_series(folder / "series", slices=0),
    "dicom one slice": lambda folder: dicom_series(folder / "series", slices=1),
    "dicom cut": _cut_series,
    "dicom deflated bomb": _deflated_series,
    "dicomdir": _dicomdir,
    "dicom claims frames": _series(NumberOfFrames=2**31 - 1),
    "dicom claims rows": _series(Rows=65535, Columns=65535),
    "dicom zero rows": _series(Rows=0),
    "dicom colour": _series(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    "dicom 12 bits packed": _series(BitsAllocated=12),
    "dicom no pixels": _series(PixelData=None),
    "dicom no spacing": _series(PixelSpacing=None),
    "dicom zero spacing": _series(PixelSpacing=[0, 0.8]),
    "dicom no position": _series(ImagePositionPatient=None),
    "dicom one position": _series(ImagePositionPatient=[0, 0, 0]),
    "dicom no orientation": _series(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]),
    "dicom slope 0": _series(RescaleSlope=0),
    "dicom too few pixels": _series(PixelData=bytes(40)),
    "dicom too many pixels": _series(PixelData=bytes(86)),
    "dicom unknown transfer syntax": _series(syntax="1.2.3.4"),
}
"""Makers of files that a reader must reject, by what is wrong with them."""


def mutated(data: bytes, rng: random.Random, start: int = 0) -> bytes:
    """A variant of a file: bits flipped, bytes replaced, removed, repeated or added, from byte `start` on."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(start, max(start + 1, len(changed)))
        kind = rng.randrange(6)
        if kind <= 1 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            changed[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"9999"))
        elif kind == 3:
            del changed[at : at + rng.choice((1, 2, 16))]
        elif kind == 4:
            changed[at:at] = changed[at : at + 8]
        else:
            del changed[at:]
    return bytes(changed)


def corpus(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write all of `GOOD` and `BAD`, each to a folder of its own: what is special about it, and its path."""
    for number, (kind, make) in enumerate((*GOOD.items(), *BAD.items())):
        place = folder / f"{number:03}"
        place.mkdir(parents=True)
        yield kind, make(place)
