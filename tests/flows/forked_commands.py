"""Run commands of `cmrtrials` in forks of one process, which has imported what they need: seconds less each.

A line of standard input asks for a command, as JSON: its arguments, and files of its own for what it prints.
A line of standard output answers with the first of these and the exit code. Ends with its input.
"""

import json
import os
import signal
import sys
from importlib import import_module

from flows.cli import app, main

IMPORTED = (
    *("flows.nightly", "flows.rerun", "flows.simulate", "flows.train"),
    *("flows.preflight", "flows.server", "flows.terminal", "flows.report", "flows.review"),
)

LONGEST_S = 300
"""Longest that one command may take."""


def serve() -> None:
    """Run what is asked for, one command after the other."""
    main()  # sets the environment as the command does
    for name in IMPORTED:
        import_module(name)
    for line in sys.stdin:
        arguments, *printed = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(LONGEST_S)  # a command that hangs must not hold the others
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor, file in enumerate(printed, start=1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            app(arguments)  # exits
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps([printed[0], os.waitstatus_to_exitcode(status)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
