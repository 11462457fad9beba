"""Address that the server listens on: this machine only, unless it has a login."""

from __future__ import annotations

import argparse
import errno
import functools
import gc
import ipaddress
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, ParamSpec

import psutil
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from lib.server.proxy_headers import ProxyHeaders
from lib.server.workers import ONE_PROCESS
from sam3d_label.errors import Sam3dError

logger = logging.getLogger(__name__)
Parameters = ParamSpec("Parameters")

LOOPBACK = "127.0.0.1"
NEEDS_LOGIN = (
    "The server would be open to everybody who reaches {address}. Leave out --host to listen on this machine only, or "
    "set up a login: --conf api_keys FILE (see docs/how-to/login.md)"
)

TAKEN = "Port {port} of {address} is taken by another program: end that program, or choose another port with --port"
PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")


def running_server() -> uvicorn.Server | None:
    """Return the uvicorn server that is starting in this process, or None in tests and background tasks.

    MONAI Label starts it with `uvicorn.run`, which keeps the object to itself, and the app is loaded while it starts.
    """
    return next((thing for thing in gc.get_objects() if type(thing) is uvicorn.Server), None)


def prepare(has_login: bool, trusted_proxies: Sequence[str] = ()) -> str:
    """Check how the server was started and correct where it listens, before it does; end the process if that fails.

    MONAI Label listens on 0.0.0.0 unless it is given another address.

    Args:
        has_login: Whether the server has a login.
        trusted_proxies: Addresses or networks of proxies whose `X-Forwarded-For`, `-Proto` and `-Prefix` count.

    Returns:
        The address on which the server listens.
    """
    server = running_server()
    if server is None:
        return LOOPBACK
    config = server.config
    if config.workers > 1:
        refuse(ONE_PROCESS.format(workers=config.workers))
    if is_default_host(sys.argv[1:]):
        config.host = LOOPBACK
    where = config.uds or (f"file descriptor {config.fd}" if config.fd is not None else "")
    if not has_login and (where or not is_loopback(config.host)):
        refuse(NEEDS_LOGIN.format(address=where or config.host or "any of its addresses"))
    if not where and is_taken(config.host, config.port):
        refuse(TAKEN.format(port=config.port, address=config.host))
    _trust(config, trusted_proxies)
    return config.host


def is_taken(host: str, port: int) -> bool:
    """Return whether another program listens there; uvicorn notices it only after the app has been loaded."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
    return False


def check_prefix(prefix: str) -> str:
    """Return a path prefix of the routes (`MONAI_LABEL_API_STR`) that leads to them.

    Raises:
        Sam3dError: Browsers and proxies would change it, so that no route or another host answered.
    """
    if PREFIX.fullmatch(prefix) and not {".", ".."} & set(prefix.split("/")):
        return prefix
    raise Sam3dError(
        f"MONAI_LABEL_API_STR {prefix!r} is no path prefix: use letters, digits and . _ ~ -, with a slash at its"
        " beginning and none at its end, such as /sam3d-server"
    )


def refuse(reason: str) -> NoReturn:
    """Log the reason and end the process, as uvicorn ends when it cannot start.

    An exception, also SystemExit, would be logged with its traceback, because the app is loaded inside uvicorn.
    """
    logger.critical(reason)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(STARTUP_FAILURE)


def refuse_on_errors(start: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Let a function that starts the server end the process with only the reason when it raises a `Sam3dError`.

    uvicorn would log a traceback of hundreds of lines after the reason. Without a server the error is raised.

    Args:
        start: Function that starts the server.
    """

    @functools.wraps(start)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            start(*args, **kwargs)
        except Sam3dError as error:
            if running_server() is not None:
                refuse(str(error))
            raise

    return wrapper


def is_default_host(arguments: Sequence[str]) -> bool:
    """Return whether `monailabel start_server` was started with these arguments, and none of them is its address."""
    if "start_server" not in arguments:
        return False
    from monailabel.main import Main

    class WithoutDefault(Main):
        def args_start_server(self, parser: argparse.ArgumentParser) -> None:
            super().args_start_server(parser)
            parser.set_defaults(host=None)

    return WithoutDefault().args_parser().parse_args(list(arguments)).host is None


def is_loopback(host: str | None) -> bool:
    """Return whether an address or name is a loopback one."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host or "0.0.0.0", None)}
    except (OSError, UnicodeError):
        return False
    return all(_plain(address).is_loopback for address in found)


def own_hosts(address: str, allowed: Sequence[str] = ()) -> set[str]:
    """Return the names by which clients may address the server; those of the loopback interface are not listed.

    Args:
        address: Where it listens. If that is everywhere, all addresses and the name of this machine count.
        allowed: Further names, such as that of a proxy.
    """
    hosts = {address, *allowed}
    try:
        everywhere = not address or _plain(address).is_unspecified
    except ValueError:
        everywhere = False
    if everywhere:
        hosts |= {entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries}
        hosts |= {socket.gethostname(), socket.getfqdn()}
    return {host.lower() for host in hosts if host}


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _trust(config: uvicorn.Config, proxies: Sequence[str]) -> None:
    """Let headers of these proxies count, and of no other; uvicorn would trust every program on this machine."""
    app = config.loaded_app
    if isinstance(app, ProxyHeadersMiddleware):
        app = app.app
    config.loaded_app = ProxyHeaders(app, list(proxies)) if proxies else app
