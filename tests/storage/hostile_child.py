"""A bounded child in which some files do what only a broken parser does; the file's first word says what."""

import ctypes
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from storage import bounded_child
from storage.bounded_child import Answer


class PanicException(BaseException):
    """What a decoder written in Rust raises."""


def _misbehave(request: dict[str, Any]) -> Answer:
    word = Path(request["path"]).read_text().split()[0]
    if word == "segfault":
        ctypes.string_at(0)
    if word == "loop":
        while True:
            pass
    if word == "sleep":
        time.sleep(1000)
    if word == "hold":  # the interpreter, as a decoder may
        ctypes.PyDLL(None).sleep(1000)
    if word == "memory":
        np.ones(10**10)
    if word == "exit":
        os._exit(3)
    if word == "raise":
        raise UnicodeTranslateError("Jane Doe", 0, 1, "Jane Doe")
    if word == "panic":
        raise PanicException("Jane Doe")
    if word == "write":
        Path(request["path"]).with_name("written").write_text("x")
    if word == "print":
        sys.stdout.write("Jane Doe")
        os.write(2, b"Jane Doe")
    if word == "garble":
        os.write(4, b"\\xff" * 100)
        time.sleep(1)
    if word == "lie":
        if request["do"] == "unpack zip":
            return {"damaged": [99]}, b""
        return {"identity": [1, 2, 3]}, b""
    return {"identity": ["S01", date(2026, 3, 4).isoformat()], "images": None}, b""


if __name__ == "__main__":
    bounded_child.HANDLERS |= dict.fromkeys(("identity", "images", "unpack zip"), _misbehave)
    bounded_child.main()
