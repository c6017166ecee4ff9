"""Do something at each request to an object store, or let a process die there."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from s3fs import S3FileSystem

_MEMORY_REQUESTS = ("pipe_file", "cp_file", "rm_file", "_rm", "cat_file", "find", "exists", "info", "created")


class KilledError(Exception):
    """The process is dead: no request reaches the store any more."""


@contextmanager
def at_each_request(step: Callable[[int], None]) -> Iterator[None]:
    """Call before each request of this process to any object store, with its number from 1."""
    n_requests = 0
    at_work = False

    def begin() -> None:
        nonlocal n_requests, at_work
        if at_work:  # a request of the step itself, or one that another is made of
            return
        n_requests += 1
        at_work = True
        try:
            step(n_requests)
        finally:
            at_work = False

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (whatever it is)
            begin()
            return method(*arguments, **options)

        return call

    call_s3 = S3FileSystem._call_s3

    async def counted_s3(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (whatever it is)
        begin()
        return await call_s3(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in _MEMORY_REQUESTS:
            if hasattr(MemoryFileSystem, name):
                patch.setattr(MemoryFileSystem, name, counted(getattr(MemoryFileSystem, name)))
        patch.setattr(S3FileSystem, "_call_s3", counted_s3)
        yield


def killed_at_request(kill_at: int, action: Callable[..., object], *arguments: object) -> bool:
    """Do something until its n-th request; whether that was reached.

    From then on no request is made, so that what a live process would clean up stays.
    """

    def step(number: int) -> None:
        if number >= kill_at:
            raise KilledError

    with at_each_request(step):
        try:
            action(*arguments)
        except KilledError:
            return True
    return False


def failed_at_request(fail_at: int, action: Callable[..., object], *arguments: object) -> bool | None:
    """Do something of which the n-th request fails; whether it told so, None where it made fewer."""
    reached = False

    def step(number: int) -> None:
        nonlocal reached
        if number == fail_at:
            reached = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with at_each_request(step):
        try:
            action(*arguments)
        except OSError:
            return True
    return False if reached else None
