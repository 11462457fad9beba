"""Ends the worker processes of `monailabel start_server --workers N` at once, with a reason.

MONAI Label puts this folder on the PYTHONPATH of the processes that it starts, so Python imports this file when one of
them starts. The app itself could refuse only when it is loaded, and uvicorn kills workers that take longer than five
seconds to get there, again and again.
"""

import os
import sys


def _refuse_workers() -> None:
    if "--multiprocessing-fork" not in sys.orig_argv:
        return
    import psutil

    parent = psutil.Process().parent()
    if parent is None or "start_server" not in parent.cmdline():
        return
    from lib.server.workers import ONE_PROCESS, STARTUP_FAILURE, workers

    number = workers(parent.cmdline(), os.environ)
    if number > 1:
        sys.stderr.write(f"sam3d: {ONE_PROCESS.format(workers=number)}\n")
        sys.stderr.flush()
        os._exit(STARTUP_FAILURE)


_refuse_workers()
