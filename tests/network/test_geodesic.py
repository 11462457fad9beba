"""The maps are lengths of real paths, short ones at borders only where there is no way around."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from sam3d_label.network import geodesic

SCALES = (3.0, 12.0)
STEPS = [(15, 16, 16), (16, 15, 16), (16, 16, 15)]
"""Shapes of the costs of the steps along each axis of 16 cells."""


def crop(image: np.ndarray) -> Tensor:
    """An image of 16 cells along each edge as a crop, (1, 1, 32, 32, 32), axes H, W, D."""
    return torch.from_numpy(image.repeat(2, 0).repeat(2, 1).repeat(2, 2))[None, None]


def point(h: int, w: int, d: int) -> Tensor:
    """A click in the middle of a cell, voxels d, h, w of the crop."""
    return torch.tensor([[[2 * d + 0.5, 2 * h + 0.5, 2 * w + 0.5]]], dtype=torch.float64)


def random_scene(seed: int) -> Tensor:
    """The scene of a smooth random image with noise."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=(16, 16, 16)), 2) * 20 + 0.3 * rng.normal(size=(16, 16, 16))
    return geodesic.scene(crop(image))


def two_rooms(doorway: bool) -> Tensor:
    """The scene of two rooms of the same grey value, parted by a wall two cells thick, with a doorway or not."""
    image = np.random.default_rng(0).normal(size=(16, 16, 16)) * 0.05
    image[:, 7:9] += 5
    if doorway:
        image[10:15, 7:9, 10:15] -= 5
    return geodesic.scene(crop(image))


def oracle(edges: list[Tensor], start: tuple[int, int, int]) -> np.ndarray:
    """Shortest distances from a cell by Dijkstra's algorithm, from the costs of the steps along each axis."""
    size = 16
    index = np.arange(size**3).reshape(size, size, size)
    steps = [
        (
            index.take(range(size - 1), axis).ravel(),
            index.take(range(1, size), axis).ravel(),
            edges[axis].numpy().ravel(),
        )
        for axis in range(3)
    ]
    rows, columns, costs = (np.concatenate(parts) for parts in zip(*steps, strict=True))
    graph = coo_matrix((costs, (rows, columns)), (size**3, size**3)).tocsr()
    return dijkstra(graph, directed=False, indices=index[start]).reshape(size, size, size)


def random_edges(seed: int) -> list[Tensor]:
    """Costs of the steps along each axis of 16 cells, with ridges that paths go around."""
    ridges = gaussian_filter(np.random.default_rng(seed).normal(size=(16, 16, 16)), 1.5)
    cost = torch.from_numpy(0.1 + 3 * (ridges > 0.8 * ridges.std()))
    return [(cost.narrow(axis, 1, 15) + cost.narrow(axis, 0, 15))[None] / 2 for axis in range(3)]


@pytest.mark.parametrize("sweep", [geodesic.sweep_cells, geodesic.sweep_lines])
def test_sweeps_find_dijkstras_distances_where_paths_turn_seldom(sweep) -> None:
    edges = random_edges(0)
    start = torch.full((1, 16, 16, 16), geodesic.FAR, dtype=torch.float64)
    start[0, 3, 8, 12] = 0
    found = sweep(start, edges)[0].numpy()
    exact = oracle([edge[0] for edge in edges], (3, 8, 12))
    np.testing.assert_allclose(found, exact, rtol=1e-9)


def test_sweeps_never_find_less_than_the_shortest_path() -> None:
    generator = torch.Generator().manual_seed(2)
    edges = [torch.rand(1, *shape, generator=generator, dtype=torch.float64) for shape in STEPS]
    start = torch.full((1, 16, 16, 16), geodesic.FAR, dtype=torch.float64)
    start[0, 3, 8, 12] = 0
    ratio = geodesic.sweep_cells(start, edges)[0].numpy() / oracle([edge[0] for edge in edges], (3, 8, 12)).clip(1e-9)
    assert np.delete(ratio.ravel(), np.ravel_multi_index((3, 8, 12), (16, 16, 16))).min() >= 1 - 1e-9
    assert ratio.mean() < 1.2, "in pure noise, where shortest paths turn all the time, they are still near"


def test_both_ways_of_sweeping_give_the_same() -> None:
    edges, start = random_edges(1), torch.full((1, 16, 16, 16), geodesic.FAR, dtype=torch.float64)
    start[0, 0, 5, 15] = 0
    torch.testing.assert_close(geodesic.sweep_cells(start, edges), geodesic.sweep_lines(start, edges))


