"""Folders and URLs as places of a trial."""

import pickle
from pathlib import Path

import pytest

from storage.errors import ConfigError, NotStoredError
from storage.place import Place, local_folder, relative_name, to_place
from storage.trial import open_trial
from tests.storage.drawn_uploads import DEMO_CONFIG


def test_a_folder_is_a_path_with_its_full_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have another working directory."""
    monkeypatch.chdir(tmp_path)
    assert to_place("trial") == tmp_path / "trial"
    assert type(to_place(tmp_path)) is type(tmp_path)


@pytest.mark.parametrize("url", ["s3://bucket/trial", "s3:///bucket/trial/", "S3:/bucket/trial"])
def test_a_url_is_kept(url: str) -> None:
    """The last form is what is left of a URL that went through pathlib."""
    assert str(to_place(url)) == "s3://bucket/trial"


@pytest.mark.parametrize("url", ["gs://bucket/trial", "http://host/trial", "s3://"])
def test_a_store_without_exclusive_objects_is_refused(url: str) -> None:
    """Two nights could hold a trial there at once."""
    with pytest.raises(ConfigError, match=r"a folder, or under a URL of the form s3://BUCKET/TRIAL"):
        to_place(url)


def test_what_needs_a_folder_says_so() -> None:
    """It names itself and the trial."""
    with pytest.raises(ConfigError, match=r"cmrtrials export needs a trial in a local folder, s3://b/t is"):
        local_folder(to_place("s3://b/t"), "cmrtrials export")


def test_places_have_names_in_their_root_and_travel_to_workers(place: Place) -> None:
    """A worker gets them pickled."""
    copy = pickle.loads(pickle.dumps(place))
    assert (copy, str(copy)) == (place, str(place))
    assert relative_name(place / "tables" / "scans", place) == "tables/scans"


def test_a_trial_is_opened_where_it_lies(place: Place) -> None:
    """With its plan."""
    with pytest.raises(NotStoredError, match=r"trial\.toml is missing"):
        open_trial(str(place))
    (place / "trial.toml").write_text(DEMO_CONFIG.read_text())
    with pytest.raises(NotStoredError, match=r"subjects\.csv is missing"):
        open_trial(str(place)).plan()
