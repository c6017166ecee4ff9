"""The pages of trials over HTTP on loopback: a browser follows no file link from the Prefect UI."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from flows.errors import ServerNotStartedError


@contextmanager
def reports_server(folders: Mapping[str, Path], port: int) -> Iterator[str]:
    """Hand out folders of pages for the time of the context.

    Nothing is listed, nothing outside of the folders is given out, and nothing can be written.

    Parameters
    ----------
    folders
        Folder of the pages of each trial; it may come later.
    port
        Port on 127.0.0.1; 0 for any.

    Yields
    ------
        URL of the server; the pages of trial T begin with it and ``/T/``.

    Raises
    ------
    ServerNotStartedError
        When the port is in use.
    """

    class Handler(_Handler):
        trials = folders

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError:
        message = f"port {port} for the reports is in use; choose another with --port (reports take the next)"
        raise ServerNotStartedError(message) from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(SimpleHTTPRequestHandler):
    """Gives out files of known trials."""

    trials: Mapping[str, Path]

    def send_head(self) -> BinaryIO | None:
        file = self._file()
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND, "No such page; a night writes the pages of its visits")
            return None
        content = file.open("rb")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(str(file)))
        self.send_header("Content-Length", str(file.stat().st_size))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        return content

    def _file(self) -> Path | None:
        """Find what the address names, if it is a file below the pages of a trial."""
        trial_id, *parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if trial_id not in self.trials:
            return None
        folder = self.trials[trial_id].resolve()
        try:
            file = folder.joinpath(*(parts or ["index.html"])).resolve()
        except (ValueError, OSError):  # a null byte, a loop of links
            return None
        return file if file.is_relative_to(folder) and file.is_file() else None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the addresses are pseudonyms, and nobody reads them."""