def test_in_uniform_tissue_a_distance_counts_cells() -> None:
    scene = geodesic.scene(torch.ones(1, 1, 32, 32, 32, dtype=torch.float64))
    maps = geodesic.distances(scene, point(2, 5, 7))[0, 0]
    h, w, d = np.indices((16, 16, 16))
    cells = torch.from_numpy(abs(h - 2) + abs(w - 5) + abs(d - 7)).double()
    torch.testing.assert_close(maps, (geodesic.PER_CELL * cells).expand(2, -1, -1, -1))


def test_what_a_wall_hides_is_far_unless_there_is_a_doorway() -> None:
    behind, (closed, opened) = (
        (4, 12, 4),
        (geodesic.distances(two_rooms(doorway), point(4, 3, 4))[0, 0] for doorway in (False, True)),
    )
    for cost in range(2):
        assert closed[cost][behind] > 3 * opened[cost][behind]
        assert closed[cost][4, 3, 12] < closed[cost][behind] / 3, "the same way on this side of the wall is short"


def test_intensities_of_any_scale_give_the_same_maps() -> None:
    rng = np.random.default_rng(3)
    image = gaussian_filter(rng.normal(size=(16, 16, 16)), 2)
    one, other = (geodesic.distances(geodesic.scene(crop(i)), point(8, 8, 8)) for i in (image, 1000 * image - 7))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_clicks_do_not_change_one_anothers_maps() -> None:
    scene, clicks = random_scene(4), [point(3, 3, 3), point(12, 9, 2), point(8, 1, 14)]
    together = geodesic.distances(scene, torch.cat(clicks, 1))
    for index, click in enumerate(clicks):
        torch.testing.assert_close(together[:, index], geodesic.distances(scene, click)[:, 0])


def test_items_of_a_batch_do_not_change_one_anothers_maps() -> None:
    scenes, clicks = [random_scene(5), random_scene(6)], [point(3, 3, 3), point(12, 9, 2)]
    together = geodesic.distances(torch.cat(scenes), torch.cat(clicks))
    for index in range(2):
        torch.testing.assert_close(together[index], geodesic.distances(scenes[index], clicks[index])[0])


def test_a_click_is_at_distance_zero_of_the_cell_it_is_in() -> None:
    voxels = torch.tensor([[[6.0, 30.0, 17.0], [7.0, 31.0, 16.0], [-3.0, 40.0, 16.0]]], dtype=torch.float64)
    maps = geodesic.distances(random_scene(7), voxels)
    for index, cell in enumerate([(15, 8, 3), (15, 8, 3), (15, 8, 0)]):
        d, h, w = cell
        assert (maps[0, index, :, d, h, w] == 0).all()


def drawn(clicks: list[Tensor], signs: list[int]) -> Tensor:
    """The channels of some clicks."""
    maps = geodesic.distances(random_scene(8), torch.cat(clicks, 1)).unbind(1)
    told = torch.tensor([signs])
    return geodesic.channels(maps, told == 1, told == 0, SCALES)


def test_channels_fade_with_the_distance_to_the_nearest_click_of_either_sign() -> None:
    inside, outside = point(3, 3, 3), point(12, 9, 2)
    channels = drawn([inside, outside], [1, 0])
    assert channels.shape == (1, 10, 16, 16, 16)
    assert (channels[0, :4, 3, 3, 3] == 1).all()
    assert (channels[0, 4:8, 12, 9, 2] == 1).all()
    assert (channels[0, :4, 12, 9, 2] < 1).all()
    assert (channels[0, 4:8, 3, 3, 3] < 1).all()
    assert (channels[0, 8:, 3, 3, 3] > 0.99).all()
    assert (channels[0, 8:, 12, 9, 2] < -0.99).all()


def test_channels_of_a_sign_without_clicks_are_empty() -> None:
    channels = drawn([point(3, 3, 3)], [1])
    assert channels[0, 4:].abs().max() < 1e-30


def test_the_order_of_the_clicks_and_padding_do_not_matter() -> None:
    clicks, signs = [point(3, 3, 3), point(12, 9, 2), point(8, 1, 14)], [1, 0, 1]
    first = drawn(clicks, signs)
    for order in itertools.permutations(range(3)):
        torch.testing.assert_close(drawn([clicks[i] for i in order], [signs[i] for i in order]), first)
    torch.testing.assert_close(drawn([*clicks, point(0, 0, 0)], [*signs, -1]), first)
