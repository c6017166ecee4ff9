"""Run a Python module until whoever started it ends, however that happens.

`python -m flows.server_process MODULE ARGUMENT ...` watches its standard input, a pipe whose other end only
the starting process holds: it closes with that process, killed or not, and no server stays behind.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_S = 5.0
"""Time for an orderly end [s]."""


def main() -> None:
    """Run the module that the arguments name."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
