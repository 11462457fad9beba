"""Prompts of a user, in voxels of the stored image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sam3d_label.errors import PromptError

Ijk = tuple[int, int, int]
"""A voxel of the stored image: column, row and slice, counted from 0 as nibabel and SimpleITK index them."""


@dataclass(frozen=True)
class Click:
    """A voxel that the annotator says is inside (positive) or outside the target."""

    ijk: Ijk
    positive: bool = True


@dataclass(frozen=True)
class Box:
    """A box around the target, by its lower and upper corner, both inclusive."""

    lower: Ijk
    upper: Ijk

    @classmethod
    def from_pairs(cls, pairs: Sequence[int]) -> Box:
        """Return a box from (i0, i1, j0, j1, k0, k1), the two of a pair in either order."""
        if len(pairs) != 6:
            raise PromptError(f"a box is six numbers I0,I1,J0,J1,K0,K1, not {len(pairs)}")
        (i0, i1), (j0, j1), (k0, k1) = (sorted(pairs[axis : axis + 2]) for axis in (0, 2, 4))
        return cls((i0, j0, k0), (i1, j1, k1))


@dataclass(frozen=True)
class Prompts:
    """The prompts of one request.

    Attributes:
        clicks: Clicks inside and outside the target.
        boxes: Boxes around it.
        chosen: The mask that the further prompts correct, where the annotator has chosen one; the prompts that it is a
            candidate of are among `clicks` and `boxes`.
    """

    clicks: tuple[Click, ...] = ()
    boxes: tuple[Box, ...] = ()
    chosen: ChosenCandidate | None = None

    @classmethod
    def of(cls, prompts: Prompts | Iterable[Click | Box]) -> Prompts:
        """Return prompts from prompts or from a plain sequence of clicks and boxes.

        Raises:
            PromptError: Something else is among them.
        """
        if isinstance(prompts, Prompts):
            return prompts
        drawn = list(prompts)
        strange = [p for p in drawn if not isinstance(p, (Click, Box))]
        if strange:
            raise PromptError(f"{strange[0]!r} is neither a Click nor a Box: write Click((i, j, k))")
        return cls(tuple(p for p in drawn if isinstance(p, Click)), tuple(p for p in drawn if isinstance(p, Box)))

    @property
    def positive(self) -> tuple[Click, ...]:
        """The clicks inside the target."""
        return tuple(click for click in self.clicks if click.positive)

    @property
    def negative(self) -> tuple[Click, ...]:
        """The clicks outside the target."""
        return tuple(click for click in self.clicks if not click.positive)

    @property
    def corrections(self) -> Prompts:
        """The prompts that the chosen candidate was not made of; all of them without one."""
        if self.chosen is None:
            return self
        earlier = self.chosen.prompts
        return Prompts(
            tuple(click for click in self.clicks if click not in earlier.clicks),
            tuple(box for box in self.boxes if box not in earlier.boxes),
        )

    def for_weights(self, version: str) -> Prompts:
        """Return the prompts for a version of the weights: without a candidate of another one."""
        is_of_another = self.chosen is not None and self.chosen.version not in (None, version)
        return replace(self, chosen=None) if is_of_another else self

    def validate(self, shape: Ijk) -> None:
        """Check that the prompts fit a volume of the given shape (I, J, K).

        Raises:
            PromptError: Nothing is inside, a click or box is outside the volume, or a voxel is both in and out.
        """
        if not self.positive and not self.boxes:
            raise PromptError("nothing marks the target: give at least one click inside it, or a box around it")
        self.require_inside(shape)
        if self.chosen:
            self.chosen.prompts.validate(shape)
        both = {click.ijk for click in self.positive} & {click.ijk for click in self.negative}
        if both:
            raise PromptError(f"voxel {min(both)} is clicked both inside and outside: remove one of the two clicks")

    def require_inside(self, shape: Ijk) -> None:
        """Check that all prompts are in a volume of the given shape (I, J, K).

        Raises:
            PromptError: A click or box is outside.
        """
        for click in self.clicks:
            require_inside("click", click.ijk, shape)
        for box in self.boxes:
            require_inside("box corner", box.lower, shape)
            require_inside("box corner", box.upper, shape)


@dataclass(frozen=True)
class ChosenCandidate:
    """One of the masks that some prompts may mean (`Segmenter.candidates`), as the mask to correct.

    Attributes:
        prompts: The prompts that it is a candidate of.
        number: Its place among their candidates, 0 for the highest predicted Dice.
        version: Version of the weights that proposed it. Other weights have another mask at this place, so they ignore
            the choice; None is taken for the version in use.
    """

    prompts: Prompts
    number: int
    version: str | None = None


def require_inside(what: str, ijk: Ijk, shape: Ijk) -> None:
    """Raise a PromptError unless the voxel is in a volume of the given shape."""
    if not all(0 <= index < size for index, size in zip(ijk, shape, strict=True)):
        raise PromptError(
            f"{what} {tuple(ijk)} is outside the volume of {' x '.join(map(str, shape))} voxels: "
            "indices i, j, k count from 0 in the stored image"
        )


def clip_boxes(prompts: Prompts, shape: Sequence[int]) -> Prompts:
    """Clip boxes to the volume: a viewer's region may extend beyond it.

    Args:
        prompts: Prompts in voxels of the stored image.
        shape: (I, J, K) of the stored image.

    Returns:
        The same clicks, with boxes inside the volume.

    Raises:
        PromptError: A box is completely outside.
    """
    chosen = prompts.chosen
    return Prompts(
        clicks=prompts.clicks,
        boxes=tuple(_clip(box, shape) for box in prompts.boxes),
        chosen=chosen and replace(chosen, prompts=clip_boxes(chosen.prompts, shape)),
    )


def _clip(box: Box, shape: Sequence[int]) -> Box:
    if any(low >= size or high < 0 for low, high, size in zip(box.lower, box.upper, shape, strict=True)):
        raise PromptError(
            f"The roi from {list(box.lower)} to {list(box.upper)} is outside the volume of"
            f" {' x '.join(map(str, shape))} voxels: move it onto the volume or remove it"
        )
    lower = tuple(max(low, 0) for low in box.lower)
    upper = tuple(min(high, size - 1) for high, size in zip(box.upper, shape, strict=True))
    return Box(lower=(lower[0], lower[1], lower[2]), upper=(upper[0], upper[1], upper[2]))
