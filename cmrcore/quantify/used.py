"""Which slices a scan's means rest on: what failed its checks stays in its row, and out of the means."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from cmrcore.quantify.qc import Flag
from cmrcore.quantify.records import Role
from cmrcore.quantify.regional import EcvMaps
from cmrcore.quantify.role import RoleMeasurement

Mean = Literal["native", "post", "ecv"]
"""What is averaged over slices."""


def used_slices(
    roles: dict[Role, RoleMeasurement | None], ecv: EcvMaps | None, flags: list[Flag]
) -> dict[Mean, tuple[int, ...]]:
    """Slices that each mean of the scan rests on: with a mask, and without a flag that says ``fail``.

    A role that failed takes its own mean and that of ECV, there and where its blood serves another slice; a
    flag about both roles takes that of ECV.
    """
    failed = {(flag.role, flag.slice_index) for flag in flags if flag.severity == "fail"}
    used: dict[Mean, tuple[int, ...]] = {}
    for role, one in roles.items():
        masks = torch.zeros(0, 1, 1, dtype=torch.bool) if one is None else one.maps.myocardium
        used[role] = tuple(index for index in _present(masks) if (role, index) not in failed)
    used["ecv"] = (
        ()
        if ecv is None
        else tuple(
            index
            for index in _present(ecv.myocardium)
            if not failed
            & {(role, at) for role in ("native", "post") for at in (index, ecv.blood_slice[index])}
            and (None, index) not in failed
        )
    )
    return used


def leave_out(
    roles: dict[Role, RoleMeasurement | None], ecv: EcvMaps | None, used: dict[Mean, tuple[int, ...]]
) -> tuple[dict[Role, RoleMeasurement | None], EcvMaps | None]:
    """Measurements of the slices that a scan's means rest on; the others are without myocardium and blood."""
    kept: dict[Role, RoleMeasurement | None] = {}
    for role, one in roles.items():
        if one is None:
            kept[role] = None
            continue
        maps = replace(
            one.maps,
            myocardium=_only(one.maps.myocardium, used[role]),
            segments=torch.where(_only(one.maps.myocardium, used[role]), one.maps.segments, 0),
        )
        blood = tuple(fit if index in used[role] else None for index, fit in enumerate(one.blood))
        whole = torch.stack([_only(masks, used[role]) for masks in one.reference_masks])
        kept[role] = replace(one, maps=maps, blood=blood, reference_masks=whole)
    if ecv is not None:
        ecv = replace(ecv, myocardium=_only(ecv.myocardium, used["ecv"]))
    return kept, ecv


def _present(masks: Bool[Tensor, "slice row col"]) -> list[int]:
    """Slices that have a mask."""
    return [index for index, mask in enumerate(masks) if bool(mask.any())]


def _only(masks: Bool[Tensor, "slice row col"], slices: tuple[int, ...]) -> Bool[Tensor, "slice row col"]:
    """Masks of some slices, none of the others."""
    kept = torch.zeros_like(masks)
    kept[list(slices)] = masks[list(slices)]
    return kept
