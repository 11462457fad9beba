"""Random augmentation of training crops."""

from __future__ import annotations

from monai.transforms import (
    AsDiscreted,
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)

IMAGE, LABEL, INSIDE = "image", "label", "inside"
"""Keys of a training crop; see `OpenedCase.crop`."""


def augmentation(homogeneous: bool = False) -> Compose:
    """Compose rotations, flips, shears, and changes of contrast, brightness, sharpness and noise.

    Args:
        homogeneous: As `TrainSettings` has it.
    """
    everything = [IMAGE, LABEL, INSIDE]
    left_to_right = RandFlipd(everything, prob=0.5, spatial_axis=2)
    any_way = [
        *(RandFlipd(everything, prob=0.5, spatial_axis=axis) for axis in range(2)),
        *(RandRotate90d(everything, prob=0.5, max_k=3, spatial_axes=plane) for plane in ((0, 1), (0, 2), (1, 2))),
    ]
    other_way_round = [RandScaleIntensityd(IMAGE, factors=(-2.0, -2.0), prob=0.1)]
    return Compose(
        [
            left_to_right,
            *([] if homogeneous else any_way),
            RandAffined(
                everything,
                prob=0.3,
                rotate_range=(0.4,) * 3,
                shear_range=(0.1,) * 6,
                scale_range=(0.2,) * 3,
                mode=("bilinear", "bilinear", "nearest"),
                padding_mode="zeros",
            ),
            AsDiscreted(LABEL, threshold=0.5),
            RandSimulateLowResolutiond(IMAGE, prob=0.1, zoom_range=(0.4, 0.9)),
            RandHistogramShiftd(IMAGE, prob=0.15),
            RandScaleIntensityd(IMAGE, factors=0.4, prob=0.7),
            RandShiftIntensityd(IMAGE, offsets=0.4, prob=0.7),
            *([] if homogeneous else other_way_round),
            RandAdjustContrastd(IMAGE, gamma=(0.6, 1.6), prob=0.3),
            RandGaussianSmoothd(IMAGE, prob=0.1),
            RandGaussianNoised(IMAGE, std=0.2, prob=0.2),
        ]
    )
