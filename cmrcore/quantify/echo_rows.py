"""Rows of the table ``echoes``."""

from cmrcore.quantify.overlap import dice, displacement_mm
from cmrcore.quantify.records import Role, Row, Series
from cmrcore.quantify.regional import mean
from cmrcore.quantify.role import RoleMeasurement
from cmrcore.registration.align import SliceAlignment


def echo_rows(role: Role, measured: RoleMeasurement) -> list[Row]:
    """Rows of the table ``echoes``: how each echo's mask agrees with the guide, and how it was aligned."""
    series = measured.series
    rows: list[Row] = []
    for index, level in enumerate(series.levels):
        for echo in range(series.ti_ms.shape[1]):
            row: Row = {
                "role": role,
                "slice_index": index,
                "level": level,
                "echo_index": echo,
                "acquisition_index": int(series.acquisition_index[index, echo]),
                "ti_ms": series.ti_ms[index, echo].item(),
            }
            row |= _mask_columns(series, index, echo) | _guide_columns(series, index)
            rows.append(row | _alignment_columns(measured.alignment[index], echo))
    return rows


def _guide_columns(series: Series, index: int) -> Row:
    """Where the guide of a slice came from; None without a guide."""
    if series.guide is None or not bool(series.guide[0, index].any()):
        return dict.fromkeys(("reference_echo_index", "guide_origin", "guide_score"))
    note = series.guide_notes[index] if series.guide_notes else None
    return {
        "reference_echo_index": int(series.reference()[index]),
        "guide_origin": None if note is None else note.origin,
        "guide_score": None if note is None else note.score,
    }


def _mask_columns(series: Series, index: int, echo: int) -> Row:
    """Agreement, contrast and size of one echo's masks; None without masks."""
    columns = ("dice_guide", "displacement_mm", "contrast", "confidence", "n_pixels_myocardium")
    row: Row = dict.fromkeys(columns)
    if series.masks is None or not bool(series.masks[:, index].any()):
        return row
    myocardium, blood_pool, _ = series.masks[:, index, echo]
    row["n_pixels_myocardium"] = int(myocardium.sum())
    if series.guide is not None and bool(series.guide[0, index].any()):
        guide = series.guide[0, index]
        row["dice_guide"] = dice(myocardium, guide)
        row["displacement_mm"] = displacement_mm(myocardium, guide, series.pixel_spacing_mm)
    image = series.echoes[index, echo]
    muscle, pool = mean(image, myocardium), mean(image, blood_pool)
    if muscle is not None and pool is not None and pool + muscle > 0:
        row["contrast"] = (pool - muscle) / (pool + muscle)
    if series.confidence is not None:
        row["confidence"] = series.confidence[index, echo].item()
    return row


def _alignment_columns(alignment: SliceAlignment, echo: int) -> Row:
    """How one echo was aligned."""
    return {
        "alignment": alignment.states[echo],
        "aligned_mm": alignment.way_mm[echo],
        "turn_deg": alignment.turn_deg[echo],
        "turn_from": alignment.turn_from[echo],
        "scale": alignment.scale[echo],
        "jacobian_min": alignment.jacobian_min[echo],
    }
