"""What intake would make of incoming/, before a night does."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from prefect.logging import disable_run_logger

from flows.intake import BAD_VERDICTS, check_intake, waiting_uploads
from flows.terminal import print_uploads
from storage import Trial, open_trial
from storage.deidentify import KEY_VARIABLE
from storage.errors import ConfigError, NotStoredError
from storage.quarantine import quarantine_upload
from tasks.intake import intake
from tasks.plan import Selection, plan_night
from tasks.publish import Publisher
from tests.flows.trials import snapshot
from tests.storage.drawn_uploads import DEMO_CONFIG, NATIVE, read_upload, write_series, write_visit

PLAN = """\
subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id
S01,V1,2026-03-04,7,,,01
S02,V1,2026-03-04,7,,,01
"""


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Trial with one sound upload."""
    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    (tmp_path / "subjects.csv").write_text(PLAN)
    write_visit(tmp_path / "incoming" / "S01_a")
    return open_trial(tmp_path)


def test_a_sound_upload_would_be_accepted(trial: Trial) -> None:
    """With its visit, its series and its number of files."""
    (checked,) = check_intake(trial)
    assert (checked.entry, checked.visit, checked.verdict, checked.n_files) == (1, "S01/V1", "accepted", 51)
    assert checked.found == "native 3 slices x 8 images; post 3 slices x 9 images; no guide"
    assert (checked.reason, checked.advice) == ("", "")


def test_a_missing_post_series_is_said(trial: Trial) -> None:
    """The visit is taken without it, and nobody should learn only from its row that there is no ECV."""
    for path in (trial.folder / "incoming" / "S01_a").iterdir():
        if "post" in pydicom.dcmread(path).SeriesDescription:
            path.unlink()
    (checked,) = check_intake(trial)
    assert checked.verdict == "accepted"
    assert checked.found == "native 3 slices x 8 images; no post-contrast series, so no ECV; no guide"


def test_missing_weights_are_told_before_the_night(trial: Trial) -> None:
    """It could segment nothing."""
    with pytest.raises(NotStoredError, match=r"segment\.base: no weights with digest sha256:0000"):
        check_intake(_set_rules(trial, base=f'"sha256:{"0" * 64}"'))


def _set_rules(trial: Trial, **lines: str) -> Trial:
    """Write other lines into trial.toml, by their keys."""
    text = (trial.folder / "trial.toml").read_text()
    for key, value in lines.items():
        assert len(re.findall(rf"^{key} = ", text, re.MULTILINE)) == 1
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
    (trial.folder / "trial.toml").write_text(text)
    return open_trial(trial.folder)


def test_preparation_times_are_named_with_their_sources(trial: Trial) -> None:
    """A protocol's T2 and T1rho images can be verified before anything is fitted to them."""
    folder = trial.folder / "incoming" / "S01_a"
    for ms in (0, 20, 50):
        one = replace(NATIVE, description=f"T1rho TSL{ms}", ti_ms=(100.0,), uid_seed=str(ms))
        write_series(folder, one)
    write_series(folder, replace(NATIVE, description="localizer"))
    for path, ms in zip(
        write_series(folder, replace(NATIVE, description="T2 prep", ti_ms=(1.0, 2.0), slice_numbers=(0,))),
        (0, 55),
        strict=True,
    ):
        dataset = pydicom.dcmread(path)
        dataset.EchoTime = ms
        dataset.save_as(path)
    keys = (
        "protocol = '', image_type = '', minutes_since_contrast = [], minutes_since_first = [], description ="
    )
    other = f"{{ t2 = {{ {keys} 'T2' }}, t1rho = {{ {keys} 'T1rho' }} }}"
    (checked,) = check_intake(_set_rules(trial, other=other))
    without = (
        "t1rho 3 series: 3 slices x 3 images without a spin-lock time that varies "
        "(intake.spin_lock names no source)"
    )
    listed = (
        "native 3 slices x 8 images; post 3 slices x 9 images; no guide; t2 1 series: 1 slice x 2 images, "
    )
    listed += "T2 preparation 0, 55 ms from EchoTime (0018,0081); "
    assert (checked.verdict, checked.found) == ("accepted", f"{listed}{without}; 1 other series")
    rule = "[{ attribute = 'SeriesDescription', pattern = 'TSL(?P<ms>[0-9]+)' }]"
    (checked,) = check_intake(_set_rules(trial, spin_lock=rule))
    times = (
        "t1rho 3 series: 3 slices x 3 images, spin-lock time 0, 20, 50 ms from SeriesDescription (0008,103E)"
    )
    assert checked.found == f"{listed}{times}; 1 other series"


def test_the_delay_after_the_r_wave_is_shown(trial: Trial) -> None:
    """Native and post-contrast images of different cardiac phases make an ECV doubtful."""
    for path in (trial.folder / "incoming" / "S01_a").iterdir():
        dataset = pydicom.dcmread(path)
        is_native = dataset.SeriesDescription == "MOLLI native"
        dataset.TriggerTime = 610 if is_native else 300 + dataset.InstanceNumber
        dataset.save_as(path)
    (checked,) = check_intake(trial)
    assert checked.found == (
        "native 3 slices x 8 images, 610 ms after the R wave; "
        "post 3 slices x 9 images, 301 to 327 ms after the R wave; no guide"
    )


