"""Masks of the base network on images of people that no network has learned from.

`python -m tests.benchmarks.segmentation_real` scores the development patients; ``--test`` the others, which
is done once for each release and never for a choice. Beside the Dice stands that of the same masks grown by a
pixel, and how much of the outermost two pixels of what the reader drew is darker than halfway between blood
and wall: the readers of this set drew outside the visible blood. ``--export FOLDER`` writes the development
patients as labelled images, by which `cmrtrials train base --development FOLDER` chooses weights.
"""

import argparse
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import torch
from jaxtyping import Bool, Float
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from cmrcore.quantify.overlap import dice
from cmrcore.segmentation.contours import masks_from
from cmrcore.segmentation.infer import look_twice
from cmrcore.segmentation.networks import network_from
from cmrcore.segmentation.unet import UNet
from storage.labelled import IMAGE_SUFFIX, LABEL_VALUES, MASK_SUFFIX

SPACING_MM = (1.3, 1.3)
"""Of the Sunnybrook images, which come without headers: 256 pixels of a field of view of about 330 mm."""
DEVELOPMENT_STEP = 3
"""Every third patient, by name and from the first, is for development."""
_BATCH = 32
_RIM_PIXELS = 2


@dataclass(frozen=True, slots=True)
class Drawn:
    """An image and the LV cavity that a reader drew."""

    patient: str
    image: Float[Tensor, "row col"]
    blood_pool: Bool[Tensor, "row col"]


def real_data() -> Path:
    """Folder of the real data."""
    return Path(os.environ.get("CMRTRIALS_REAL_DATA", "../shared/data"))


def read_sunnybrook(*, test: bool) -> Iterator[Drawn]:
    """Read the development patients' images, or the test patients'."""
    files = sorted((real_data() / "sunnybrook" / "Images").rglob("*.png"))
    if not files:
        message = "no images sunnybrook/Images/*.png: set CMRTRIALS_REAL_DATA to the folder of the real data"
        raise FileNotFoundError(message)
    patients = sorted({_patient(file) for file in files})
    development = set(patients[::DEVELOPMENT_STEP])
    for file in files:
        if (_patient(file) not in development) == test:
            label = Path(str(file).replace("/Images/", "/Labels/"))
            yield Drawn(_patient(file), _gray(file), _gray(label) > 127)


def _patient(file: Path) -> str:
    return file.name.partition("-IM-")[0]


def _gray(file: Path) -> Float[Tensor, "row col"]:
    return torch.from_numpy(np.asarray(Image.open(file).convert("L"), dtype=np.float32))


@dataclass(frozen=True, slots=True)
class Score:
    """How the LV cavity of one image agrees with what its reader drew."""

    dice: float
    """Of the mask as the networks' user gets it."""
    grown_dice: float
    """Of the mask grown by one pixel."""
    dark_share: float
    """Share of the outermost two pixels of the reader's cavity that is darker than halfway between blood and
    wall; NaN where no wall or hardly a cavity was found."""


def sunnybrook_scores(base: UNet, drawn: list[Drawn]) -> list[Score]:
    """Compare the LV cavity on each image with what its reader drew."""
    scores = []
    for start in range(0, len(drawn), _BATCH):
        part = drawn[start : start + _BATCH]
        said = look_twice(base, torch.stack([one.image for one in part]), SPACING_MM)
        for one, probability in zip(part, said, strict=True):
            wall, cavity = masks_from(probability, SPACING_MM)[:2]
            grown = torch.from_numpy(binary_dilation(cavity.numpy()))
            found = dice(cavity, one.blood_pool) or 0.0
            score = Score(found, dice(grown, one.blood_pool) or 0.0, _dark_share(one, wall, cavity))
            scores.append(score)
    return scores


