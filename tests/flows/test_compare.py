"""Two runs over the same scans, or a run and a reader: drawn results with known agreement."""

import csv
import io
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cmrcore.quantify.regions import QUANTITIES, segment_region
from flows import compare_output
from flows.cli import app
from flows.compare import Agreement, Comparison, compare_runs, compare_with_reader
from flows.compare_output import draw_bland_altman, print_comparison
from storage.errors import NotStoredError
from storage.tables import publish
from tests.storage.drawn_rows import row, visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG

N_SCANS = 12
Change = Callable[[int, str, float | None], float | None]
"""What a run measures of scan, quantity and value."""


def publish_run(
    root: Path,
    change: Change = lambda _, __, value: value,
    n_scans: int = N_SCANS,
    failed: Collection[int] = (),
) -> Path:
    """Publish the results of drawn scans, six subjects with two visits each, as a run measured them."""
    root.mkdir()
    shutil.copy(DEMO_CONFIG, root / "trial.toml")
    rng = np.random.default_rng(7)
    for index in range(n_scans):
        truth = {"t1_native_ms": float(rng.normal(1050, 60)), "t1_post_ms": float(rng.normal(450, 30))}
        truth["ecv_fraction"] = float(rng.uniform(0.25, 0.6))
        found = {name: change(index, name, value) for name, value in truth.items()}
        septal = {
            f"{name.rpartition('_')[0]}_septal_{name.rpartition('_')[2]}": found[name] for name in QUANTITIES
        }
        ids = {"subject_id": f"S0{index // 2 + 1}", "visit_id": f"V{index % 2 + 1}"}
        ids["result_digest"] = f"digest-{index}"
        slices = [
            row("slices", slice_index=at, level=level, n_pixels_myocardium=500, **found, **ids)
            for at, level in enumerate(("basal", "mid", "apical"))
        ]
        segments = [
            row("segments", level=segment_region(number)[0], aha_segment=number, n_pixels=80, **found, **ids)
            for number in range(1, 17)
        ]
        verdict = {"qc_verdict": "fail" if index in failed else "pass"}
        rows = {
            "scans": [row("scans", **found, **septal, **ids, **verdict)],
            "slices": slices,
            "segments": segments,
        }
        publish(root, visit_row(**ids), rows, "tester", "test")
    return root


def seven_percent(index: int, name: str, value: float | None) -> float | None:
    """Read ECV 2.8 % too low on average, a half of the scans at +3.9 % and the other at -9.5 %."""
    if name != "ecv_fraction" or value is None:
        return value
    return value * (1 + (0.039 if index % 2 else -0.095))


def agreement(comparison: Comparison, quantity: str, region: str) -> Agreement:
    """One agreement of a comparison."""
    (found,) = (one for one in comparison.agreements if (one.quantity, one.region) == (quantity, region))
    return found


@pytest.fixture(scope="module")
def run_a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish twelve scans."""
    return publish_run(tmp_path_factory.mktemp("a") / "trial")


@pytest.fixture(scope="module")
def run_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish the same scans with another ECV."""
    return publish_run(tmp_path_factory.mktemp("b") / "trial", seven_percent)


def test_two_runs_differ_by_what_was_drawn(run_a: Path, run_b: Path) -> None:
    """-2.8 % on average; the second run minus the first, relative to the first."""
    compared = compare_runs(run_a, run_b)
    found = agreement(compared, "ecv_fraction", "global").statistics
    assert found is not None
    assert found.relative_bias == pytest.approx((0.039 - 0.095) / 2)
    assert found.relative_sd == pytest.approx((0.039 + 0.095) / 2 * np.sqrt(12 / 11))
    assert found.beyond_fraction == 0
    assert found.bland_altman.bias.value < 0
    assert found.icc.low < found.icc.value < 1
    same = agreement(compared, "t1_native_ms", "septal").statistics
    assert same is not None
    assert (same.bland_altman.bias.value, same.within.sd.value, same.icc.value) == (0, 0, 1)
    assert len(agreement(compared, "ecv_fraction", "segment").reference) == N_SCANS * 16
    assert compared.only_reference == compared.only_tested == ()


def test_scans_beyond_the_limit_are_counted(run_a: Path, tmp_path: Path) -> None:
    """One of twelve differs by 12 %, one by just the limit, up or down."""
    factors = {3: 0.88, 4: 1.1001, 5: 1.0999}

    def change(index: int, _: str, value: float | None) -> float | None:
        return None if value is None else value * factors.get(index, 1.0)

    other = publish_run(tmp_path / "trial", change)
    compared = compare_runs(run_a, other)
    for quantity in QUANTITIES:
        found = agreement(compared, quantity, "global").statistics
        assert found is not None
        assert found.beyond_fraction == pytest.approx(2 / 12)


