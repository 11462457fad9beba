"""The sender of a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """Permissions of a user; a higher role includes the lower ones."""

    NOBODY = 0
    ANNOTATOR = 1
    ADMIN = 2


@dataclass(frozen=True)
class Identity:
    """The sender of a request, as `request.state.identity`.

    Attributes:
        name: Name of the API key, or the user name in a token.
        role: What they may do.
        anonymous: Whether there is no login.
    """

    name: str
    role: Role
    anonymous: bool = False


LOCAL_USER = Identity("anonymous", Role.ADMIN, anonymous=True)
"""Everybody, on a server without a login: it listens on the loopback interface only."""

VISITOR = Identity("visitor", Role.NOBODY, anonymous=True)
"""A client that has not logged in, on a server that has a login."""
