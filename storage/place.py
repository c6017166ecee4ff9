"""Where a trial lies: in a folder, or on an object store that fsspec reaches (``s3://bucket/trial``).

A folder is a `pathlib.Path`, and all is as the file system has it. A URL is a `upath.UPath`, which has most
of the methods of one; what an object store lacks (rename, links, locks) `storage.objects` and `storage.lease`
make up for. ``isinstance(root, Path)`` tells the two apart.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import ConfigError

if TYPE_CHECKING:
    from upath import UPath

    Place = Path | UPath
else:
    Place = Path  # to import upath takes a tenth of a second, and few trials have a URL

PROTOCOLS = ("s3", "memory")
"""Stores that make an object only if there is none of its name, which locks rest on; memory is for tests."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")


def to_place(root: "str | Place") -> "Place":
    """Give a folder with its full path, or what a URL names.

    Raises
    ------
    ConfigError
        If the URL is of a store that cannot hold a trial, or its package is not installed.
    """
    if not (found := _URL.fullmatch(str(root))):
        # Files are read by processes with another working directory.
        return Path(str(root)).resolve()
    protocol, path = found[1].lower(), found[2].strip("/")
    if protocol not in PROTOCOLS or not path:
        known = " or ".join(f"{name}://BUCKET/TRIAL" for name in PROTOCOLS)
        message = f"{root}: a trial lies in a folder, or under a URL of the form {known}"
        raise ConfigError(message)
    try:
        from upath import UPath

        # A listing that fsspec remembers is blind for what other machines write.
        place = UPath(f"{protocol}://{path}", use_listings_cache=False)
        place.fs  # noqa: B018 (what reaches the store is imported here)
    except ImportError as error:
        message = f"{root}: a trial on {protocol} needs packages: pip install 'cmrtrials[s3]' ({error})"
        raise ConfigError(message) from None
    return place


def relative_name(place: "Place", root: "Place") -> str:
    """Name a place within a root, as in ``tables/scans``."""
    return place.as_posix()[len(root.as_posix()) :].strip("/")


def local_folder(root: "Place", what: str) -> Path:
    """Give a trial's folder.

    Raises
    ------
    ConfigError
        If the trial lies on an object store, where ``what`` does not work.
    """
    if isinstance(root, Path):
        return root
    message = (
        f"{what} needs a trial in a local folder, {root} is on an object store; copy the trial to a folder"
    )
    raise ConfigError(message)
