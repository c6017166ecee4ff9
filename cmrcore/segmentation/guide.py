"""The guiding mask of a slice: found by a network, or drawn by a reader."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.dice import dice_coefficients
from cmrcore.segmentation.check import GuideLimits, check_guide, complete_guide, inspect_guide, separation
from cmrcore.segmentation.contours import masks_from
from cmrcore.segmentation.heart import Look, clearest_echoes, find_heart
from cmrcore.segmentation.infer import View

_TURNED: tuple[View, ...] = ("left_right", "up_down", "quarter")


@dataclass(frozen=True, slots=True)
class Lent:
    """What is known of a guide where it was found, before it was carried to another visit."""

    slice_index: int
    """Slice of that visit."""
    origin: str
    """Its origin there."""
    score: float
    """Its score there, 0-1."""


@dataclass(frozen=True, slots=True)
class Guide:
    """Guiding mask of a slice."""

    masks: Bool[Tensor, "label row col"]
    """Masks in the order of `LABELS`."""
    echo: int
    """Echo that it belongs to (index along ``ti``): the slice's reference echo."""
    origin: str
    """``reader``, ``model``, or ``baseline`` for one that an earlier visit lends."""
    score: float
    """How far it can be trusted, 0-1; see `find_guide`, `reader_guide` and
    `cmrcore.segmentation.carried.guide_from_earlier`."""
    findings: tuple[str, ...]
    """Failed checks in words; empty if it passed all."""
    rejected: tuple[str, ...]
    """Guides that were tried before, on which echo or a reader's, and why each failed."""
    overlap: float | None = None
    """Dice coefficient of a reader's left ventricle with what a network takes for it, 0-1; None where no
    network was asked or none was seen, and for a guide that a network found."""
    reader_replaced: bool = False
    """Whether a reader drew one that could not be used; why is the first of ``rejected``."""
    lent: Lent | None = None
    """Guide of an earlier visit that it was before; None for a guide of this visit."""
    not_carried: str | None = None
    """Why the guide of an earlier visit could not take its place; None where none was asked for."""


def choose_guide(
    look: Look | None,
    echoes: Float[Tensor, "ti row col"],
    spacing_mm: tuple[float, float],
    first_acquired: int,
    drawn: Bool[Tensor, "label row col"] | None,
    limits: GuideLimits = GuideLimits(),  # noqa: B008 - frozen
) -> Guide | None:
    """Take the guide that a reader drew on the first-acquired echo, else find one.

    A reader's guide that cannot be used, because it is no closed ring or its labels overlap, gives way to one
    that is found, which says so in ``rejected`` and ``reader_replaced``; where none is found it stays, with
    its findings.

    Parameters
    ----------
    look
        The base network; None where there is none to find a guide with.
    echoes
        Magnitudes of one slice [a.u.].
    spacing_mm
        Distance of rows and columns [mm].
    first_acquired
        The echo that was acquired first, as an index along ``ti``.
    drawn
        Masks of a reader; None where nobody drew.
    limits
        What the guide must keep to.
    """
    by_reader = None
    if drawn is not None:
        by_reader = reader_guide(drawn, echoes, spacing_mm, first_acquired, look, limits)
    if look is None or (by_reader is not None and not check_guide(by_reader.masks)):
        return by_reader
    found = find_guide(look, echoes, spacing_mm, first_acquired, limits)
    if by_reader is None or found is None:
        return found or by_reader
    why = f"reader: {'; '.join(by_reader.findings)}"
    return replace(found, rejected=(why, *found.rejected), reader_replaced=True)


