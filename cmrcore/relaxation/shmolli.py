"""ShMOLLI: one inversion of five samples and two of one, taken in only where recovery was complete enough."""

from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation.curve import CurveFit, FittedCurves, fit_curves
from cmrcore.relaxation.model import FitStatus
from cmrcore.relaxation.models.molli import MOLLI
from cmrcore.relaxation.projection import search_grid

_ROWS = {5: [0, 3, 4, 5, 6], 6: [0, 1, 3, 4, 5, 6], 7: [0, 1, 2, 3, 4, 5, 6]}
"""Samples by number used, in order of time: the first inversion's five, then the second's, the third's."""
_LEAST_NEGATIVE = {5: 1, 6: 0, 7: 0}
"""Negative samples known beforehand: one sample after the null and a flat end say nothing of T1."""
_SHORT_FRACTION = 0.4
"""Of the interval between heartbeats: a T1 under it has recovered before the third inversion."""


def shmolli_fit(time_ms: Float[Tensor, " time"]) -> CurveFit:
    r"""Fit that chooses 5, 6 or 7 of the samples for each pixel.

    With T_n and s_n = sqrt(residual / (n - 1)) of the MOLLI fit to n samples and the interval between
    heartbeats RR, the mean distance of the first inversion's times:

    - T_5 > RR: five samples, since the later inversions found the magnetization not yet recovered;
    - else six if s_6 T_6 < s_5 RR, and then or else seven if s_7 T_7 < 0.4 s_6 RR: the further samples must
      fit about as well, the more so the longer T1;
    - T_5 > RR against T_6 <= 0.4 RR: T1 is too short for one early sample to tell; seven if T_7 <= 0.4 RR,
      else six. MRKonrad/tomato has such a guard too; the choice agrees with the scanner's map.

    References
    ----------
    Piechnik et al. 2010, J Cardiovasc Magn Reson 12:69, doi:10.1186/1532-429X-12-69
    """
    between_ms = torch.diff(time_ms[_ROWS[5]]) if len(time_ms) == 7 else torch.zeros(1)
    interval_ms = float(between_ms.mean())
    if not float(between_ms.amin()) > interval_ms / 2 or float(time_ms[2] - time_ms[0]) > interval_ms / 2:
        raise InvalidInputError(
            "model 'shmolli' needs seven inversion times, three close ones and four a heartbeat apart, found "
            f"{time_ms.tolist()}; use 'molli' for other schemes"
        )
    grids = {
        n: search_grid(MOLLI, time_ms[rows], least_negative=_LEAST_NEGATIVE[n]) for n, rows in _ROWS.items()
    }

    def fit(curves: Float[Tensor, "time pixel"]) -> FittedCurves:
        five, six, seven = (fit_curves(curves[rows], grids[n]) for n, rows in _ROWS.items())
        t_5 = five.time_ms.nan_to_num(nan=0)
        noise_5, noise_6, noise_7 = (
            (one.residual / (n - 1)).sqrt().nan_to_num(nan=torch.inf)
            for one, n in zip((five, six, seven), _ROWS, strict=True)
        )
        is_long = ~(t_5 <= interval_ms)
        is_unclear = is_long & (six.time_ms <= _SHORT_FRACTION * interval_ms)
        takes_six = is_unclear | (~is_long & (noise_6 * six.time_ms < noise_5 * interval_ms))
        t_before = torch.where(takes_six, six.time_ms, t_5)
        is_short = seven.time_ms <= _SHORT_FRACTION * interval_ms
        fits_seven = noise_7 * seven.time_ms < _SHORT_FRACTION * noise_6 * interval_ms
        takes_seven = (t_before < interval_ms) & torch.where(is_unclear, is_short, ~is_long & fits_seven)
        chosen = _where(takes_six, six, five)
        return _where(takes_seven & (seven.status == FitStatus.OK), seven, chosen)

    return fit


def _where(take: Tensor, these: FittedCurves, others: FittedCurves) -> FittedCurves:
    """Pixel by pixel, these or the others."""
    return FittedCurves(
        **{
            field.name: torch.where(take, getattr(these, field.name), getattr(others, field.name))
            for field in fields(FittedCurves)
        }
    )
