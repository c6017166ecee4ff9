"""Who asks for a run, for the record."""

import getpass
import os


def current_user() -> str:
    """Name who runs this process; a container may know no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
