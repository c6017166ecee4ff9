"""Colors of quantitative maps: which table, over which window, and how values are looked up.

T1 maps use lipari with the look-up recommended for relaxometry: logarithmic in the value above ``upper / e``,
linear below, black only where there is no value. ECV and R2 are no relaxation times; they are looked up
linearly, in tables of their own, so that nobody takes one map for another.

References
----------
Fuderer et al. 2025, Magn Reson Med 93:490, doi:10.1002/mrm.30290
Crameri et al. 2020, Nat Commun 11:5444, doi:10.1038/s41467-020-19160-7
"""

import math
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

N_COLORS = 256

_FIELDS_BORDER_T = 2.25
"""Halfway between 1.5 T and 3 T."""


@dataclass(frozen=True, slots=True)
class ColorScale:
    """How the values of a map become colors."""

    table: str
    """Name of the table in cmcrameri."""
    spacing: Literal["logarithmic", "linear"]
    """How values are spread over the table; logarithmic with a linear toe, see `log_share`."""
    lower: float
    """Value of the first color; what lies below has it, too."""
    upper: float
    """Value of the last color; what lies above has it, too."""
    unit: str
    """Unit of the window as it is written."""
    per_unit: float = 1.0
    """What a stored value is multiplied by to be in that unit."""
    n_decimals: int = 0
    """Decimals with which its values are written."""

    def indices(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Entry of the table for each value: 0 (black) where there is none, else 1 to 255."""
        shown = np.asarray(values, dtype=np.float64) * self.per_unit
        valid = np.isfinite(shown)
        clipped = np.clip(np.where(valid, shown, self.lower), self.lower, self.upper)
        if self.spacing == "logarithmic":
            share = log_share(clipped, self.lower, self.upper)
        else:
            share = (clipped - self.lower) / (self.upper - self.lower)
        entries = 1 + np.minimum(np.floor(share * (N_COLORS - 1)), N_COLORS - 2)
        return np.where(valid, entries, 0).astype(np.uint8)

    def colors(self) -> np.ndarray[Any, Any]:
        """Red, green and blue of every entry, ``[256, 3]``; the first is black, which says: no value."""
        return color_table(self.table)

    def css(self, value: float | None) -> str:
        """Color of one value, as CSS writes it; black where there is none."""
        red, green, blue = self.colors()[int(self.indices(np.array(np.nan if value is None else value)))]
        return f"#{red:02x}{green:02x}{blue:02x}"

    def text(self, value: float | None) -> str:
        """Write a value in the scale's unit, without the unit."""
        return "-" if value is None or math.isnan(value) else f"{value * self.per_unit:.{self.n_decimals}f}"

    def words(self) -> str:
        """Say window and look-up, as it stands beside a map."""
        decimals = 0 if self.upper >= 10 else 2
        table = self.table.replace("_r", " reversed")
        window = f"{self.lower:.{decimals}f} to {self.upper:.{decimals}f} {self.unit}"
        return f"{table}, {self.spacing}, {window}".rstrip()


ECV = ColorScale("batlow", "linear", 0.0, 100.0, "%", per_unit=100.0, n_decimals=1)
"""Fixed for all visits; amyloid hearts and blood (58 % at a hematocrit of 0.42) lie within it."""
R_SQUARED = ColorScale("lapaz_r", "linear", 0.8, 1.0, "", n_decimals=3)
"""Fixed for all visits; what was badly fitted is bright, myocardium of a good fit lies above 0.95."""
T1_WINDOWS_MS = {
    ("native", "1.5 T"): (500.0, 1800.0),
    ("native", "3 T"): (600.0, 2200.0),
    ("post", "1.5 T"): (150.0, 650.0),
    ("post", "3 T"): (150.0, 750.0),
}
"""Fixed for all visits of a role at a field strength: myocardium, edema and blood lie within [ms]."""


def t1_scale(role: str, field_strength_t: float | None) -> tuple[ColorScale, str]:
    """Scale of a role's T1 maps, and the field strength that its window is made for.

    An unknown field strength has the window of 3 T, which is the wider one.
    """
    field = "1.5 T" if field_strength_t is not None and field_strength_t < _FIELDS_BORDER_T else "3 T"
    return ColorScale("lipari", "logarithmic", *T1_WINDOWS_MS[role, field], "ms"), field


def log_share(values: np.ndarray[Any, Any], lower: float, upper: float) -> np.ndarray[Any, Any]:
    """Share of a table, 0-1, at which values within a window are looked up.

    Proportional to the logarithm from ``upper / e`` upwards, to the value below, with the same slope where
    both meet. A window that begins above ``upper / e`` has no linear part.

    Parameters
    ----------
    values
        From ``lower`` to ``upper``.
    lower, upper
        Window; ``upper > lower >= 0``.

    References
    ----------
    Fuderer et al. 2025, Magn Reson Med 93:490, doi:10.1002/mrm.30290
    """
    knee = upper / math.e
    begins = max(knee, lower)
    toe = (knee - lower) / (2 * knee - lower) if knee > lower else 0.0
    share_of_log = np.log(np.maximum(values, begins) / begins) / math.log(upper / begins)
    above: np.ndarray[Any, Any] = toe + (1 - toe) * share_of_log
    if not toe:
        return above
    return np.where(values > knee, above, toe * (values - lower) / (knee - lower))


@cache
def color_table(name: str) -> np.ndarray[Any, Any]:
    """Table of cmcrameri as bytes, ``[256, 3]``, its first entry black: that color means no value.

    ``_r`` after a name turns the table round. Read from the package's file: its module would load pyplot.
    """
    spec = find_spec("cmcrameri")
    if spec is None or not spec.submodule_search_locations:
        message = "cmcrameri, which holds the color tables, is not installed; set up the environment again"
        raise ModuleNotFoundError(message)
    file = Path(spec.submodule_search_locations[0]) / "cmaps" / f"{name.removesuffix('_r')}.txt"
    table = np.rint(255 * np.loadtxt(file)).astype(np.uint8)
    if name.endswith("_r"):
        table = table[::-1].copy()
    table[0] = 0
    return table
