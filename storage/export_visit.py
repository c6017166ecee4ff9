"""What of a visit's published result is exported, whatever the format: facts, maps, masks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

import numpy as np
import zarr
from jaxtyping import Bool, Float32

from storage.arrays import read_array, read_notes
from storage.dicom_series import EchoStack
from storage.digest import canonical_digest
from storage.geometry import StackGeometry
from storage.series_rules import ROLES, Role

Drawer = Literal["reader", "reader and network", "network"]

EXPORT_VERSION = 3
"""Raised by hand when an export of the same result comes out otherwise; older exports are then replaced."""

LOW_FIELD_BELOW_T = 2.25
"""Field strength below which windows are those of 1.5 T, halfway to 3 T [T]."""

EVEN_SPACING_MM = 0.01
"""Slices that lie further from where even steps put them are not evenly spaced [mm]."""

_GUIDE_NOT_USED = "guide_implausible"
"""Flag of a slice whose masks nothing was read from."""


@dataclass(frozen=True, slots=True)
class MapKind:
    """One kind of map."""

    name: str
    """Name of its files."""
    array: str
    """Array of the store."""
    role: Role
    """Series on whose pixels it lies."""
    quantity: str
    """``t1``, ``ecv`` or ``r_squared``."""
    unit: str
    """UCUM unit of the stored values."""
    meaning: str
    """What it shows."""
    windows: tuple[tuple[float, float], tuple[float, float]]
    """Lowest and highest value to show, in the same unit, at 1.5 T and at 3 T; pages have the same."""

    def window(self, field_strength_t: float | None) -> tuple[float, float]:
        """Values to show, fixed so that visits can be compared by eye; those of `window_field`."""
        return self.windows[window_field(field_strength_t) == "3 T"]


def window_field(field_strength_t: float | None) -> Literal["1.5 T", "3 T"]:
    """Name the field strength that windows are made for; the wider ones of 3 T where it is unknown."""
    is_low = field_strength_t is not None and field_strength_t < LOW_FIELD_BELOW_T
    return "1.5 T" if is_low else "3 T"


_T1_NATIVE = ((500.0, 1800.0), (600.0, 2200.0))
_T1_POST = ((150.0, 650.0), (150.0, 750.0))
_ECV = ((0.0, 1.0), (0.0, 1.0))
_R_SQUARED = ((0.8, 1.0), (0.8, 1.0))

MAPS = (
    MapKind("t1_native", "native/t1_ms", "native", "t1", "ms", "native T1", _T1_NATIVE),
    MapKind("t1_post", "post/t1_ms", "post", "t1", "ms", "post-contrast T1", _T1_POST),
    MapKind("ecv", "ecv_fraction", "native", "ecv", "1", "extracellular volume fraction", _ECV),
    MapKind(
        "r_squared_native",
        "native/r_squared",
        "native",
        "r_squared",
        "1",
        "R2 of the native T1 fit",
        _R_SQUARED,
    ),
    MapKind(
        "r_squared_post", "post/r_squared", "post", "r_squared", "1", "R2 of the post T1 fit", _R_SQUARED
    ),
)
"""Maps in the order they are exported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedVisit:
    """A visit with a published result: everything an export says besides the arrays.

    Nothing of it tells when the result was published: where dates are shifted, that would tell the real one.
    """

    trial_id: str
    """Trial."""
    subject_id: str
    """Pseudonym of the subject."""
    visit_id: str
    """Visit of the subject."""
    site_id: str
    """Site of the subject."""
    visit_date: date
    """Planned date, as the record gives it."""
    result_digest: str
    """Digest of the result, which names its arrays."""
    segment_digest: str
    """Digest of the stage that made the masks."""
    state: str
    """State of the visit."""
    qc_verdict: str | None
    """Verdict of the scan."""
    qc_reasons: tuple[str, ...]
    """Codes of the checks it rests on."""
    code_version: str
    """Version of the software that published the result."""
    scan: Mapping[str, Any]
    """Quantities of the scan, by column of the table ``scans``."""

    def facts(self) -> dict[str, Any]:
        """Give the same as JSON values."""
        scan = {
            name: value.isoformat() if isinstance(value, date) else value for name, value in self.scan.items()
        }
        return asdict(self) | {"visit_date": self.visit_date.isoformat(), "scan": scan}

    def digest(self, kind: str) -> str:
        """Digest of all that an export of a kind is made from."""
        return canonical_digest({"export": kind, "version": EXPORT_VERSION, **self.facts()})

    def moment(self, stack: EchoStack) -> datetime:
        """When a series was acquired; midnight of that day, or of the planned one, where no time is known."""
        if stack.acquired_at is not None:
            return stack.acquired_at
        return datetime.combine(stack.study_date or self.visit_date, datetime.min.time())


