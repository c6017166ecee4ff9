"""What every page must hold to."""

import pytest
from jinja2 import UndefinedError

from tasks.report.shell import render


def test_a_page_may_load_nothing() -> None:
    """Forbid every load but pictures that the page holds itself."""
    page = render("page.html", title="a trial", version="1")

    assert "default-src 'none'; img-src data:" in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_name_is_text_whatever_it_looks_like() -> None:
    """Escape what a table says."""
    page = render("page.html", title="<script>alert(1)</script>", version="1")

    assert "<title>&lt;script&gt;" in page


def test_a_missing_value_is_an_error() -> None:
    """Show no page with a hole."""
    with pytest.raises(UndefinedError, match="version"):
        render("page.html", title="a trial")
