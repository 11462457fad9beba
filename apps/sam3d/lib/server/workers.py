"""The number of processes that the server was started with; it needs exactly one. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ONE_PROCESS = (
    "--workers {workers} is not supported, because sessions, trainings and open volumes belong to one process. Leave "
    "it out (and unset WEB_CONCURRENCY): one process answers requests side by side"
)
STARTUP_FAILURE = 3
"""Exit status by which uvicorn's parent process knows that starting another worker would not help."""


def workers(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Return the number of worker processes that uvicorn starts.

    Args:
        arguments: Command line of the server.
        environment: Its environment; uvicorn reads WEB_CONCURRENCY where the command line has no number.
    """
    given = environment.get("WEB_CONCURRENCY", "1")
    for number, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name.startswith("--") and name != "--" and "--workers".startswith(name):
            given = value or "".join(arguments[number + 1 : number + 2])
    return int(given) if given.isdigit() else 1