def find_guide(
    look: Look,
    echoes: Float[Tensor, "ti row col"],
    spacing_mm: tuple[float, float],
    first_acquired: int,
    limits: GuideLimits = GuideLimits(),  # noqa: B008 - frozen
) -> Guide | None:
    """Find the guiding mask of a slice on the echo that shows it best; None if no echo shows a myocardium.

    The network looks at a few echoes to find the heart, and then closer at those whose intensities tell its
    wall from its blood best. These are tried from the highest score down, findings aside; the first-acquired
    one, which the paper takes, wins a tie only: at a short inversion time it often shows no contrast. An echo
    that passes its checks is seen again, flipped both ways and turned by a quarter; the guide is drawn from
    the mean of the four, and must pass again. Where no echo passes, the best score is taken, with its
    findings; a score as of noise gives no guide.

    The score is a product, halved for each finding: the separation of wall and blood in the image, the
    network's mean probability of myocardium within the wall, the median Dice coefficient between the wall and
    those of the other candidates and (once turned) the mean one between the wall and that of each of the
    four.

    Parameters
    ----------
    look
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
    heart = find_heart(look, echoes, spacing_mm, limits.n_first)
    if heart is None:
        return None
    chosen = clearest_echoes(heart, echoes, limits.n_candidates)
    seen = dict(zip(chosen, look(echoes[chosen], spacing_mm, heart.frame, "upright"), strict=True))
    masks = {echo: masks_from(probability, spacing_mm) for echo, probability in seen.items()}
    candidates = {
        echo: _judge(masks[echo], seen[echo], echoes[echo], echo, spacing_mm, limits, _others(masks, echo))
        for echo in chosen
        if bool(masks[echo][0].any())
    }
    order = sorted(candidates, key=lambda echo: (-_merit(candidates[echo]), echo != first_acquired))
    rejected: list[Guide] = []
    n_turned = 0
    for echo in order:
        candidate = candidates[echo]
        if not candidate.findings and n_turned < limits.n_tries:
            n_turned += 1
            turned = [look(echoes[echo][None], spacing_mm, heart.frame, view) for view in _TURNED]
            views = torch.cat([seen[echo][None], *turned])
            others = _others(masks, echo)
            candidate = _judge_views(views, echoes[echo], echo, spacing_mm, limits, others)
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
    look: Look | None = None,
    limits: GuideLimits = GuideLimits(),  # noqa: B008 - frozen
) -> Guide:
    """Check a reader's guide; whatever is found, it stays the guide.

    Its left ventricle must lie on what the network takes for it at first sight. Its score is the separation
    of wall and blood in the image, halved for each finding.

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
    look
        The base network; None to ask none.
    limits
        What the guide should keep to.
    """
    masks = complete_guide(masks)
    findings = inspect_guide(masks, echoes[echo], spacing_mm, limits)
    heart = None if look is None else find_heart(look, echoes, spacing_mm, limits.n_first)
    overlap = None
    if heart is not None:
        overlap = float(dice_coefficients(masks[0] | masks[1], heart.masks[0] | heart.masks[1]))
        if overlap < limits.overlap_min:
            findings.append(
                f"covers what the network takes for the left ventricle by {overlap:.2f} (Dice coefficient), "
                f"expected at least {limits.overlap_min:g}"
            )
    score = separation(echoes[echo][masks[0]], echoes[echo][masks[1]]) * 0.5 ** len(findings)
    return Guide(masks, echo, "reader", score, tuple(findings), (), overlap)


def _judge(
    masks: Bool[Tensor, "label row col"],
    probability: Float[Tensor, "label row col"],
    image: Float[Tensor, "row col"],
    echo: int,
    spacing_mm: tuple[float, float],
    limits: GuideLimits,
    others: Bool[Tensor, "n row col"],
) -> Guide:
    """Guide of a network on one echo, with its findings and score."""
    findings = inspect_guide(masks, image, spacing_mm, limits)
    consensus = float(dice_coefficients(others, masks[0]).median()) if len(others) else 1.0
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
    others: Bool[Tensor, "n row col"],
) -> Guide:
    """Guide from the mean of an echo's views (the first, if that is empty), with which all must agree."""
    mean = views.mean(0)
    masks = masks_from(mean, spacing_mm)
    if not bool(masks[0].any()):
        mean = views[0]
        masks = masks_from(mean, spacing_mm)
    guide = _judge(masks, mean, image, echo, spacing_mm, limits, others)
    turned = torch.stack([masks_from(view, spacing_mm)[0] for view in views])
    agreement = float(dice_coefficients(turned, masks[0]).mean())
    findings, score = guide.findings, guide.score * agreement
    if agreement < limits.agreement_min:
        message = f"turned inputs agree by {agreement:.2f}, expected at least {limits.agreement_min:g}"
        findings, score = (*findings, message), score / 2
    return replace(guide, score=score, findings=findings)


def _others(masks: Mapping[int, Bool[Tensor, "label row col"]], echo: int) -> Bool[Tensor, "n row col"]:
    """Walls of the other echoes, those without one left out."""
    walls = torch.stack([of_echo[0] for of_echo in masks.values()])
    return walls[[other != echo and bool(of_echo[0].any()) for other, of_echo in masks.items()]]


def _merit(guide: Guide) -> float:
    """Score without what its findings took off."""
    return guide.score * 2.0 ** len(guide.findings)


def _in_words(guide: Guide) -> str:
    """Echo of a guide and what was found."""
    return f"echo {guide.echo}: {'; '.join(guide.findings)}"
