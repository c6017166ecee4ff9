"""Files that were meant as images and hold none: empty, packed, or not in DICOM's file format.

A site sends reports and folders' indexes as well, and nobody needs to hear of those; what the site takes for
an image must not vanish among them.
"""

import re
from pathlib import Path

from storage.zipped import is_archive

_IMAGE_ENDING = re.compile(r"(?i).+\.(dcm|dicom|dic|ima)")
# Scanners also write IM_0001, I10, 00000001 or a UID without an ending; a marker or a text has no such name.
_IMAGE_NAME = re.compile(r"(?i)[a-z]{0,3}[_-]?\d+|\d+(\.\d+)+")
# Without preamble a data set begins with an element of group 0002 or 0008, explicit or implicit VR.
_BARE_DATASET = re.compile(rb"[\x02\x08]\x00[\x00-\x18]\x00([A-Z]{2}|.{2}\x00\x00)", re.DOTALL)


def why_no_image(path: Path, name: str) -> str | None:
    """Say what is wrong with a file without the DICOM prefix that was meant as an image; None for any other.

    Parameters
    ----------
    path
        Where it can be read.
    name
        What the site calls it; only its form is looked at.
    """
    own_name = name.rpartition("/")[2]
    if is_archive(own_name):
        return "is an archive inside of the upload; put its files into the upload themselves"
    with path.open("rb") as file:
        start = file.read(8)
    if not start and (_IMAGE_ENDING.fullmatch(own_name) or _IMAGE_NAME.fullmatch(own_name)):
        return "is empty (0 bytes), so it was not copied whole; send it again"
    if _BARE_DATASET.match(start):
        return "is DICOM without the preamble of a DICOM file; export it as a DICOM file (PS3.10)"
    if _IMAGE_ENDING.fullmatch(own_name):
        return "has the name of a DICOM file and is none, or is cut off at its start; send it again"
    return None
