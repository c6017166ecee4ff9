"""Pages of reports over HTTP."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.errors import ServerNotStartedError
from flows.reports_server import reports_server


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Server of one trial's pages."""
    pages = tmp_path / "trial" / "reports"
    (pages / "S 1").mkdir(parents=True)
    (pages / "index.html").write_text("<p>trial</p>")
    (pages / "S 1" / "V1.html").write_text("<p>visit</p>")
    (tmp_path / "trial" / "subjects.csv").write_text("secret")
    (pages / "link.html").symlink_to(tmp_path / "trial" / "subjects.csv")
    with reports_server({"demo": pages}, 0) as url:
        yield url


def get(url: str, path: str, method: str = "GET") -> tuple[int, str]:
    """Ask for a path as it stands, which other clients would tidy up."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    status, body = answer.status, answer.read().decode()
    connection.close()
    return status, body


def test_pages_are_given_out(url: str) -> None:
    """Quoted names and the trial's own page."""
    assert get(url, "/demo/index.html") == (200, "<p>trial</p>")
    assert get(url, "/demo/") == (200, "<p>trial</p>")
    assert get(url, "/demo/S%201/V1.html?x=1") == (200, "<p>visit</p>")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/other/index.html",
        "/demo/../subjects.csv",
        "/demo/%2e%2e/subjects.csv",
        "/demo/..%2fsubjects.csv",
        "/demo//etc/passwd",
        "/demo/%2fetc%2fpasswd",
        "/demo/link.html",
        "/demo/S%201/",
        "/demo/%00",
    ],
)
def test_nothing_else_is(url: str, path: str) -> None:
    """The folder above holds the plan, and names of patients beside it."""
    status, body = get(url, path)
    assert status == 404
    assert "secret" not in body


def test_nothing_can_be_written(url: str) -> None:
    """It is for reading."""
    assert get(url, "/demo/index.html", "PUT")[0] == 501


def test_a_port_in_use_is_named(url: str) -> None:
    """Whoever serves a second time must see what to change."""
    port = int(url.rpartition(":")[2])
    with pytest.raises(ServerNotStartedError, match=f"port {port} for the reports is in use"):
        reports_server({}, port).__enter__()
