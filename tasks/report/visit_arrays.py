"""What a page shows of a visit's stored arrays, role by role and slice by slice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zarr

from cmrcore.quantify.wall import erode_wall
from cmrcore.registration.align import resample
from cmrcore.registration.warp import chain, warp
from cmrcore.segmentation import LABELS
from storage.arrays import read_array, read_notes, read_stack
from storage.dicom_series import EchoStack

Array = np.ndarray[Any, Any]

MYOCARDIUM, BLOOD, RV = (LABELS.index(name) for name in ("myocardium", "blood_pool", "rv"))


@dataclass(frozen=True, slots=True)
class SliceArrays:
    """One slice of one role; masks are all False where the slice has none."""

    role: str
    """``native`` or ``post``."""
    index: int
    """Index of the slice."""
    level: str
    """Level of the slice."""
    ti_ms: Array
    """Inversion times [ms]."""
    acquisition_index: Array
    """Order of acquisition, 0 first."""
    reference: int
    """Echo that the guide was drawn on and the others are aligned to."""
    echoes: Array
    """Magnitudes as acquired, ``[ti, row, col]`` [a.u.]."""
    displacement_px: Array
    """Where in the acquired echo a pixel of the aligned one lies, minus the pixel, ``[ti, 2, row, col]``."""
    guide: Array
    """Guide, ``[label, row, col]``."""
    masks: Array
    """Masks on every echo as acquired, ``[label, ti, row, col]``."""
    t1_ms: Array
    """T1 map, NaN where the fit failed [ms]."""
    r_squared: Array
    """R2 map, NaN where the fit failed."""
    guide_note: dict[str, Any] | None
    """What segmentation noted of the guide."""
    spacing_mm: tuple[float, float]
    """Distance of rows and columns [mm]."""

    @property
    def is_moved(self) -> bool:
        """Whether alignment moved any echo."""
        return bool(self.displacement_px.any())

    @property
    def has_masks(self) -> bool:
        """Whether the slice shows a myocardium on its reference echo."""
        return bool(self.reference_masks[MYOCARDIUM].any())

    @property
    def reference_masks(self) -> Array:
        """Masks on the reference echo, on which the maps lie, ``[label, row, col]``."""
        masks: Array = self.masks[:, self.reference]
        return masks

    def aligned_echoes(self, onto_px: Array | None = None) -> torch.Tensor:
        """Echoes on the pixels of the reference echo, as they were fitted; ``onto_px`` leads on."""
        return resample(torch.from_numpy(self.echoes), self._displacement(onto_px))

    def aligned_masks(self) -> Array:
        """Masks of every echo on the pixels of the reference echo, ``[label, ti, row, col]``."""
        if not self.is_moved:
            return self.masks
        masks = torch.from_numpy(self.masks.swapaxes(0, 1).astype(np.float32))
        return (warp(masks, self._displacement(None)) > 0.5).numpy().swapaxes(0, 1)

    def read_myocardium(self, erosion_mm: float) -> Array:
        """Myocardium of the reference echo away from its borders, in which statistics are read."""
        wall, pool = (torch.from_numpy(self.reference_masks[label]) for label in (MYOCARDIUM, BLOOD))
        return erode_wall(wall, pool, erosion_mm, self.spacing_mm).numpy()

    def _displacement(self, onto_px: Array | None) -> torch.Tensor:
        aligned = torch.from_numpy(self.displacement_px.astype(np.float32))
        if onto_px is None:
            return aligned
        onto = torch.from_numpy(onto_px.astype(np.float32))
        return chain(aligned, onto.expand(len(aligned), -1, -1, -1))


@dataclass(frozen=True, slots=True)
class VisitArrays:
    """Everything that a page shows of a visit's store."""

    stacks: dict[str, EchoStack]
    """Echo stacks by role."""
    slices: dict[str, tuple[SliceArrays, ...]]
    """Slices by role, from base to apex."""
    segments: Array
    """AHA segments on native pixels, 0 elsewhere, ``[slice, row, col]``."""
    ecv_fraction: Array | None
    """ECV on native pixels; None where there is none."""
    onto_native_px: Array | None
    """Where in the post-contrast reference a native pixel lies, minus the pixel; NaN in slices apart."""

    def find(self, role: str, index: int) -> SliceArrays | None:
        """Give a role's slice; None where the role has none of this index."""
        of_role = self.slices.get(role, ())
        return of_role[index] if index < len(of_role) else None

    @property
    def n_slices(self) -> int:
        """Slices of the role that has more of them."""
        return max(map(len, self.slices.values()))


def read_visit(store: zarr.Group, roles: tuple[str, ...]) -> VisitArrays:
    """Read a result's store."""
    stacks = {role: read_stack(store, role) for role in roles}  # type: ignore[arg-type]
    native = stacks["native"]
    segments = read_array(store, "aha_segment")
    return VisitArrays(
        stacks=stacks,
        slices={role: _read_slices(store, stack) for role, stack in stacks.items()},
        segments=np.zeros(native.echoes[:, 0].shape, np.uint8) if segments is None else segments,
        ecv_fraction=read_array(store, "ecv_fraction"),
        onto_native_px=read_array(store, "post/onto_native_px"),
    )


def _read_slices(store: zarr.Group, stack: EchoStack) -> tuple[SliceArrays, ...]:
    role = stack.role
    n_slices, n_ti, n_rows, n_cols = stack.echoes.shape
    empty = np.zeros((len(LABELS), n_slices, n_ti, n_rows, n_cols), dtype=bool)
    guide, masks, reference, displacement = (
        read_array(store, f"{role}/{name}")
        for name in ("guide", "masks", "reference_echo", "displacement_px")
    )
    masks = empty if masks is None else masks
    guide = empty[:, :, 0] if guide is None else guide
    reference = stack.acquisition_index.argmin(1) if reference is None else reference
    if displacement is None:
        displacement = np.zeros((n_slices, n_ti, 2, n_rows, n_cols), dtype=np.float16)
    maps = {}
    for name in ("t1_ms", "r_squared"):
        stored = read_array(store, f"{role}/{name}")
        maps[name] = np.full((n_slices, n_rows, n_cols), np.nan, np.float32) if stored is None else stored
    notes = read_notes(store, f"{role}/guide").get("guides") or [None] * n_slices
    return tuple(
        SliceArrays(
            role=role,
            index=index,
            level=stack.levels[index],
            ti_ms=stack.ti_ms[index],
            acquisition_index=stack.acquisition_index[index],
            reference=int(reference[index]),
            echoes=stack.echoes[index],
            displacement_px=displacement[index],
            guide=guide[:, index],
            masks=masks[:, index],
            t1_ms=maps["t1_ms"][index],
            r_squared=maps["r_squared"][index],
            guide_note=notes[index],
            spacing_mm=stack.pixel_spacing_mm,
        )
        for index in range(n_slices)
    )
