"""What a site writes into an upload stays in incoming/ and quarantine/."""

import json
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import zarr
from pydicom.valuerep import DA

from storage import open_trial
from storage.deidentify import KEY_VARIABLE
from storage.source_headers import stored_source_header
from tests.flows.conftest import running_site
from tests.flows.leaks import (
    BIRTH_DATES,
    MARK,
    date_forms,
    everything_in,
    leaks,
    plant_in_dicom,
    plant_in_nifti,
)
from tests.flows.trials import Cmrtrials, states
from tests.storage.drawn_uploads import BROKEN_DICOM

pytestmark = pytest.mark.slow

KEY = bytes(range(32)).hex()
OPEN_PLACES = {"incoming", "quarantine"}

RULES = {
    "'(?P<subject>.+)'": "'(?P<subject>[^ ]+)( .*)?'",
    'headers = "none"': 'headers = "basic"',
    'dates = "keep"': 'dates = "shift"',
}


@dataclass(frozen=True)
class PlantedTrial:
    """A trial whose uploads are full of secrets, after its nights."""

    root: Path
    """The trial."""
    surroundings: Path
    """Prefect's home and the temporary folder of all commands."""
    secrets: set[str]
    """What must not be found."""
    outputs: dict[str, subprocess.CompletedProcess[str]]
    """What each command printed."""


