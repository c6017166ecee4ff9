"""The guiding mask of a slice: found by a network, or drawn by a reader."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.segmentation.check import GuideLimits, complete_guide, inspect_guide, separation
from cmrcore.segmentation.contours import masks_from

ProbabilityOf = Callable[[Float[Tensor, "n row col"]], Float[Tensor, "n label row col"]]
"""A network: probabilities of the labels on images [a.u.] that know nothing of each other."""

_SAME_SPACING = 1.01
"""Ratio of two pixel spacings up to which they count as equal."""


@dataclass(frozen=True, slots=True)
class Guide:
    """Guiding mask of a slice."""

    masks: Bool[Tensor, "label row col"]
    """Masks in the order of `LABELS`."""
    echo: int
    """Echo that it belongs to (index along ``ti``): the slice's reference echo."""
    origin: str
    """``reader`` or ``model``."""
    score: float
    """How far it can be trusted, 0-1; see `find_guide` and `reader_guide`."""
    findings: tuple[str, ...]
    """Failed checks in words; empty if it passed all."""
    rejected: tuple[str, ...]
    """Echoes that were tried before, and why each failed."""


def find_guide(
    probability_of: ProbabilityOf,
    echoes: Float[Tensor, "ti row col"],
    spacing_mm: tuple[float, float],
    first_acquired: int,
    limits: GuideLimits = GuideLimits(),  # noqa: B008 - frozen
) -> Guide | None:
    """Find the guiding mask of a slice on the echo that shows it best; None if no echo shows a myocardium.

    The network sees every echo once, and echoes are tried from the highest score down, findings aside; the
    first-acquired one, which the paper takes, wins a tie only: at a short inversion time it often shows no
    contrast. An echo
    that passes its checks is seen again, flipped both ways and turned by a quarter (by half where rows and
    columns are not equally far apart); the guide is drawn from the mean of the four, and must pass again.
    Where no echo passes, the best score is taken, with its findings; a score as of noise gives no guide.

    The score is a product, halved for each finding: the separation of wall and blood in the image, the
    network's mean probability of myocardium within the wall, the median Dice coefficient between the wall and
    those of the other echoes and (once turned) the mean one between the wall and that of each of the four.

    Parameters
    ----------
    probability_of
        The base network.
    echoes
        Magnitudes of one slice [a.u.].
    spacing_mm
        Distance of rows and columns [mm].
    first_acquired
        The echo that was acquired first, as an index along ``ti``.
    limits
        What the guide must keep to.
    """
    seen = probability_of(echoes)
    masks = torch.stack([masks_from(one, spacing_mm) for one in seen])
    candidates = {
        echo: _judge(masks[echo], seen[echo], echoes[echo], echo, spacing_mm, limits, masks[:, 0])
        for echo in range(len(echoes))
        if bool(masks[echo, 0].any())
    }
    order = sorted(candidates, key=lambda echo: (-_merit(candidates[echo]), echo != first_acquired))
    rejected: list[Guide] = []
    n_turned = 0
    for echo in order:
        candidate = candidates[echo]
        if not candidate.findings and n_turned < limits.n_tries:
            n_turned += 1
            views = _turned_views(probability_of, echoes[echo], spacing_mm)
            views = torch.cat([seen[echo : echo + 1], views])
            candidate = _judge_views(views, echoes[echo], echo, spacing_mm, limits, masks[:, 0])
            if not candidate.findings:
                return replace(candidate, rejected=tuple(map(_in_words, rejected)))
        if candidate.findings:
            rejected.append(candidate)
    if not rejected:
        return None
    best = max(rejected, key=lambda guide: guide.score)
    if best.score < limits.score_min:
        return None
    return replace(best, rejected=tuple(_in_words(one) for one in rejected if one is not best))