def test_what_has_no_partner_is_named(run_a: Path, tmp_path: Path) -> None:
    """Scans of one run alone, and values that either lacks."""

    def change(index: int, name: str, value: float | None) -> float | None:
        return None if (index, name) == (2, "ecv_fraction") else value

    compared = compare_runs(run_a, publish_run(tmp_path / "trial", change, n_scans=10))
    assert compared.only_reference == ("S06/V1", "S06/V2")
    assert compared.only_tested == ()
    found = agreement(compared, "ecv_fraction", "global")
    assert (len(found.reference), found.n_missing) == (9, 1)
    assert len(agreement(compared, "t1_native_ms", "global").reference) == 10


def test_what_a_scan_has_several_of_has_no_intervals(
    run_a: Path, run_b: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """192 segments of 12 scans are not 192 scans; limits of agreement stay, and a line says why no more."""
    compared = compare_runs(run_a, run_b)
    whole, pooled = (
        agreement(compared, "ecv_fraction", region).statistics for region in ("global", "segment")
    )
    assert whole is not None
    assert pooled is not None
    assert pooled.bland_altman.bias.value == pytest.approx(whole.bland_altman.bias.value)
    print_comparison(compared)
    out, err = capsys.readouterr()
    rows = {
        one["region"]: one for one in csv.DictReader(io.StringIO(out)) if one["quantity"] == "ecv_fraction"
    }
    intervals = [column for column in rows["global"] if column.endswith(("_ci_low", "_ci_high"))]
    assert len(intervals) == 2 * 10
    assert all(rows["global"][column] and not rows["segment"][column] for column in intervals)
    assert rows["segment"]["limit_lower"]
    assert rows["segment"]["icc_2_1"]
    assert err == "no confidence intervals for segment: a scan has several, which are not independent\n"


def test_scans_that_failed_are_left_out_and_named(
    run_a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever run they failed in; nobody uses their numbers."""
    other = publish_run(tmp_path / "trial", failed={3})
    for runs in ((run_a, other), (other, run_a)):
        compared = compare_runs(*runs)
        assert compared.failed == ("S02/V2",)
        assert compared.only_reference == compared.only_tested == ()
        assert len(agreement(compared, "ecv_fraction", "segment").reference) == (N_SCANS - 1) * 16
    lines = [f"S02,V{visit},0.4" for visit in (1, 2)]
    compared = compare_with_reader(other, reader_table(tmp_path, "subject_id,visit_id,ecv_fraction", *lines))
    assert len(compared.agreements[0].reference) == 1
    assert compared.only_reference == ()
    print_comparison(compared)
    assert "left out for their verdict fail, 1: S02/V2" in capsys.readouterr().err


def reader_table(folder: Path, header: str, *lines: str) -> Path:
    """Write a reader's table."""
    path = folder / "reader.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_a_reader_is_compared_where_both_have_numbers(run_a: Path, tmp_path: Path) -> None:
    """The run minus the reader; rows of nobody by their number, scans that the reader lacks by name."""
    ecv = agreement(compare_runs(run_a, run_a), "ecv_fraction", "global").tested[:4]
    lines = [f"S0{index // 2 + 1},V{index % 2 + 1},{value - 0.01}" for index, value in enumerate(ecv)]
    table = reader_table(tmp_path, "subject_id,visit_id,ecv_fraction", *lines, "S09,V1,0.4", "S03,V1,")
    compared = compare_with_reader(run_a, table)
    (found,) = compared.agreements
    assert found.statistics is not None
    assert found.statistics.bland_altman.bias.value == pytest.approx(0.01)
    assert (len(found.reference), found.n_missing) == (4, 1)
    assert compared.only_reference == ("row 6",)
    assert compared.only_tested == tuple(
        f"S0{s}/V{v}" for s in range(3, 7) for v in (1, 2) if (s, v) != (3, 1)
    )


@pytest.mark.parametrize(
    ("column", "places", "region"),
    [
        ("aha_segment", ["1", "8", "16"], "segment"),
        ("slice_index", ["0", "1", "2"], "slice"),
        ("level", ["basal", "mid", "apical"], "level"),
        ("level", ["septal"], "septal"),
    ],
)
def test_a_reader_may_read_parts_of_the_heart(
    run_a: Path, tmp_path: Path, column: str, places: list[str], region: str
) -> None:
    """Each place with its own; a place of a shared scan that one side lacks is named with it."""
    lines = [f"S01,V{visit},{place},1000,440" for visit in (1, 2) for place in places]
    header = f"subject_id,visit_id,{column},t1_native_ms,t1_post_ms"
    compared = compare_with_reader(run_a, reader_table(tmp_path, header, *lines))
    found = agreement(compared, "t1_native_ms", region)
    assert len(found.reference) == 2 * len(places)
    assert {one.quantity for one in compared.agreements} == {"t1_native_ms", "t1_post_ms"}
    assert compared.only_reference == ()
    assert ("S01/V1 segment 2" in compared.only_tested) is (region == "segment")
    assert "S06/V2" in compared.only_tested


def test_too_few_pairs_have_no_statistics(
    run_a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pairs are counted all the same."""
    table = reader_table(tmp_path, "subject_id,visit_id,ecv_fraction", "S01,V1,0.4", "S01,V2,0.5")
    compared = compare_with_reader(run_a, table)
    assert compared.agreements[0].statistics is None
    print_comparison(compared)
    assert "ECV, global: 2 pairs, 3 make a statistic" in capsys.readouterr().err
    draw_bland_altman(compared, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")


def test_into_a_pipe_goes_every_number_as_csv(
    run_a: Path, run_b: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fractions stay fractions, an interval is three columns, and notes go elsewhere."""
    print_comparison(compare_runs(run_a, run_b))
    out, err = capsys.readouterr()
    rows = {(one["quantity"], one["region"]): one for one in csv.DictReader(io.StringIO(out))}
    assert len(rows) == 9
    ecv = rows["ecv_fraction", "global"]
    assert (ecv["n"], ecv["n_missing"]) == ("12", "0")
    assert float(ecv["relative_bias"]) == pytest.approx(-0.028)
    assert float(ecv["bias_ci_low"]) < float(ecv["bias"]) < float(ecv["bias_ci_high"])
    assert float(ecv["repeatability_coefficient"]) == pytest.approx(
        2.7719 * float(ecv["within_subject_sd"]), rel=1e-4
    )
    assert {
        "limit_lower_ci_low",
        "icc_2_1",
        "within_subject_cv",
        "ols_slope",
        "deming_intercept",
    } <= ecv.keys()
    assert err.startswith("no confidence intervals for segment")


def test_a_terminal_shows_two_tables(run_a: Path, run_b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ECV in percent, the relative difference as the guided model's paper gives it."""
    out = io.StringIO()

    def console(**options: Any) -> Console:
        return Console(file=out, width=200, force_terminal=True, no_color=True, **options)

    monkeypatch.setattr(compare_output, "Console", console)
    print_comparison(compare_runs(run_a, run_b))
    text = out.getvalue()
    assert "-2.8 ± 7.0" in text
    assert "agreement of B with A" in text
    assert "repeatability and regression" in text


def test_the_figure_has_a_panel_for_each_agreement(run_a: Path, run_b: Path, tmp_path: Path) -> None:
    """Three quantities in three regions, more than three megapixels."""
    from matplotlib import image

    draw_bland_altman(compare_runs(run_a, run_b), tmp_path / "figure.png")
    pixels = image.imread(tmp_path / "figure.png")
    n_rows, n_cols = pixels.shape[:2]
    assert n_rows * n_cols > 2_000_000
    for row_index in range(3):
        for col_index in range(3):
            panel = pixels[
                row_index * n_rows // 3 : (row_index + 1) * n_rows // 3,
                col_index * n_cols // 3 : (col_index + 1) * n_cols // 3,
                :3,
            ]
            assert (panel < 0.9).any()


def test_the_command_compares_and_draws(run_a: Path, run_b: Path, tmp_path: Path) -> None:
    """A folder is a run, a file a reader's table; what is wrong with it ends the command with code 2."""
    command = CliRunner()
    figure = tmp_path / "figure.png"
    done = command.invoke(app, ["compare", str(run_a), str(run_b), "--figure", str(figure)])
    assert done.exit_code == 0, done.output
    assert "ecv_fraction,global,12" in done.stdout
    assert figure.is_file()
    table = reader_table(tmp_path, "subject_id,visit_id,ecv_fraction", "S01,V1,41")
    refused = command.invoke(app, ["compare", str(run_a), str(table)])
    assert refused.exit_code == 2
    assert "row 2: ecv_fraction: looks like percent" in refused.stderr


def test_a_run_of_a_former_version_is_compared_all_the_same(run_a: Path, run_b: Path, tmp_path: Path) -> None:
    """Its trial.toml lacks what came later; a folder without results is refused."""
    former = tmp_path / "former"
    shutil.copytree(run_a / "tables", former / "tables")
    (former / "trial.toml").write_text("schema_version = 1\n")
    assert len(agreement(compare_runs(former, run_b), "ecv_fraction", "global").reference) == N_SCANS
    with pytest.raises(NotStoredError, match="empty has no tables/, so no results to compare"):
        compare_runs(tmp_path / "empty", run_b)


def test_runs_without_a_common_scan_say_so(
    run_a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty table alone would look like perfect agreement."""
    table = reader_table(tmp_path, "subject_id,visit_id,ecv_fraction", "S99,V1,0.4")
    print_comparison(compare_with_reader(run_a, table))
    error = capsys.readouterr().err
    assert "nothing pairs" in error
    assert "in reader alone, 1: row 2" in error
    figure = tmp_path / "figure.png"
    answer = CliRunner().invoke(app, ["compare", str(run_a), str(table), "--figure", str(figure)])
    assert (answer.exit_code, figure.exists()) == (1, False)