def test_a_file_that_would_be_left_out_is_named_by_its_number(trial: Trial) -> None:
    """The site looks it up by its place in the folder."""
    (trial.folder / "incoming" / "S01_a" / "0000_broken.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (checked,) = check_intake(trial)
    assert checked.verdict == "accepted in part"
    assert checked.reason.startswith("file 1: its header")
    assert checked.advice == "send again: file 1"


def test_refused_stray_and_double_uploads_say_what_to_do(trial: Trial) -> None:
    """One row for each entry of incoming, none with a name of the site's."""
    incoming = trial.folder / "incoming"
    write_series(incoming / "S02_a", replace(NATIVE, patient_id="S02", slice_numbers=(0, 1)))
    shutil.copytree(incoming / "S01_a", incoming / "S01_again")
    (incoming / "Jane Doe.pdf").write_text("letter")
    checked = check_intake(trial)
    assert [(one.entry, one.verdict) for one in checked] == [
        (1, "refused"),
        (2, "accepted"),
        (3, "taken before"),
        (4, "refused"),
    ]
    assert "2 slices, expected 3" in checked[3].reason
    assert all(one.advice for one in checked if one.verdict in BAD_VERDICTS)
    assert "Doe" not in repr(checked)


def test_an_arriving_upload_says_when_it_is_taken(trial: Trial) -> None:
    """Nobody needs to do anything."""
    text = (trial.folder / "trial.toml").read_text()
    (trial.folder / "trial.toml").write_text(text.replace("stable_minutes = 0.0", "stable_minutes = 10.0"))
    (checked,) = check_intake(open_trial(trial.folder))
    assert checked.verdict == "arriving"
    assert checked.reason == "it changed 0 minutes ago"
    assert checked.advice == "nothing: it is taken when unchanged for 10 minutes"


def test_a_refused_visit_is_looked_at_again_under_other_rules(trial: Trial) -> None:
    """Whoever mends trial.toml wants to see what the next night will say, not what the last one said."""
    _publish_failure(trial, "refused", "error", "3 slices, expected 5")
    (checked,) = check_intake(trial)
    assert (checked.verdict, checked.reason) == ("refused", "3 slices, expected 5")
    text = (trial.folder / "trial.toml").read_text()
    changed = text.replace("position_tolerance_mm = 1.0", "position_tolerance_mm = 0.9", 1)
    assert changed != text
    (trial.folder / "trial.toml").write_text(changed)
    (checked,) = check_intake(open_trial(trial.folder))
    assert checked.verdict == "accepted"


def _publish_failure(trial: Trial, state: str, kind: str, reason: str) -> None:
    plan = plan_night(trial, Selection())
    publisher = Publisher(trial.folder, trial.config, plan.matching, "run", "tester", "test")
    with disable_run_logger():
        publisher.failure(plan.jobs[0], state, "intake", kind, reason)


def test_what_the_next_night_tries_again_is_looked_at_again(trial: Trial) -> None:
    """What passed, such as a full disk, and what was matched under another plan."""
    _publish_failure(trial, "failed", "passing", "OSError: No space left on device")
    (checked,) = check_intake(trial)
    assert checked.verdict == "accepted"
    _publish_failure(trial, "failed", "error", "for a reason")
    (checked,) = check_intake(trial)
    assert (checked.verdict, checked.reason) == ("taken before", "the visit is failed")
    (trial.folder / "subjects.csv").write_text(PLAN.replace("S01,V1,2026-03-04", "S01,V1,2026-03-05"))
    (checked,) = check_intake(trial)
    assert checked.verdict == "accepted"


def test_images_that_are_stored_are_not_read_again(trial: Trial) -> None:
    """A night after another limit of QC computes from the store; what changed in it cannot refuse them."""
    (job,) = plan_night(trial, Selection()).jobs
    config = trial.config
    with disable_run_logger():
        intake.fn(
            job.visit,
            job.planned,
            job.uploads,
            config.intake,
            config.privacy,
            None,
            job.digests["intake"],
            False,
        )
    (checked,) = check_intake(trial)
    assert (checked.verdict, checked.n_files) == ("taken before", None)
    assert "computed again from the images as they were taken" in checked.reason


@pytest.mark.parametrize("published", [False, True], ids=["new", "published"])
def test_a_missing_key_stops_the_look_as_it_stops_the_night(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    """Also for a visit that was published before the trial wanted cleaned headers."""
    if published:
        _publish_failure(trial, "refused", "error", "3 slices, expected 5")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    text = (trial.folder / "trial.toml").read_text()
    (trial.folder / "trial.toml").write_text(text.replace('headers = "none"', 'headers = "basic"'))
    changed = open_trial(trial.folder)
    for look in (check_intake, lambda one: plan_night(one, Selection())):
        with pytest.raises(ConfigError, match="CMR_PSEUDONYM_KEY is missing"):
            look(changed)


def test_a_missing_incoming_stops_the_look_as_it_stops_the_night(trial: Trial) -> None:
    """A lost mount is no site that sends nothing."""
    shutil.rmtree(trial.folder / "incoming")
    for look in (check_intake, lambda one: plan_night(one, Selection())):
        with pytest.raises(NotStoredError, match="incoming/ is missing: make it, or mount"):
            look(trial)


def test_uploads_are_looked_at_in_the_order_of_their_arrival(trial: Trial) -> None:
    """Of two files with one SOPInstanceUID the first stands, as in the night; folders' names say nothing."""
    incoming = trial.folder / "incoming"
    (incoming / "S01_a").rename(incoming / "S01_b")
    shutil.copytree(incoming / "S01_b", incoming / "S01_a")
    file = min((incoming / "S01_a").iterdir())
    changed = pydicom.dcmread(file)
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(file)
    first, second = check_intake(trial)
    assert (second.verdict, first.verdict) == ("accepted", "accepted in part")
    assert "the first stands" in first.reason
    assert first.advice.startswith("find out which of the two is right, and take the other out")


def test_stray_uploads_wait_in_sight(trial: Trial) -> None:
    """Also after the night that named them; one that was mended or removed does not."""
    (trial.folder / "incoming" / "S09_a").mkdir()
    (trial.folder / "incoming" / "S09_a" / "x").write_text("x")
    upload = read_upload(trial.folder, "S09_a")
    quarantine_upload(trial.folder, upload, "no planned subject", judged_by="rules and plan")
    (waiting,) = waiting_uploads(trial)
    assert (waiting.upload_id, waiting.verdict, waiting.reason) == (
        upload.upload_id,
        "no planned visit",
        "no planned subject",
    )
    shutil.rmtree(trial.folder / "incoming" / "S09_a")
    assert waiting_uploads(trial) == ()


def test_a_zip_file_that_must_not_be_unpacked_stays_in_sight(trial: Trial) -> None:
    """It has no visit and no files, and its listing alone does not show that it was refused."""
    (trial.folder / "incoming" / "S02_a.zip").write_bytes(b"no zip file")
    (_, checked) = check_intake(trial)
    assert (checked.verdict, checked.n_files) == ("refused", None)
    assert "subjects.csv" not in checked.advice
    plan = plan_night(trial, Selection())
    (stray,) = plan.stray
    quarantine_upload(trial.folder, stray.upload, stray.reason, judged_by=stray.judged_by)
    (waiting,) = waiting_uploads(trial)
    assert (waiting.entry, waiting.verdict, waiting.reason) == (2, "refused", checked.reason)


def test_the_operator_sees_what_does_not_agree(trial: Trial) -> None:
    """Folder, PatientID and study date side by side, before the night and after it; never in a log."""
    write_series(trial.folder / "incoming" / "Doe\x1b[2J", replace(NATIVE, patient_id="S02"))
    expected = "folder 'Doe?[2J', PatientID 'S02', StudyDate '2026-03-04'"
    checked, _ = check_intake(trial)
    assert (checked.verdict, checked.site_words) == ("no planned visit", expected)
    assert "--names" in checked.advice
    assert "Doe" not in repr(checked)
    (stray,) = plan_night(trial, Selection()).stray
    quarantine_upload(trial.folder, stray.upload, stray.reason, judged_by=stray.judged_by, found=stray.found)
    assert plan_night(trial, Selection()).stray[0].is_old
    assert check_intake(trial)[0].site_words == expected


def test_names_are_printed_only_when_asked_for(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    """A nightly job may write the table to a file."""
    checked = check_intake(trial)
    print_uploads("uploads", checked)
    assert "S01_a" not in capsys.readouterr().out
    print_uploads("uploads", checked, with_names=True)
    assert "folder 'S01_a'" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_writes_nothing_and_prints_lines_into_a_pipe(trial: Trial, tmp_path: Path) -> None:
    """Exit code 1 where somebody must act; a zip file leaves nothing behind either."""
    incoming = trial.folder / "incoming"
    shutil.make_archive(str(incoming / "S01_packed"), "zip", incoming, "S01_a")
    shutil.rmtree(incoming / "S01_a")
    (incoming / "letter.pdf").write_text("x")
    (tmp_path / "temporary").mkdir()
    before = snapshot(trial.folder)
    done = subprocess.run(
        [Path(sys.executable).with_name("cmrtrials"), "intake", trial.folder, "--check"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
    )
    assert snapshot(trial.folder) == before
    assert list((tmp_path / "temporary").iterdir()) == []
    heading, accepted, stray = (line.split("\t") for line in done.stdout.splitlines())
    assert heading[:3] == ["entry", "upload", "visit"]
    assert accepted[2:3] + accepted[5:6] == ["S01/V1", "accepted"]
    assert stray[5] == "refused"
    assert (done.returncode, done.stderr) == (1, "")