def _dark_share(drawn: Drawn, wall: Bool[Tensor, "row col"], cavity: Bool[Tensor, "row col"]) -> float:
    """Share of the rim of the reader's cavity that looks like wall."""
    inside = torch.from_numpy(binary_erosion(cavity.numpy(), iterations=_RIM_PIXELS))
    rim = drawn.blood_pool & ~torch.from_numpy(
        binary_erosion(drawn.blood_pool.numpy(), iterations=_RIM_PIXELS)
    )
    if not (inside.any() and wall.any() and rim.any()):
        return math.nan
    halfway = (drawn.image[inside].median() + drawn.image[wall].median()) / 2
    return float((drawn.image[rim] < halfway).float().mean())


def short_axis_dice(base: UNet) -> dict[str, float]:
    """Dice of LV wall and cavity and of the RV on the one labeled DICOM slice."""
    folder = real_data() / "short-axis-slice"
    image = pydicom.dcmread(folder / "test_slice.dcm")
    pixels = torch.from_numpy(image.pixel_array.astype(np.float32))
    spacing_mm = (float(image.PixelSpacing[0]), float(image.PixelSpacing[1]))
    values = nibabel.Nifti1Image.from_filename(folder / "mask.nii.gz").get_fdata().squeeze().T
    masks = masks_from(look_twice(base, pixels[None], spacing_mm)[0], spacing_mm)
    truth = {"wall": (0, 2), "cavity": (1, 3), "rv": (2, 1)}
    return {
        name: dice(masks[label], torch.from_numpy(values == value)) or 0.0
        for name, (label, value) in truth.items()
    }


def export(folder: Path, drawn: Iterable[Drawn]) -> int:
    """Write images and cavities as `storage.labelled` reads them; give their number."""
    written: Counter[str] = Counter()
    affine = np.diag([*SPACING_MM[::-1], 1.0, 1.0])
    for one in drawn:
        written[one.patient] += 1
        own = folder / one.patient
        own.mkdir(parents=True, exist_ok=True)
        cavity = LABEL_VALUES.blood_pool * one.blood_pool.numpy().astype(np.uint8)
        for values, suffix in ((one.image.numpy(), IMAGE_SUFFIX), (cavity, MASK_SUFFIX)):
            image = nibabel.Nifti1Image(values.T[:, :, None], affine)  # type: ignore[no-untyped-call]
            image.to_filename(own / f"{written[one.patient]:03d}{suffix}")
    return written.total()


def main() -> None:
    """Print the scores, or write the development patients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("cmrcore/weights/base.safetensors"))
    parser.add_argument("--test", action="store_true", help="score the test patients")
    parser.add_argument("--export", type=Path, help="folder for the development patients as labelled images")
    chosen = parser.parse_args()
    if chosen.export is not None:
        n_images = export(chosen.export, read_sunnybrook(test=False))
        Console().print(f"{n_images} images of the development patients written")
        return
    base = network_from(load_file(chosen.weights))
    drawn = list(read_sunnybrook(test=chosen.test))
    scores = np.array([astuple(score) for score in sunnybrook_scores(base, drawn)])
    title = f"{'test' if chosen.test else 'development'} patients, Dice of the LV cavity"
    grown = ("grown: mean", "grown: median")
    table = Table("patient", "images", "mean", "median", "lowest", *grown, "dark rim", title=title)
    patients = np.array([one.patient for one in drawn])
    for patient in [*sorted(set(patients)), "all"]:
        own, larger, dark = (scores if patient == "all" else scores[patients == patient]).T
        figures = (
            own.mean(),
            np.median(own),
            own.min(),
            larger.mean(),
            np.median(larger),
            np.nanmedian(dark),
        )
        table.add_row(str(patient), str(len(own)), *(f"{figure:.3f}" for figure in figures))
    console = Console(width=max(100, Console().width))
    console.print(table)
    short_axis = short_axis_dice(base)
    console.print("short-axis slice, Dice:", {name: round(value, 3) for name, value in short_axis.items()})


if __name__ == "__main__":
    main()
