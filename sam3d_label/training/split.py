"""Split cases into training and validation by a hash."""

from __future__ import annotations

import hashlib


def hash_position(text: str) -> float:
    """Return a hash of a text as a number in 0…1, uniformly distributed."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
