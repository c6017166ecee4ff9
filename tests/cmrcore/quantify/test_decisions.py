"""What a reader's decision makes of a scan."""

import math
from dataclasses import replace

import pytest

from cmrcore.quantify import ReaderDecision, ScanResult, Series
from cmrcore.quantify.decisions import READER_CODES, accept_findings
from cmrcore.quantify.qc import Place, check_range, raise_flag
from tests.cmrcore.quantify.drawn_scans import NATIVE, POST, quantify, raised, series, stack

FAT = series(300.0, [1600.0, 1650.0, 1700.0], stack())
FAT_APEX = replace(NATIVE, echoes=NATIVE.echoes.clone())
FAT_APEX.echoes[2] = FAT.echoes[2]

EXCLUDE = ReaderDecision("R1", "exclude", "ghosts\nin two echoes", holds=True, redraw=False)
ACCEPT = replace(EXCLUDE, decision="accept", comment="")
MEANS = ("t1_", "blood_t1_", "ecv_", "n_slices_used", "n_pixels", "partition", "hematocrit_syn", "r_squared")


def decided(of: Series, *decisions: ReaderDecision | None) -> Series:
    """Give a series about whose slices a reader decided."""
    return replace(of, decisions=decisions)


def means(result: ScanResult) -> dict[str, object]:
    """Columns of the scan that rest on its slices."""
    return {name: value for name, value in result.scan.items() if name.startswith(MEANS)}


def reader_flags(result: ScanResult) -> list[tuple[str, str | None, int | None, str]]:
    """Code, role, slice and message of the flags that a reader raised."""
    return [
        (flag.code, flag.role, flag.slice_index, flag.message)
        for flag in result.flags
        if flag.code in READER_CODES
    ]


@pytest.fixture(scope="module")
def failed() -> ScanResult:
    """Scan whose apical native slice, of fat, fails by itself."""
    return quantify(native=FAT_APEX)


@pytest.fixture(scope="module")
def mixed() -> ScanResult:
    """Scan about whose slices a reader decided one thing each."""
    redraw = ReaderDecision("R1", "accept", "", holds=True, redraw=True)
    lapsed, repeat = replace(EXCLUDE, holds=False), replace(EXCLUDE, decision="repeat")
    return quantify(decided(NATIVE, redraw, lapsed, None), decided(POST, None, None, repeat))