def segmentation_settings(store: zarr.Group) -> dict[str, Any]:
    """Read how the masks were made: method, weight of the guide, digests of the networks' weights.

    Stores of former versions do not say it: empty.
    """
    settings: Any = store.attrs.get("segmentation", {})
    return {name: value for name, value in settings.items() if value != ""}


def drawn_by(store: zarr.Group, role: Role) -> Drawer:
    """Say who drew the masks of a series; of a guide that another visit lends, who drew it there."""
    origins = {origin for origin in guide_origins(store, role) if origin is not None}
    lent = {note["source"]["origin"] for note in _guide_notes(store, role) if note and note.get("source")}
    if "reader" not in origins | lent:
        return "network"
    is_carried = segmentation_settings(store).get("method") == "carry"
    return "reader" if is_carried and origins == {"reader"} else "reader and network"


def guide_origins(store: zarr.Group, role: Role) -> tuple[str | None, ...]:
    """Read whose guide each slice was segmented with, ``reader``, ``model``, ``baseline``; None for none."""
    return tuple(None if note is None else str(note["origin"]) for note in _guide_notes(store, role))


def _guide_notes(store: zarr.Group, role: Role) -> Sequence[Mapping[str, Any] | None]:
    """Read what is known of the guide of each slice."""
    notes: Sequence[Mapping[str, Any] | None] = read_notes(store, f"{role}/guide").get("guides", ())
    return notes


def is_even(geometry: StackGeometry) -> bool:
    """Whether the slices lie on even steps from the first to the last one."""
    positions = np.asarray(geometry.positions_mm)
    even = np.linspace(positions[0], positions[-1], len(positions))
    return bool(np.abs(positions - even).max() <= EVEN_SPACING_MM)


def read_map(store: zarr.Group, kind: MapKind) -> Float32[np.ndarray, "slice row col"] | None:
    """Read a map; NaN where it has no value, None where it has none at all."""
    values = read_array(store, kind.array)
    return None if values is None or not np.isfinite(values).any() else values.astype(np.float32)


def left_out(store: zarr.Group, quantity: str, role: Role) -> dict[int, tuple[str, ...]]:
    """Say which slices the scan's mean of a quantity leaves out, and by which checks or reader's decisions.

    Parameters
    ----------
    store
        Store of the result.
    quantity
        ``ecv``, or one of the role's own.
    role
        Series on whose pixels it lies.

    Returns
    -------
        Codes of what failed the slice itself, by its index; none where it only lacks a value, or where the
        slice that lends its blood is left out.
    """
    rows: Any = store.attrs["rows"]
    column = "used_ecv" if quantity == "ecv" else f"used_{role}"
    roles = (None, *ROLES) if quantity == "ecv" else (None, role)
    failed = [flag for flag in rows["flags"] if flag["severity"] == "fail" and flag["role"] in roles]
    return {
        index: tuple(sorted({flag["code"] for flag in failed if flag["slice_index"] == index}))
        for index, row in enumerate(rows.get("slices", ()))
        if row.get(column) is False
    }


def read_masks(store: zarr.Group, role: Role) -> Bool[np.ndarray, "label slice row col"] | None:
    """Read the masks on each slice's reference echo, where the maps lie; None where there are none.

    Slices whose guide was refused have none, as nothing was read from them.
    """
    masks, reference = read_array(store, f"{role}/masks"), read_array(store, f"{role}/reference_echo")
    if masks is None or reference is None:
        return None
    on_reference = masks[:, np.arange(len(reference)), reference].astype(bool)
    rows: Any = store.attrs["rows"]
    for flag in rows["flags"]:
        if flag["code"] == _GUIDE_NOT_USED and flag["role"] == role:
            on_reference[:, flag["slice_index"]] = False
    return on_reference if on_reference.any() else None
