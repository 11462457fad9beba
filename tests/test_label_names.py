"""Names of a label's values, however the client writes the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from sam3d_label.errors import VolumeError
from sam3d_label.label_names import name_values


@pytest.mark.parametrize("labels", [("tumor", "cyst"), ("cyst", "tumor")])
@pytest.mark.parametrize(
    "info",
    [
        [{"name": "cyst", "idx": 2}, {"name": "tumor", "idx": 1}],
        [{"name": "cyst", "idx": "2"}, {"name": "tumor", "idx": " 1 "}],
        [{"name": "cyst", "idx": 2.0}, {"name": "tumor", "idx": 1.0}],
        [{"name": "cyst", "id": 2}, {"name": "tumor", "id": 1}],
        [{"name": "cyst", "idx": None, "id": 2}, {"name": "tumor", "id": "1"}],
        {"cyst": 2, "tumor": 1},
        {"cyst": "2", "tumor": "1"},
    ],
)
def test_numbers_are_numbers_in_every_spelling(info: Any, labels: tuple[str, ...]) -> None:
    assert name_values([1, 2], {"label_info": info}, labels) == {1: "tumor", 2: "cyst"}


@pytest.mark.parametrize("number", ["two", 1.5, True, [1], float("nan"), "-", ""])
def test_what_is_no_number_is_rejected(number: Any) -> None:
    with pytest.raises(VolumeError, match="label_info numbers 'cyst' as"):
        name_values([1], {"label_info": [{"name": "cyst", "idx": number}]}, ("tumor",))