def test_an_excluded_slice_leaves_all_that_a_failed_one_leaves(failed: ScanResult) -> None:
    """Number for number, where both say so and where no limit but a reader does."""
    assert {flag.code for flag in failed.flags if flag.severity == "fail"} == {
        "t1_native_implausible",
        "wall_not_below_blood",
    }
    assert means(quantify(native=decided(FAT_APEX, None, None, EXCLUDE))) == means(failed)
    sound = quantify(native=decided(NATIVE, None, None, EXCLUDE))
    assert means(sound) == means(failed)
    assert sound.scan["n_slices_used_native"] == sound.scan["n_slices_used_ecv"] == 2
    for row, other in zip(sound.slices, failed.slices, strict=True):
        assert [row[name] for name in row if name.startswith("used_")] == [
            other[name] for name in other if name.startswith("used_")
        ]
    assert sound.slices[2]["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    assert (sound.slices[2]["qc_verdict"], sound.verdict) == ("fail", "review")
    assert reader_flags(sound) == [
        ("reader_excluded", "native", 2, "reader R1 excluded it: ghosts in two echoes")
    ]


def test_a_scan_of_excluded_slices_fails() -> None:
    """As one whose slices all failed their checks."""
    result = quantify(native=decided(NATIVE, EXCLUDE, EXCLUDE, EXCLUDE))
    assert result.verdict == "fail"
    assert "nothing_left" in {flag.code for flag in result.flags}


def test_each_decision_has_its_flag(mixed: ScanResult) -> None:
    """In the words of the check, with the reader's own."""
    lapsed = (
        "reader R1 excluded it with other images or masks: ghosts in two echoes; "
        "its numbers are used again: look at it and decide anew"
    )
    assert reader_flags(mixed) == [
        ("reader_asks_redraw", "native", 0, "reader R1 asks for another guide"),
        ("reader_decision_lapsed", "native", 1, lapsed),
        ("reader_asks_repeat", "post", 2, "reader R1 asked to repeat it: ghosts in two echoes"),
    ]
    assert [row["qc_verdict"] for row in mixed.slices] == ["review", "review", "fail"]


def test_what_holds_no_more_and_what_is_to_be_redrawn_stay_in_the_means(mixed: ScanResult) -> None:
    """Nobody has looked at what is there now; whoever wants the numbers out excludes the slice too."""
    assert [mixed.scan[f"n_slices_used_{name}"] for name in ("native", "post", "ecv")] == [3, 2, 2]


def test_an_accepted_finding_becomes_a_note_and_a_failure_stays_one(failed: ScanResult) -> None:
    """With who accepted it; another one of its kind, which the reader did not see, still counts."""
    seen = {(flag.code, flag.slice_index) for flag in failed.flags if flag.severity == "review"}
    assert {("t1_apart", 0), ("t1_apart", 1)} <= seen
    knows = replace(
        ACCEPT, accepted=dict.fromkeys(("t1_apart", "t1_native_implausible", "wall_not_below_blood"))
    )
    result = quantify(native=decided(FAT_APEX, knows, ACCEPT, knows))
    apart = {flag.slice_index: flag for flag in result.flags if flag.code == "t1_apart"}
    assert (apart[0].severity, apart[1].severity) == ("note", "review")
    assert apart[0].message.endswith("(accepted by reader R1)")
    assert raised(result) == raised(failed)
    assert [row["qc_verdict"] for row in result.slices] == ["pass", "review", "fail"]
    assert means(result) == means(failed)


def test_nothing_is_accepted_of_other_masks() -> None:
    """The finding may be another one."""
    flag = raise_flag("fit_poor", "many", Place("native", 0, "basal"))
    lapsed = replace(ACCEPT, accepted={"fit_poor": None}, holds=False)
    for decision in (None, lapsed):
        of_native = decided(NATIVE, decision, None, None)
        assert accept_findings([flag], {"native": of_native, "post": None}) == [flag]


def test_a_finding_about_both_series_must_be_accepted_in_both() -> None:
    """Where one has no such slice, in the other alone; one about the scan never is."""
    both = raise_flag("ecv_implausible", "low", Place(slice_index=2, level="apical"))
    scan = raise_flag("hematocrit_old", "old")
    knows = replace(ACCEPT, accepted={"ecv_implausible": None, "hematocrit_old": None})
    native, other = decided(NATIVE, knows, knows, knows), replace(knows, reader_id="R2")
    post = decided(POST, other, other, other)
    assert accept_findings([both, scan], {"native": native, "post": POST}) == [both, scan]
    accepted, still = accept_findings([both, scan], {"native": native, "post": post})
    assert accepted.message == "low (accepted by reader R1 and R2)"
    assert (accepted.severity, still) == ("note", scan)
    short = replace(POST, levels=POST.levels[:2])
    assert accept_findings([both], {"native": native, "post": short})[0].severity == "note"


@pytest.mark.parametrize(
    ("code", "limits", "seen", "now", "is_accepted"),
    [
        pytest.param("center_jumps", (None, 9.0), 11.0, 11.05, True, id="rounding"),
        pytest.param("center_jumps", (None, 9.0), 11.0, 10.0, True, id="better"),
        pytest.param("center_jumps", (None, 9.0), 11.0, 12.0, False, id="worse"),
        pytest.param("masks_leave_guide", (0.85, None), 0.8, 0.82, True, id="better above"),
        pytest.param("masks_leave_guide", (0.85, None), 0.8, 0.7, False, id="worse below"),
        pytest.param("masks_leave_guide", (0.85, None), None, 0.1, True, id="whatever it is"),
        pytest.param("fit_poor", (None, 0.1), 0.125, 0.3, False, id="share"),
        pytest.param("post_unaligned", (None, 2.0), math.nan, 6.2, False, id="none before"),
    ],
)
def test_what_grew_worse_is_not_accepted(
    code: str, limits: tuple[float | None, float | None], seen: float | None, now: float, is_accepted: bool
) -> None:
    """A decision about small is none about large; the reader's images may stand and the value not."""
    (flag,) = check_range(code, "found", now, limits, Place("native", 0, "basal"))
    native = decided(NATIVE, replace(ACCEPT, accepted={code: seen}), None, None)
    (judged,) = accept_findings([flag], {"native": native, "post": None})
    assert judged.severity == ("note" if is_accepted else "review")
    assert ("before it grew worse" in judged.message) != is_accepted
    if code == "fit_poor":
        assert judged.message == (
            "found 30 %, expected at most 10 % (accepted by reader R1 at 12.5 %, before it grew worse)"
        )
