"""Parse a client's JSON into prompts and the requested form of the response.

OHIF and Slicer speak three dialects, all in voxels [i, j, k] of the stored image:

* deepgrow: `foreground` and `background`, lists of clicks inside and outside;
* vista3d: `points`, `point_labels` (1 inside, 0 outside, -1 padding) and `label_prompt`, the label's number;
* deepedit: one list of clicks under each label's name.

The first dialect that holds a click inside is the one that counts, in this order: OHIF keeps and resends keys
of earlier requests. `background` counts in all of them. Slicer adds `roi`, six unsorted numbers i0, i1, j0,
j1, k0, k1. `result` chooses the response: `mask`; `uncertainty`, a map of the uncertainty of the mask; or
`candidates`, several masks that the prompts may mean. `chosen_candidate` names one of these as the mask to correct; its
`version` is the `model_version` of the answer with the candidates.
Everything else that the viewers send (`IGNORED_KEYS`) changes nothing: a mask is a function of the volume, the
weights and the prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sam3d_label.errors import PromptError
from sam3d_label.segmentation.prompts import Box, ChosenCandidate, Click, Prompts
from sam3d_label.studies.click_log import ResultKind

Voxel = tuple[int, int, int]
Extension = Literal[".nrrd", ".nii.gz", ".nii"]
Dtype = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]

SHOWN = 100
"""Characters of an unknown key that a message repeats."""

NO_CLICKS = (
    'No clicks: send "foreground": [[i, j, k], ...] in voxels of the stored image. The model sam3d works from'
    " clicks; for batch inference and automatic runs, which have none to give, there is sam3d_auto"
)

NO_POINT = "Place a point inside the lesion first."
"""The same for a person at a viewer, whose request has an empty list of clicks."""


@dataclass(frozen=True)
class OutputForm:
    """The form of the response that the client requests.

    Attributes:
        label: Name of the structure in the mask.
        extension: Suffix of the file; None leaves the choice to the server.
        dtype: numpy type of the file's voxels.
        compress: Whether an NRRD is written with gzip.
        device: Name of the device from the client (`cpu`, `cuda:0`, a GPU's marketing name) or None.
        value: Value of the target in the mask.
        result: Content of the file.
        crop: Whether the file holds only the box of the voxels that are not 0.
    """

    label: str
    extension: Extension | None
    dtype: Dtype
    compress: bool
    device: str | None
    value: int = 1
    result: ResultKind = "mask"
    crop: bool = False


def parse(request: Mapping[str, object], *, labels: Sequence[str]) -> tuple[Prompts, OutputForm]:
    """Read the `params` of an inference request.

    Args:
        request: The JSON object, with whatever keys the server has added.
        labels: Names that the app offers; the first is the default.

    Returns:
        The prompts, in voxels of the stored image but not yet compared with its size; the form of the answer.

    Raises:
        PromptError: A value has the wrong shape, or there is nothing to segment from.
    """
    fields = _validate(_Fields, request)
    named = _named_label(fields, labels)
    if fields.foreground and set(fields.foreground) == set(fields.background):
        raise PromptError(
            "foreground and background hold the same clicks. In OHIF this happens when Run is pressed while"
            " the background row is selected: select the label's row, then press Run"
        )
    if fields.result != "mask" and saves_label(request):
        raise PromptError(f"result: {fields.result} cannot be saved: request a mask, or leave out save_label")
    _require_whole_label(fields, request)
    inside, outside, named = _clicks(fields, request, labels, named)
    if not (inside or outside or fields.roi):
        raise PromptError(NO_POINT if any(request.get(key) == [] for key in CLICK_KEYS) else NO_CLICKS)
    chosen = fields.chosen_candidate
    prompts = _prompts(inside, outside, fields.roi, chosen.parsed() if chosen else None)
    return prompts, _output(fields, named or labels[0])


def _prompts(
    inside: Iterable[Voxel], outside: Iterable[Voxel], roi: Sequence[int], chosen: ChosenCandidate | None = None
) -> Prompts:
    clicks = [Click(ijk) for ijk in dict.fromkeys(inside)]
    clicks += [Click(ijk, positive=False) for ijk in dict.fromkeys(outside)]
    return Prompts(tuple(clicks), (Box.from_pairs(roi),) if roi else (), chosen)


def parse_unprompted(request: Mapping[str, object], *, labels: Sequence[str], found: str) -> OutputForm:
    """Read the `params` of an inference request to the model that works without prompts.

    OHIF requests labels by their numbers (`label_prompt`) and expects these values in the mask; other clients request
    them by name, or not at all, and expect 1.

    Args:
        request: The JSON object, with whatever keys the server has added.
        labels: Names that the app offers.
        found: The one of them that the model finds.

    Returns:
        The form of the answer.

    Raises:
        PromptError: A value has the wrong shape, there are prompts, or the requested label is not the model's.
    """
    fields = _validate(_Fields, request)
    if fields.foreground or fields.background or fields.points or fields.roi or _clicks_by_label(request, labels):
        raise PromptError("The model sam3d_auto takes neither clicks nor a roi: send them to sam3d")
    if fields.result != "mask":
        raise PromptError(f"result: {fields.result} requires clicks: send them to sam3d")
    _require_whole_label(fields, request)
    if request.get("label_prompt") == []:
        raise PromptError(f"No structure is ticked: tick {found}, then press Run")
    named = _named_label(fields, labels)
    asked = [_numbered_label(number, labels) for number in fields.label_prompt] or [named or found]
    for name in asked:
        if name != found:
            raise PromptError(
                f"The model cannot find {name[:SHOWN]} without a click, only {found}: place a point inside the"
                f" {name[:SHOWN]} (Point Prompts)"
            )
    return _output(fields, asked[0], value=fields.label_prompt[0] if fields.label_prompt else 1)


def _require_whole_label(fields: _Fields, request: Mapping[str, object]) -> None:
    if fields.result_crop and saves_label(request):
        raise PromptError("result_crop: a label has the grid of its image: leave out result_crop, or save_label")


def _output(fields: _Fields, label: str, value: int = 1) -> OutputForm:
    """Return the form of the response; only masks have the type that the viewer requests."""
    dtypes: dict[ResultKind, Dtype] = {"mask": fields.result_dtype, "uncertainty": "float32", "candidates": "uint8"}
    return OutputForm(
        label=label,
        extension=fields.result_extension,
        dtype=dtypes[fields.result],
        compress=fields.result_compress,
        device=fields.device,
        value=value,
        result=fields.result,
        crop=fields.result_crop,
    )


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a voxel number")
    return math.floor(value + 0.5)


def _voxel(value: object) -> Voxel:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"a click is [i, j, k], voxels of the stored image, not {value!r}")
    return _whole(value[0]), _whole(value[1]), _whole(value[2])


def _voxels(value: object) -> tuple[Voxel, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of clicks [[i, j, k], ...], not {value!r}")
    return tuple(_voxel(item) for item in value)


def _roi(value: object) -> tuple[int, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list | tuple) or len(value) != 6:
        raise ValueError(f"must be six voxel numbers [i0, i1, j0, j1, k0, k1], not {value!r}")
    return tuple(_whole(item) for item in value)


def _numbers(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(_whole(item) for item in (value if isinstance(value, list | tuple) else [value]))


def _first(value: object) -> object:
    chosen = (value[0] if value else None) if isinstance(value, list | tuple) else value
    return None if chosen == "" else chosen


def _dotted(value: object) -> object:
    return f".{value.lower().lstrip('.')}" if isinstance(value, str) and value else None


class _Chosen(BaseModel):
    """A candidate of earlier prompts; further prompts correct it, as long as its version of the weights is active."""

    model_config = ConfigDict(extra="forbid")

    number: Annotated[int, Field(ge=0)]
    foreground: Annotated[tuple[Voxel, ...], BeforeValidator(_voxels)] = ()
    background: Annotated[tuple[Voxel, ...], BeforeValidator(_voxels)] = ()
    roi: Annotated[tuple[int, ...], BeforeValidator(_roi)] = ()
    version: str | None = None

    def parsed(self) -> ChosenCandidate:
        return ChosenCandidate(_prompts(self.foreground, self.background, self.roi), self.number, self.version)


class _Fields(BaseModel):
    model_config = ConfigDict(extra="ignore")

    foreground: Annotated[tuple[Voxel, ...], BeforeValidator(_voxels)] = ()
    background: Annotated[tuple[Voxel, ...], BeforeValidator(_voxels)] = ()
    points: Annotated[tuple[Voxel, ...], BeforeValidator(_voxels)] = ()
    point_labels: Annotated[tuple[int, ...], BeforeValidator(_numbers)] = ()
    label_prompt: Annotated[tuple[int, ...], BeforeValidator(_numbers)] = ()
    label: str | None = None
    roi: Annotated[tuple[int, ...], BeforeValidator(_roi)] = ()
    chosen_candidate: _Chosen | None = None
    device: Annotated[str | None, BeforeValidator(_first)] = None
    result: ResultKind = "mask"
    result_extension: Annotated[Extension | None, BeforeValidator(_dotted)] = None
    result_dtype: Dtype = "uint8"
    result_compress: bool = False
    result_crop: bool = False


SAVE_KEYS = frozenset({"save_label", "label_tag"})
"""Keys that request to save the mask as a label, too."""

IGNORED_KEYS = frozenset(
    {
        # Every client of MONAI Label.
        *("client_id", "logging", "timeout", "result_write_to_file", "label_info"),
        # OHIF: the tail of every request, and the name of the selected label when none is selected.
        *("restore_label_idx", "null", "undefined"),
        # Slicer: SmartEdit and scribbles.
        *("slice", "reset_state", "selected_label_name", "scribbles_label", "label_names"),
    }
)
"""Keys that viewers send and that change nothing: both keep and resend keys of earlier requests and other models."""

SERVER_KEYS = frozenset({"model", "image", "image_id", "session", "description"})
"""Set by the server from the address of the request, never by `params`."""

RESERVED_KEYS = frozenset(_Fields.model_fields) | SAVE_KEYS | IGNORED_KEYS | SERVER_KEYS
"""Words of the protocol, which cannot name a label."""

CLICK_KEYS = ("foreground", "background", "points")


def check_request(
    request: Mapping[str, object], *, labels: Sequence[str], config: Iterable[str], max_clicks: int
) -> None:
    """Check the keys of the `params` of an inference request, and how many clicks they have.

    Args:
        request: The JSON object as a client sent it.
        labels: Names that the app offers; each is a key for clicks.
        config: Keys of the model's configuration in `/info/`, which Slicer sends back.
        max_clicks: Clicks that a request may have, inside and outside together.

    Raises:
        PromptError: A key is unknown or set by the server, or there are too many clicks.
    """
    known = {*_Fields.model_fields, *SAVE_KEYS, *IGNORED_KEYS, *labels, *config}
    for key in request:
        if key in SERVER_KEYS:
            raise PromptError(f"{key}: the server sets it from the address of the request: remove it from params")
        if key not in known:
            raise PromptError(
                f"{key[:SHOWN]}: no such key in params; there are {', '.join(sorted(_Fields.model_fields))},"
                f" and one for each label: {', '.join(labels)}"
            )
    chosen = request.get("chosen_candidate")
    earlier = [chosen.get(key) for key in CLICK_KEYS] if isinstance(chosen, dict) else []
    clicks = [*earlier, *(request.get(key) for key in (*CLICK_KEYS, *labels))]
    count = sum(len(each) for each in clicks if isinstance(each, list))
    if count > max_clicks:
        raise PromptError(f"{count} clicks are more than the {max_clicks} that are allowed (--conf max_clicks)")


def saves_label(request: Mapping[str, object]) -> bool:
    """Return whether the mask is to be saved as a label as well."""
    return str(request.get("save_label")).lower() in ("true", "1")


def all_clicks(request: Mapping[str, object], *, labels: Sequence[str]) -> frozenset[str]:
    """Return the clicks of a request that was checked, each with its key."""
    keys = (*CLICK_KEYS, *labels)
    return frozenset(f"{key} {click}" for key in keys if isinstance(given := request.get(key), list) for click in given)


class Batch(BaseModel):
    """A request for one mask on each of many images.

    Attributes:
        images: Which images, or their ids.
        label_tag: Tag under which the masks are saved.
        max_batch_size: Largest number of images; 0 = no limit.
        max_workers: Images at a time; 0 = one on each device.
        multi_gpu: Whether all GPUs share the work, when there are any and `device` does not name one.
        gpus: Their numbers, separated by commas, or `all`.
        device: Name of the device as the client knows it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    images: BatchInferImageType | tuple[str, ...] = BatchInferImageType.IMAGES_ALL
    label_tag: str = DefaultLabelTag.ORIGINAL.value
    max_batch_size: int = Field(default=0, ge=0)
    max_workers: int = Field(default=0, ge=0, le=64)
    multi_gpu: bool = True
    gpus: str = "all"
    device: Annotated[str | None, BeforeValidator(_first)] = None


def parse_batch(request: Mapping[str, object]) -> Batch:
    """Read the body of a request for batch inference.

    Raises:
        PromptError: A value has the wrong shape.
    """
    return _validate(Batch, request)


Model = TypeVar("Model", bound=BaseModel)


def _validate(model: type[Model], request: Mapping[str, object]) -> Model:
    """Return the fields of a request that are given; null means not given."""
    given = {key: value for key, value in request.items() if key in model.model_fields and value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        item = error.errors()[0]
        reason = str(item["ctx"]["error"]) if item["type"] == "value_error" else f"{item['msg']}, not {item['input']!r}"
        raise PromptError(f"{'.'.join(map(str, item['loc']))}: {reason}") from None


def _named_label(fields: _Fields, labels: Sequence[str]) -> str | None:
    """Return the label that the client names; `label` holds a file's path instead when a client uploads a mask."""
    if len(fields.label_prompt) > 1 and fields.points:
        raise PromptError(f"label_prompt: give one label for the points, not {len(fields.label_prompt)}")
    if fields.label_prompt:
        return _numbered_label(fields.label_prompt[0], labels)
    is_name = fields.label and fields.label != "null" and not {"/", "\\"} & set(fields.label)
    return fields.label if is_name else None


def _numbered_label(number: int, labels: Sequence[str]) -> str:
    if not 1 <= number <= len(labels):
        known = ", ".join(f"{index} = {name}" for index, name in enumerate(labels, start=1))
        raise PromptError(f"label_prompt: there is no label {number}, only {known}")
    return labels[number - 1]


def _clicks(
    fields: _Fields, request: Mapping[str, object], labels: Sequence[str], named: str | None
) -> tuple[tuple[Voxel, ...], tuple[Voxel, ...], str | None]:
    """Return clicks inside, clicks outside and the label, from the first dialect that holds a click inside."""
    if fields.foreground:
        return fields.foreground, fields.background, named
    if fields.points:
        inside, outside = _signed_points(fields)
        if inside or outside:
            return inside, fields.background + outside, named
    by_name = _clicks_by_label(request, labels)
    if named is None and len(by_name) > 1:
        raise PromptError(f'There are clicks for several labels ({", ".join(by_name)}): name one of them as "label"')
    if named is None and by_name:
        named = next(iter(by_name))
    return by_name.get(named or "", ()), fields.background, named


def _signed_points(fields: _Fields) -> tuple[tuple[Voxel, ...], tuple[Voxel, ...]]:
    signs = fields.point_labels or (1,) * len(fields.points)
    if len(signs) != len(fields.points):
        raise PromptError(f"point_labels: {len(signs)} of them for {len(fields.points)} points")
    unknown = sorted(set(signs) - {-1, 0, 1})
    if unknown:
        raise PromptError(f"point_labels: {unknown[0]} is not 1 (inside), 0 (outside) or -1 (padding)")
    pairs = list(zip(fields.points, signs, strict=True))
    inside = tuple(ijk for ijk, sign in pairs if sign == 1)
    return inside, tuple(ijk for ijk, sign in pairs if sign == 0)


def _clicks_by_label(request: Mapping[str, object], labels: Sequence[str]) -> dict[str, tuple[Voxel, ...]]:
    found = {}
    for name in labels:
        try:
            found[name] = _voxels(request.get(name))
        except ValueError as error:
            raise PromptError(f"{name}: {error}") from None
    return {name: clicks for name, clicks in found.items() if clicks}
