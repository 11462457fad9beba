import numpy as np
import pytest

from sam3d_label.training.split import hash_position


def test_a_text_keeps_its_position() -> None:
    assert hash_position("phantom_000") == hash_position("phantom_000")
    assert hash_position("") == pytest.approx(0xE3B0C442 / 2**32)


def test_positions_are_even() -> None:
    found = [hash_position(f"case {number}") for number in range(2000)]
    assert np.histogram(found, 4, (0, 1))[0] == pytest.approx([500] * 4, rel=0.15)
