"""Mean signals of blood and of AHA segments over stored masks, with the curves fitted to these few means."""

from dataclasses import dataclass

import numpy as np
import torch

from cmrcore.quantify.aha import AHA_NAMES, present_segments
from cmrcore.quantify.blood import blood_pixels, blood_t1, erode_mask
from cmrcore.relaxation import FitStatus, T1Fit, fit_t1, region_curves
from storage.config_quantify import QuantifyConfig
from tasks.report.visit_arrays import BLOOD, Array, SliceArrays


@dataclass(frozen=True, slots=True)
class Curve:
    """Mean signal of a region and the recovery fitted to it."""

    name: str
    """Blood, or the name of a segment."""
    aha_segment: int | None
    """Number of the segment; None for blood."""
    ti_ms: Array
    """Inversion times [ms]."""
    signal: Array
    """Mean signals, with the sign that the fitted curve has there [a.u.]."""
    left_out: tuple[int, ...]
    """Echoes that the fit left out."""
    a: float
    """Amplitude A of A - B exp(-TI / T1*) [a.u.]."""
    b: float
    """Amplitude B [a.u.]."""
    t1_star_ms: float
    """Apparent recovery time [ms]."""
    t1_ms: float
    """T1 of the mean signal [ms]."""

    def at(self, ti_ms: Array) -> Array:
        """Fitted signal at inversion times [ms]."""
        fitted: Array = self.a - self.b * np.exp(-ti_ms / self.t1_star_ms)
        return fitted


def blood_curve(one: SliceArrays, echoes: torch.Tensor, config: QuantifyConfig) -> Curve | None:
    """Curve of a slice's blood, from the pixels that its blood T1 rests on; None without any.

    Parameters
    ----------
    one
        The slice.
    echoes
        Its aligned echoes, ``[ti, row, col]``.
    config
        How blood is read.
    """
    pool = torch.from_numpy(one.reference_masks[BLOOD])
    eroded = erode_mask(pool, config.blood_erosion_mm, one.spacing_mm)
    pixels = blood_pixels(torch.from_numpy(one.t1_ms), eroded)
    if not bool(pixels.any()):
        return None
    found = blood_t1(echoes, pixels.expand(len(echoes), -1, -1), one.ti_ms.tolist(), model=config.t1_model)
    if found is None:
        return None
    mean = region_curves(echoes, pixels[None])[:, 0]
    return _curve("blood", None, one.ti_ms, mean, found.fit, found.left_out)


def segment_curves(
    ti_ms: Array, echoes: torch.Tensor, segments: Array, config: QuantifyConfig
) -> list[Curve]:
    """Curves of the AHA segments of a slice, all fitted at once.

    Parameters
    ----------
    ti_ms
        Inversion times [ms].
    echoes
        Aligned echoes on the pixels of the segments, ``[ti, row, col]``.
    segments
        Segment of each pixel that is read, 0 elsewhere.
    config
        Model of the fit.
    """
    labels = torch.from_numpy(segments)
    numbers = present_segments(labels)
    if not numbers:
        return []
    means = region_curves(echoes, torch.stack([labels == number for number in numbers]))
    fit = fit_t1(means, ti_ms.tolist(), model=config.t1_model)
    curves = []
    for column, number in enumerate(numbers):
        of_segment = T1Fit(**{name: getattr(fit, name)[column] for name in T1Fit.__slots__})
        curve = _curve(AHA_NAMES[number], number, ti_ms, means[:, column], of_segment, ())
        if curve is not None:
            curves.append(curve)
    return curves


def _curve(
    name: str,
    aha_segment: int | None,
    ti_ms: Array,
    mean: torch.Tensor,
    fit: T1Fit,
    left_out: tuple[int, ...],
) -> Curve | None:
    """Curve of one fit; None where it failed."""
    if int(fit.status) != FitStatus.OK:
        return None
    curve = Curve(
        name=name,
        aha_segment=aha_segment,
        ti_ms=ti_ms,
        signal=mean.abs().numpy(),
        left_out=left_out,
        a=fit.a.item(),
        b=fit.b.item(),
        t1_star_ms=fit.t1_star_ms.item(),
        t1_ms=fit.t1_ms.item(),
    )
    sign = np.where(curve.at(ti_ms) < 0, -1.0, 1.0)
    return Curve(**{name: getattr(curve, name) for name in Curve.__slots__} | {"signal": sign * curve.signal})
