"""An S3 server on loopback, and trials on it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zarr.core.sync
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

BUCKET = "cmrtrials-test"


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3 from memory to this process and those it starts; yields the URL of an empty bucket."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # The server takes any; without some the client asks the network for them.
        environment.setenv("AWS_ACCESS_KEY_ID", "any")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "any")
        S3FileSystem.clear_instance_cache()
        S3FileSystem().mkdir(BUCKET)
        try:
            yield f"s3://{BUCKET}"
        finally:
            _close_sessions()
            S3FileSystem.clear_instance_cache()
            server.stop()


def _close_sessions() -> None:
    """Close connections that would warn when they are collected: ours, and those in Zarr's event loop."""
    for system in list(S3FileSystem._cache.values()):
        loop = zarr.core.sync.loop[0] if system.asynchronous else system.loop
        if system._s3 is not None and loop is not None:
            asyncio.run_coroutine_threadsafe(system._s3.__aexit__(None, None, None), loop).result(10)
