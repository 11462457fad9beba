"""MONAI Label's way, for comparison: a DynUNet that sees the crop and the clicks as channels, as DeepEdit does.

It trains on the same crops with the same simulated annotator, and serves through the same `Segmenter`, so that
the network is all that differs:

    python benchmarks/click_unet.py STS OUT --epochs 12
    python benchmarks/methods.py STS/images STS/labels RESULTS --unet OUT/checkpoint.pt --cases "*_mr*"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from monai.networks.nets import DynUNet
from torch import Tensor

from recipes.tiny import train
from sam3d_label.network import PRESETS, Embedding, PromptableNetwork
from sam3d_label.network.fine_path import VOXELS, voxels_of_cells
from sam3d_label.network.prompt_encoder import IN, OUT
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.log import describe
from sam3d_label.training.run import TrainingRun
from sam3d_label.weights import Weights

SIGMA = 2.0
"""Standard deviation of a click's Gaussian, voxels of the crop, as in MONAI's `AddGuidanceSignald`."""

SETTINGS = train.SETTINGS.model_copy(
    update={
        "epochs": 22,
        "batch": 1,
        "learning_rate": 1e-3,
        "box_share": 0.0,
        "rough_mask_share": 0.0,
        "no_click_share": 0.0,
        "two_passes": False,
    }
)
"""Settings of `tiny`, without the prompts that DeepEdit does not support."""


class ClickUNet(PromptableNetwork):
    """Answers like `SAM3D`; nothing of a crop can be kept from click to click.

    Like `tiny` it works at half the crop's resolution, and gives each of a cell's eight voxels a value of its own. Its
    bottom has 4³ cells: one level deeper, where 2³ are normalised, gradients soon overflow in bf16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = PRESETS["tiny"]
        self.unet = DynUNet(
            spatial_dims=3,
            in_channels=3,
            out_channels=VOXELS,
            kernel_size=[3] * 5,
            strides=[2] * 5,
            upsample_kernel_size=[2] * 4,
            filters=[16, 32, 64, 128, 160],
            norm_name="instance",
        )

    def encode(self, crop: Tensor) -> Embedding:
        """Return the crop (B, 1, D, H, W) itself."""
        return Embedding(crop, crop.new_empty(0))

    def decode(
        self,
        embedding: Embedding,
        points: Tensor,
        signs: Tensor,
        *,
        boxes: Tensor | None = None,
        mask: Tensor | None = None,
        geodesic_maps: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return the foreground minus background logit (B, 1, D, H, W); boxes and masks are ignored."""
        crop = embedding.feature
        channels = [crop[:, 0], *(self._bumps(points, signs == sign) for sign in (IN, OUT))]
        return voxels_of_cells(self.unet(torch.stack(channels, 1)))

    def _bumps(self, points: Tensor, chosen: Tensor) -> Tensor:
        size = self.config.crop
        if not chosen.any():
            return points.new_zeros(len(points), size, size, size)
        centres = torch.arange(size, device=points.device, dtype=points.dtype)
        along = torch.exp(-((centres - points[..., None]) ** 2) / (2 * SIGMA**2)) * chosen[..., None, None]
        return torch.einsum("bnx,bny,bnz->bnxyz", *along.unbind(2)).amax(1)


def open_unet(checkpoint: Path) -> Weights:
    """Open the network of a training run for use in place of the shipped weights."""
    model = ClickUNet()
    average = torch.load(checkpoint, weights_only=True, map_location="cpu")["average"]
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # MONAI's DynUNet lists its parameters under two names each
            parameter.copy_(average[name])
    card = train.START.model_copy(
        update={
            "version": "click-unet",
            "scales": (0.25, 0.5, 1.0, 2.0),
            "capabilities": ["positive_click", "negative_click"],
        }
    )
    return Weights(model.eval(), card, card.version, str(checkpoint.resolve()))


def main(
    sts: Annotated[Path, typer.Argument(help="Folder with images/ and labels/ of the soft-tissue sarcomas.")],
    out: Annotated[Path, typer.Argument(help="Folder for the painted cases, the checkpoint and the log.")],
    epochs: int = SETTINGS.epochs,
    threads: int = 2,
    resume: bool = False,
) -> None:
    """Train the U-Net on the cases that `tiny` trains on."""
    torch.set_num_threads(threads)
    training, validation = train.every_case(sts, out)
    torch.manual_seed(SETTINGS.seed)
    run = TrainingRun(
        cases=training,
        validation=validation,
        intensity=train.INTENSITY,
        settings=SETTINGS.model_copy(update={"epochs": epochs}),
        resume=resume,
    )
    fine_tune(
        ClickUNet(),
        run,
        out,
        progress=lambda log: print(describe(log, epochs), flush=True),
    )


if __name__ == "__main__":
    typer.run(main)
