"""The request that a thread or task works on, and what the log and the metrics know about it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

CLIENT_LEFT = 499
"""Status in the log of a request whose client was gone before the answer began, as in nginx's logs."""

NO_ROUTE = "(none)"


@dataclass
class RequestRecord:
    """Data about one request for the log and the metrics.

    Attributes:
        id: The request id.
        method: HTTP method; `OTHER` for one that HTTP does not define.
        secrets: What the client sent in the URL; it is removed from messages that are logged meanwhile.
        route: Template of the route that answered.
        status: HTTP status of the answer.
        seconds: Until the answer was sent.
        bytes_in: Size of the body that was read.
        bytes_out: Size of the body that was sent.
        user: Hash of the user's name.
        role: Role of the user, in lower case.
    """

    id: str
    method: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    route: str = NO_ROUTE
    status: int = CLIENT_LEFT
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    user: str | None = None
    role: str | None = None

    def as_log(self) -> dict[str, object]:
        """Return the fields of the line in the log."""
        return {
            "request_id": self.id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "seconds": round(self.seconds, 4),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "user": self.user,
            "role": self.role,
        }


CURRENT: ContextVar[RequestRecord | None] = ContextVar("sam3d_request", default=None)


def current_request() -> RequestRecord | None:
    """Return the request that this thread or task works on; None outside of requests."""
    return CURRENT.get()


def request_id() -> str | None:
    """Return the id of the request that this thread or task works on."""
    record = CURRENT.get()
    return record.id if record else None
