"""The command that exports, on a trial published without a night."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flows.errors import ExportError
from flows.export import export_trial
from storage import open_trial
from storage.arrays import store_path
from storage.config import CONFIG_FILE
from storage.plan import PLAN_FILE
from storage.tables import publish
from tests.flows.trials import Cmrtrials, snapshot
from tests.storage.drawn_export import DIGEST, ORIENTATIONS, draw_visit, positions
from tests.storage.drawn_rows import row
from tests.storage.drawn_uploads import DEMO_CONFIG

PLAN = """subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id
S01,V1,2026-03-04,14,,,01
S01,V2,2026-09-04,14,,,01
S02,V1,2026-03-04,14,,,01
"""


def publish_visit(
    root: Path,
    subject_id: str,
    visit_id: str,
    digest: str | None,
    *,
    verdict: str = "pass",
    state: str = "done",
) -> None:
    """Publish a visit with one scan, or without a result."""
    ids = {"subject_id": subject_id, "visit_id": visit_id, "site_id": "01", "result_digest": digest}
    judged: dict[str, Any] = {"qc_verdict": verdict, "qc_reasons": []}
    visit = row("visits", **ids, **judged, visit_date=date(2026, 3, 4), state=state, segment_digest="e" * 64)
    publish(root, visit, {"scans": [row("scans", **ids, **judged)]} if digest else {}, "core lab", "night")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a trial with one result, one refused visit and one that no night has seen."""
    root = tmp_path_factory.mktemp("export") / "trial"
    draw_visit(root, ORIENTATIONS["oblique"], positions(ORIENTATIONS["oblique"], "even"), keep_headers=False)
    shutil.rmtree(root / "incoming")
    (root / CONFIG_FILE).write_bytes(DEMO_CONFIG.read_bytes())
    (root / PLAN_FILE).write_text(PLAN)
    publish_visit(root, "S01", "V1", DIGEST)
    publish_visit(root, "S02", "V1", None, state="refused")
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """Give a copy of the trial."""
    return Path(shutil.copytree(published, tmp_path / "trial"))


@pytest.fixture
def export(root: Path) -> Callable[..., dict[str, str]]:
    """Export; give what became of each visit."""

    def run(*arguments: Any) -> dict[str, str]:
        done = export_trial(open_trial(root), *arguments)
        return {f"{one.subject_id}/{one.visit_id}": f"{one.outcome}: {one.said}" for one in done}

    return run


def test_visits_without_a_result_are_named(export: Callable[..., dict[str, str]], root: Path) -> None:
    """The others lie whole under their ids."""
    assert export("dicom") == {
        "S01/V1": "written: exports/dicom/S01/V1",
        "S01/V2": "skipped: no published result: new",
        "S02/V1": "skipped: no published result: refused",
    }
    names = {path.relative_to(root / "exports").as_posix() for path in (root / "exports").rglob("*.dcm")}
    assert len(names) == 7
    assert "dicom/S01/V1/t1_native.dcm" in names
    assert export("bids", ["S01"], ["V1"]) == {"S01/V1": "written: exports/bids/sub-S01/ses-V1"}
    assert (root / "exports/bids/sub-S01/ses-V1/anat/sub-S01_ses-V1_T1map.nii.gz").is_file()


@pytest.mark.parametrize("kind", ["dicom", "bids"])
def test_what_stands_is_left_alone(export: Callable[..., dict[str, str]], root: Path, kind: str) -> None:
    """A second export writes nothing, not even the tables of the dataset."""
    export(kind)
    before = snapshot(root / "exports")
    assert export(kind)["S01/V1"].startswith("stands: ")
    assert snapshot(root / "exports") == before


def test_another_verdict_or_result_replaces_an_export(
    export: Callable[..., dict[str, str]], root: Path
) -> None:
    """What lies in exports/ is what is published."""
    export("bids")
    publish_visit(root, "S01", "V1", DIGEST, verdict="review", state="flagged")
    assert export("bids")["S01/V1"].startswith("replaced: ")
    assert '"QCVerdict": "review"' in next((root / "exports").rglob("*_T1map.json")).read_text()
    shutil.copytree(store_path(root, "S01", "V1", DIGEST), store_path(root, "S01", "V1", "f" * 64))
    publish_visit(root, "S01", "V1", "f" * 64)
    assert export("bids")["S01/V1"].startswith("replaced: ")
    assert export("bids")["S01/V1"].startswith("stands: ")


@pytest.mark.parametrize("kind", ["dicom", "bids"])
def test_an_export_goes_with_its_result(export: Callable[..., dict[str, str]], root: Path, kind: str) -> None:
    """A visit that is refused by now has no numbers in the tables, and no maps here."""
    export(kind)
    publish_visit(root, "S01", "V1", None, state="refused")
    assert export(kind)["S01/V1"] == "removed: no published result: refused"
    assert not [path for path in (root / "exports").rglob("*") if path.suffix in (".dcm", ".gz")]
    assert export(kind)["S01/V1"] == "skipped: no published result: refused"


def test_a_subject_that_nobody_knows_is_refused(export: Callable[..., dict[str, str]]) -> None:
    """A typing error would otherwise export nothing and say nothing."""
    with pytest.raises(ExportError, match=r"neither planned in subjects\.csv nor published: S09, V7"):
        export("dicom", ["S01", "S09"], ["V7"])


def test_the_command_says_what_became_of_each_visit(root: Path, cmrtrials: Cmrtrials) -> None:
    """One line each into a pipe; exit code 1 where nothing has a result, 2 without a format."""
    shown = cmrtrials("export", root, "--dicom", "--bids", "--subject", "S01")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[1:] == [
        "dicom\tS01\tV1\twritten\texports/dicom/S01/V1",
        "dicom\tS01\tV2\tskipped\tno published result: new",
        "bids\tS01\tV1\twritten\texports/bids/sub-S01/ses-V1",
        "bids\tS01\tV2\tskipped\tno published result: new",
    ]
    assert cmrtrials("export", root, "--bids", "--subject", "S02").returncode == 1
    unsaid = cmrtrials("export", root)
    assert unsaid.returncode == 2
    assert "--dicom, --bids or both" in unsaid.stderr
