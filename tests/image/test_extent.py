import numpy as np
import torch

from sam3d_label.image.extent import planes, silhouettes, spans
from sam3d_label.masks import bounding_box


def test_spans_are_the_bounding_box_in_any_order_of_the_axes_in_memory():
    rng = np.random.default_rng(0)
    for order in ((0, 1, 2), (2, 0, 1)):
        mask = torch.from_numpy(rng.random((12, 9, 10)) > 0.995).permute(order)
        assert spans(mask) == bounding_box(mask.numpy())


def test_an_empty_mask_has_no_spans():
    assert spans(torch.zeros(4, 5, 6, dtype=torch.bool)) is None


def test_silhouettes_and_planes_are_those_of_the_voxels():
    mask = torch.zeros(4, 5, 6, dtype=torch.bool)
    mask[1, 2, 3] = mask[1, 4, 0] = True
    along_d, along_h, along_w = silhouettes(mask)
    assert torch.nonzero(along_d).tolist() == [[2, 3], [4, 0]]
    assert torch.nonzero(along_h).tolist() == [[1, 0], [1, 3]]
    assert torch.nonzero(along_w).tolist() == [[1, 2], [1, 4]]
    assert [torch.nonzero(plane)[:, 0].tolist() for plane in planes(mask)] == [[1], [2, 4], [0, 3]]