@pytest.fixture(scope="module")
def planted(
    small_trial: Path,
    cmrtrials: Cmrtrials,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> PlantedTrial:
    """Nights over planted uploads: one with strays, one with a wrong plan, one that supersedes a result."""
    root = tmp_path_factory.mktemp("planted") / "trial"
    shutil.copytree(small_trial, root)
    secrets = {MARK, KEY, *BIRTH_DATES} | _plant(root)
    surroundings = tmp_path_factory.mktemp("surroundings")
    (surroundings / "tmp").mkdir()
    own = {
        KEY_VARIABLE: KEY,
        "PREFECT_HOME": str(surroundings / "prefect"),
        "TMPDIR": str(surroundings / "tmp"),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG",
    }
    plan = (root / "subjects.csv").read_text()
    log = surroundings / "site.log"
    with running_site(environment | own, n_workers=1, log=log) as site:
        outputs = {"night": cmrtrials("run", root, **own, **site)}
        wrong = f"{MARK}^Jane,{MARK}^V1,{BIRTH_DATES[1]}x,{MARK},{MARK},{BIRTH_DATES[0]},{MARK},{MARK}^site\n"
        (root / "subjects.csv").write_text(plan + wrong)
        outputs["wrong plan"] = cmrtrials("run", root, **own, **site)
        outputs["wrong plan, status"] = cmrtrials("status", root, **own)
        (root / "subjects.csv").write_text(_with_another_hematocrit(plan))
        outputs["second night"] = cmrtrials("run", root, **own, **site)
    outputs["export"] = cmrtrials("export", root, "--dicom", "--bids", **own)
    for command in (("status", root), ("query", root, "select * from flags"), ("audit", "verify", root)):
        outputs[command[0]] = cmrtrials(*command, **own)
    return PlantedTrial(root, surroundings, secrets, outputs)


def _plant(root: Path) -> set[str]:
    """Plant names, ids, birth dates and comments wherever a site can write; give the original UIDs."""
    rules = (root / "trial.toml").read_text()
    for demo, planted in RULES.items():
        assert demo in rules
        rules = rules.replace(demo, planted, 1)
    (root / "trial.toml").write_text(rules)
    incoming = root / "incoming"
    uids: set[str] = set()
    for folder in sorted(incoming.iterdir()):
        subject_id = folder.name.split("_")[0]
        for number, path in enumerate(sorted(folder.glob("*.dcm"))):
            uids |= plant_in_dicom(path, subject_id)
            place = folder / f"{MARK}^DOE {BIRTH_DATES[0]}" / f"{MARK} Jane {number}.dcm"
            place.parent.mkdir(exist_ok=True)
            path.rename(place)
        for path in sorted(folder.glob("*.nii.gz")):
            plant_in_nifti(path)
            path.rename(folder / f"{MARK} Jane {path.name}")
        (folder / f"{MARK} broken.dcm").write_bytes(BROKEN_DICOM.replace(b"Jane Doe", f"{MARK}Jane".encode()))
        (folder / f"{MARK} letter.pdf").write_bytes(f"%PDF-1.4 {MARK}".encode())
        folder.rename(incoming / f"{folder.name}_{MARK}_JANE_{BIRTH_DATES[0]}")
    first = next(incoming.glob("S01_*"))
    stranger = incoming / f"S02_{MARK}_STRANGER"
    stranger.mkdir()
    image = sorted(first.rglob("*.dcm"))[1]
    foreign = pydicom.dcmread(image)
    foreign.PatientID = f"{MARK}4711"
    foreign.save_as(stranger / f"{MARK}.dcm")
    with zipfile.ZipFile(incoming / f"{MARK}_JANE.zip", "w") as archive:
        archive.write(image, f"{MARK}/{MARK}.dcm")
        archive.comment = f"{MARK} Jane, born {BIRTH_DATES[1]}".encode()
    (incoming / f"{MARK} stray.txt").write_text(f"{MARK} Jane")
    return uids


def _with_another_hematocrit(plan: str) -> str:
    lines = plan.splitlines()
    cells = lines[1].split(",")
    cells[4] = "0.37"
    return "\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n"


def test_the_nights_did_what_they_were_meant_to(planted: PlantedTrial) -> None:
    """A night that broke off leaks nothing, and proves nothing."""
    codes = {name: output.returncode for name, output in planted.outputs.items()}
    assert codes == {
        "night": 1,
        "wrong plan": 2,
        "wrong plan, status": 2,
        "second night": 0,
        "status": 0,
        "query": 0,
        "export": 0,
        "audit": 0,
    }, planted.outputs
    assert set(states(planted.root).values()) == {"flagged"}
    assert "row 4: subject_id: expected" in planted.outputs["wrong plan"].stderr
    assert list((planted.root / "history").rglob("scans.parquet"))
    flags = set(pd.read_parquet(planted.root / "tables" / "flags")["code"])
    assert "file_refused" in flags


def test_the_search_finds_what_is_there(planted: PlantedTrial, tmp_path: Path) -> None:
    """Compressed values, attributes and rows too; else an empty search would prove nothing."""
    secret = f"{MARK}DOE"
    group = zarr.create_group(tmp_path / "store.zarr")
    values = np.frombuffer(secret.encode() * 50, dtype=np.uint8)
    group.create_array("values", data=values, compressors=zarr.codecs.ZstdCodec())
    group.create_group("native").attrs["name"] = secret
    pd.DataFrame({"name": [secret.lower()] * 50}).to_parquet(tmp_path / "rows.parquet", compression="zstd")
    places = "\n".join(leaks(everything_in(tmp_path), {MARK}))
    for place in ("values of store.zarr/values", "attributes of store.zarr/native", "rows of rows.parquet"):
        assert place in places
    assert leaks(everything_in(planted.root / "incoming"), planted.secrets)
    database = "\n".join(place for place, _ in everything_in(planted.surroundings))
    assert "dump of prefect/prefect.db" in database


def test_no_secret_is_in_the_record(planted: PlantedTrial) -> None:
    """Arrays, tables, history, audit log, and the names of their files."""
    searched = [path for path in planted.root.iterdir() if path.name not in OPEN_PLACES]
    assert {"arrays", "tables", "history", "audit"} <= {path.name for path in searched}
    for path in searched:
        if path.is_dir():
            assert not leaks(everything_in(path), planted.secrets)
        else:
            assert not leaks(iter([(path.name, path.read_bytes())]), planted.secrets)


def test_no_real_date_is_in_what_can_be_handed_on(planted: PlantedTrial) -> None:
    """The trial shifts its dates: neither an examination's nor the plan's or a blood sample's is there."""
    plan = pd.read_csv(planted.root / "subjects.csv", parse_dates=["visit_date", "hematocrit_date"])
    days = {day.date() for column in ("visit_date", "hematocrit_date") for day in plan[column]}
    images = [path for path in (planted.root / "incoming").rglob("*.dcm") if "broken" not in path.name]
    days |= {DA(pydicom.dcmread(path, specific_tags=["StudyDate"]).StudyDate) for path in images}
    forms = set().union(*(date_forms(day) for day in days))
    assert len(days) >= 2
    for folder in ("arrays", "tables", "history"):
        assert not leaks(everything_in(planted.root / folder), forms)


def test_no_secret_reaches_prefect_or_a_temporary_folder(planted: PlantedTrial) -> None:
    """Its database keeps messages and logs for good; the key is a secret too."""
    assert not leaks(everything_in(planted.surroundings), planted.secrets)


def test_no_secret_is_printed(planted: PlantedTrial) -> None:
    """Logs at their most talkative."""
    printed = (
        (f"{name}, {stream}", text.encode())
        for name, output in planted.outputs.items()
        for stream, text in (("stdout", output.stdout), ("stderr", output.stderr))
    )
    assert not leaks(printed, planted.secrets)
    by_workers = (planted.surroundings / "site.log").read_text()
    assert "intake S01/V1 executed" in by_workers
    assert not leaks(iter([("workers", by_workers.encode())]), planted.secrets)


def test_the_operator_finds_all_three_values_of_a_mismatch(planted: PlantedTrial) -> None:
    """In quarantine/, where the site's own words may stand."""
    reasons = [json.loads(path.read_text()) for path in (planted.root / "quarantine").rglob("reason.json")]
    (found,) = [
        reason["found"] for reason in reasons if "STRANGER" in str(reason.get("found", {}).get("folder"))
    ]
    assert found["folder"] == f"S02_{MARK}_STRANGER"
    assert found["PatientID"] == f"{MARK}4711"
    assert found["StudyDate"].startswith("2026-01-")
    assert not any(MARK in reason["reason"] for reason in reasons)


def test_cleaned_headers_are_kept_for_exports(planted: PlantedTrial) -> None:
    """By the trial's rules, and with pseudonymous references to each source image."""
    arrays = open_trial(planted.root).arrays("S01", "V1")
    source = stored_source_header(arrays, "native")
    assert source is not None
    header = pydicom.Dataset.from_json(source.header)
    assert (header.PatientID, header.PatientIdentityRemoved) == ("S01", "YES")
    assert len({uid for row in source.sop_instance_uids for uid in row}) == 3 * 8
    assert "InlineBinary" not in json.dumps(source.header)


def test_exports_go_by_the_rules_of_privacy(planted: PlantedTrial) -> None:
    """They lie among what is searched for secrets; references are pseudonyms, dates are moved ones."""
    assert planted.outputs["export"].returncode == 0, planted.outputs["export"].stderr
    arrays = open_trial(planted.root).arrays("S01", "V1")
    source = stored_source_header(arrays, "native")
    assert source is not None
    image = pydicom.dcmread(planted.root / "exports" / "dicom" / "S01" / "V1" / "t1_native.dcm")
    (series,) = image.ReferencedSeriesSequence
    named = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert named == {uid for row in source.sop_instance_uids for uid in row}
    assert (image.PatientID, str(image.PatientName)) == ("S01", "")
    header = pydicom.Dataset.from_json(source.header)
    assert image.StudyDate == image.ContentDate == header.StudyDate
    assert len(list((planted.root / "exports" / "bids").glob("sub-*/ses-*/anat/*_T1map.nii.gz"))) == 4


def test_a_night_without_the_key_is_refused(planted: PlantedTrial, cmrtrials: Cmrtrials) -> None:
    """Clearly, and before anything is read."""
    refused = cmrtrials("run", planted.root)
    assert refused.returncode == 2
    assert "CMR_PSEUDONYM_KEY is missing" in refused.stderr
