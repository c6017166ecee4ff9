"""What all pages share: one HTML file that loads nothing, the colors and the marks of states."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> str:
    """Fill a template of this package; every text is escaped.

    Parameters
    ----------
    template
        Name of a file in `templates`; pages extend ``page.html``.
    values
        What it names; a name that is missing is an error.
    """
    return _PAGES.get_template(template).render(**values)
