"""Entry of a background process: read a request from the standard input, do the work, and exit.

The server starts this file as a script. The request does not appear among the arguments, which other users of the
machine can see and whose length is limited.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the folder of a script first on its search path: modules there would hide others of the same name.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import contextlib
import json
import logging
import os

NICE = 10
"""Niceness of background processes: clicks have priority."""


def main(method: str, text: str) -> None:
    """Run one method of the app.

    Args:
        method: `train`, `batch_infer` or `scoring`.
        text: The request as JSON.
    """
    lower_priority(only_when_idle=method == "scoring")  # before the imports, which take seconds of computing
    from monailabel.interfaces.utils.app import app_instance

    request = json.loads(text)
    app = app_instance()
    work = {"train": app.train, "batch_infer": app.batch_infer, "scoring": app.scoring}[method]
    logging.getLogger(__name__).info(f"Result: {json.dumps(work(request))}")


def lower_priority(*, only_when_idle: bool) -> None:
    """Let the server's own work come first.

    Args:
        only_when_idle: Compute only when no other process of the machine wants to, where the system can do this.
    """
    if hasattr(os, "nice"):
        os.nice(max(0, NICE - os.nice(0)))
    if only_when_idle and hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):  # some containers do not allow it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO,
        format="[%(asctime)s] [%(process)s] [%(threadName)s] [%(levelname)s] (%(name)s:%(lineno)d) - %(message)s",
    )
    main(sys.argv[1], sys.stdin.read())