def reader_guide(
    masks: Bool[Tensor, "label row col"],
    echoes: Float[Tensor, "ti row col"],
    spacing_mm: tuple[float, float],
    echo: int,
    limits: GuideLimits = GuideLimits(),  # noqa: B008 - frozen
) -> Guide:
    """Check a reader's guide; whatever is found, it stays the guide.

    Its score is the separation of wall and blood in the image, halved for each finding.

    Parameters
    ----------
    masks
        As drawn; a missing blood pool is filled in.
    echoes
        Magnitudes of the slice [a.u.].
    spacing_mm
        Distance of rows and columns [mm].
    echo
        The echo that it was drawn on, as an index along ``ti``.
    limits
        What the guide should keep to.
    """
    masks = complete_guide(masks)
    findings = inspect_guide(masks, echoes[echo], spacing_mm, limits)
    score = separation(echoes[echo][masks[0]], echoes[echo][masks[1]]) * 0.5 ** len(findings)
    return Guide(masks, echo, "reader", score, tuple(findings), ())


def _judge(
    masks: Bool[Tensor, "label row col"],
    probability: Float[Tensor, "label row col"],
    image: Float[Tensor, "row col"],
    echo: int,
    spacing_mm: tuple[float, float],
    limits: GuideLimits,
    walls: Bool[Tensor, "ti row col"],
) -> Guide:
    """Guide of a network on one echo, with its findings and score."""
    findings = inspect_guide(masks, image, spacing_mm, limits)
    consensus = _consensus(masks[0], walls, echo)
    if consensus < limits.consensus_min:
        findings.append(
            f"agrees with the other echoes by {consensus:.2f}, expected at least {limits.consensus_min:g}"
        )
    certainty = float(probability[0][masks[0]].mean())
    apart = separation(image[masks[0]], image[masks[1]])
    score = certainty * apart * consensus * 0.5 ** len(findings)
    return Guide(masks, echo, "model", score, tuple(findings), ())


def _judge_views(
    views: Float[Tensor, "view label row col"],
    image: Float[Tensor, "row col"],
    echo: int,
    spacing_mm: tuple[float, float],
    limits: GuideLimits,
    walls: Bool[Tensor, "ti row col"],
) -> Guide:
    """Guide from the mean of an echo's views (the first, if that is empty), with which all must agree."""
    mean = views.mean(0)
    masks = masks_from(mean, spacing_mm)
    if not bool(masks[0].any()):
        mean = views[0]
        masks = masks_from(mean, spacing_mm)
    guide = _judge(masks, mean, image, echo, spacing_mm, limits, walls)
    turned = torch.stack([masks_from(view, spacing_mm)[0] for view in views])
    agreement = float(_dice(turned, masks[0]).mean())
    findings, score = guide.findings, guide.score * agreement
    if agreement < limits.agreement_min:
        message = f"turned inputs agree by {agreement:.2f}, expected at least {limits.agreement_min:g}"
        findings, score = (*findings, message), score / 2
    return replace(guide, score=score, findings=findings)


def _turned_views(
    probability_of: ProbabilityOf, image: Float[Tensor, "row col"], spacing_mm: tuple[float, float]
) -> Float[Tensor, "view label row col"]:
    """Probabilities from an image flipped left-right, up-down and turned, all turned back."""
    flipped = probability_of(torch.stack([image.flip(1), image.flip(0)]))
    is_even = max(spacing_mm) <= _SAME_SPACING * min(spacing_mm)
    n_quarters = 1 if is_even else 2
    turned = probability_of(image.rot90(n_quarters)[None])
    return torch.stack([flipped[0].flip(2), flipped[1].flip(1), turned[0].rot90(-n_quarters, (1, 2))])


def _consensus(wall: Bool[Tensor, "row col"], walls: Bool[Tensor, "ti row col"], echo: int) -> float:
    """Median Dice coefficient of an echo's wall with those of the other echoes; 1 where no other has one."""
    others = walls.any(dim=(1, 2))
    others[echo] = False
    return float(_dice(walls[others], wall).median()) if bool(others.any()) else 1.0


def _dice(walls: Bool[Tensor, "n row col"], wall: Bool[Tensor, "row col"]) -> Float[Tensor, " n"]:
    """Dice coefficient of each wall with one."""
    return 2 * (walls & wall).sum((1, 2)) / (walls.sum((1, 2)) + wall.sum())


def _merit(guide: Guide) -> float:
    """Score without what its findings took off."""
    return guide.score * 2.0 ** len(guide.findings)


def _in_words(guide: Guide) -> str:
    """Echo of a guide and what was found."""
    return f"echo {guide.echo}: {'; '.join(guide.findings)}"
