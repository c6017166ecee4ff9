"""Standard deviation of a fitted T1."""

import torch
from jaxtyping import Float
from torch import Tensor


def t1_standard_deviation(
    ti_ms: Float[Tensor, " ti"],
    a: Float[Tensor, " pixel"],
    b: Float[Tensor, " pixel"],
    t1_star_ms: Float[Tensor, " pixel"],
    residual: Float[Tensor, " pixel"],
) -> Float[Tensor, " pixel"]:
    r"""Spread of T1 [ms], one standard deviation, from the Jacobian of the recovery.

    The covariance of p = (A, B, ln T1*) is s^2 (J^T J)^-1 with s^2 = residual / (n - 3). It passes through
    the Look-Locker correction by the gradient g of T1; with J = Q R,
    var(T1) = s^2 g^T (J^T J)^-1 g = s^2 |R^-T g|^2. Polarity counts as known.

    Parameters
    ----------
    ti_ms
        Inversion times [ms], at least four.
    a, b
        Fit amplitudes [a.u.].
    t1_star_ms
        Apparent recovery time [ms].
    residual
        Sum of squared residuals [a.u.^2].
    """
    scaled = ti_ms[:, None] / t1_star_ms
    shape = torch.exp(-scaled)
    n = len(ti_ms)

    # Gram-Schmidt of the three columns 1, -E and -B E TI / T1*.
    column_b, column_t = -shape, -b * shape * scaled
    r_ab, r_at = column_b.mean(0), column_t.mean(0)
    column_b, column_t = column_b - r_ab, column_t - r_at
    r_bb = column_b.square().sum(0).sqrt()
    r_bt = (column_b * column_t).sum(0) / r_bb
    r_tt = (column_t - r_bt * column_b / r_bb).square().sum(0).sqrt()
    root_n = n**0.5

    gradient_a = -t1_star_ms * b / a.square()
    gradient_b = t1_star_ms / a
    gradient_t = t1_star_ms * (b / a - 1)
    solved_a = gradient_a / root_n
    solved_b = (gradient_b - r_ab * root_n * solved_a) / r_bb
    solved_t = (gradient_t - r_at * root_n * solved_a - r_bt * solved_b) / r_tt
    variance = residual / (n - 3) * (solved_a.square() + solved_b.square() + solved_t.square())
    return torch.sqrt(variance)
