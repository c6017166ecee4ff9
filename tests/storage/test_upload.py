"""Uploads in incoming/ and the visits they belong to."""

import math
import os
import shutil
import time
import traceback
import zipfile
from pathlib import Path

import pytest

from storage.errors import RefusedError, UploadChangedError
from storage.upload import (
    hash_upload,
    is_unchanged,
    list_upload,
    list_uploads,
    open_upload,
)
from tests.storage.drawn_uploads import (
    NATIVE,
    demo_config,
    on_slices,
    pack_damaged,
    read_upload,
    unreadable,
    write_series,
)

RULES = demo_config().uploads


def test_an_absent_incoming_holds_no_uploads(tmp_path: Path) -> None:
    """A new trial has none."""
    assert list_uploads(tmp_path, RULES) == ()


def test_listing_opens_no_file(incoming: Path) -> None:
    """A night with nothing new must not read gigabytes: unreadable files are listed all the same."""
    file = next((incoming / "S01_a").iterdir())
    shutil.rmtree(incoming / "S01_a")
    (incoming / "S01_a").mkdir()
    os.mkfifo(file)
    (listing,) = list_uploads(incoming.parent, RULES)
    assert "special files" in str(listing.unusable_reason)


@pytest.mark.parametrize("change", ["content", "time", "name", "more"])
def test_any_change_of_a_folder_changes_its_fingerprint(incoming: Path, change: str) -> None:
    """Else a mended upload would be taken for the broken one."""
    (before,) = list_uploads(incoming.parent, RULES)
    file = next((incoming / "S01_a").iterdir())
    if change == "content":
        file.write_bytes(file.read_bytes() + b"\0")
    elif change == "time":
        os.utime(file, ns=(1, 1))
    elif change == "name":
        file.rename(file.with_name("renamed"))
    else:
        (incoming / "S01_a" / "notes").mkdir()
        (incoming / "S01_a" / "notes" / "a.txt").write_text("")
    (after,) = list_uploads(incoming.parent, RULES)
    assert after.fingerprint != before.fingerprint


def test_an_untouched_folder_keeps_its_fingerprint(incoming: Path) -> None:
    """A second night finds nothing new."""
    assert list_uploads(incoming.parent, RULES) == list_uploads(incoming.parent, RULES)


def test_stray_files_are_listed_with_a_reason(incoming: Path) -> None:
    """A loose file is not passed over in silence."""
    (incoming / "more.pdf").write_bytes(b"%PDF")
    listing = list_uploads(incoming.parent, RULES)[-1]
    assert "put the files of one visit into a folder" in str(listing.unusable_reason)
    with pytest.raises(RefusedError, match="is no folder and no zip file"):
        hash_upload(listing)


def test_hidden_entries_are_passed_over(incoming: Path) -> None:
    """Transfer tools hide a copy until it is complete, and desktops leave files about."""
    (incoming / ".S02_a.part").mkdir()
    (incoming / ".DS_Store").write_text("")
    assert [listing.path.name for listing in list_uploads(incoming.parent, RULES)] == ["S01_a"]


def test_an_empty_folder_is_unusable(incoming: Path) -> None:
    """It says so instead of matching nothing."""
    (incoming / "S02_a").mkdir()
    assert list_uploads(incoming.parent, RULES)[-1].unusable_reason == "holds no files"


def test_symbolic_links_are_not_followed(incoming: Path, tmp_path: Path) -> None:
    """A link could lead anywhere on the machine."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret")
    (incoming / "S01_a" / "link").symlink_to(secret)
    (incoming / "S02_link").symlink_to(secret)
    inside, top = list_uploads(tmp_path, RULES)
    assert "1 symbolic links" in str(inside.unusable_reason)
    assert "is no folder" in str(top.unusable_reason)


def test_files_are_numbered_by_relative_path(incoming: Path) -> None:
    """Numbers stand for names and must not depend on the file system's order."""
    upload = read_upload(incoming.parent)
    names = [file.path.name for file in upload.files]
    assert [file.number for file in upload.files] == list(range(1, 9))
    assert names == sorted(names)


def test_the_same_content_in_two_folders_is_one_upload(incoming: Path) -> None:
    """Sites upload things twice; id and digest say so, whatever the folders are called."""
    shutil.copytree(incoming / "S01_a", incoming / "S01_copy")
    first, copy = (hash_upload(listing) for listing in list_uploads(incoming.parent, RULES))
    assert (first.upload_id, first.content_digest) == (copy.upload_id, copy.content_digest)


def test_other_content_is_another_upload(incoming: Path) -> None:
    """The id is that of the bytes, whatever the folder's name."""
    before = read_upload(incoming.parent)
    before.files[0].path.write_bytes(b"mended")
    assert read_upload(incoming.parent).upload_id != before.upload_id


def test_an_upload_that_changes_is_refused(incoming: Path) -> None:
    """Half an upload must not become a visit's result."""
    (listing,) = list_uploads(incoming.parent, RULES)
    (incoming / "S01_a" / "late").write_text("")
    with pytest.raises(UploadChangedError, match="changed while it was read"):
        hash_upload(listing)
    shutil.rmtree(incoming / "S01_a")
    with pytest.raises(UploadChangedError, match="changed while it was read"):
        hash_upload(listing)


def test_an_entry_that_is_gone_when_it_is_looked_into_is_still_arriving(incoming: Path) -> None:
    """A transfer tool renames a folder under the listing; that is no refusal."""
    listing = list_upload(incoming / "S01_renamed", RULES)
    assert (listing.is_arriving, listing.unusable_reason) == (True, None)
    with pytest.raises(UploadChangedError, match="read again once it is complete"):
        hash_upload(listing)


@pytest.mark.parametrize("inside", [".", "Jane_Doe"])
def test_a_folder_that_cannot_be_read_keeps_no_other_upload_waiting(public_root: Path, inside: str) -> None:
    """One site's wrong rights must not stop the night; the reason holds no name of theirs."""
    for name in ("S01_a", "S02_a"):
        (public_root / "incoming" / name / "Jane_Doe").mkdir(parents=True)
        (public_root / "incoming" / name / "Jane_Doe" / "IM1").write_text(name)
    with unreadable(public_root / "incoming" / "S01_a" / inside):
        closed, fine = list_uploads(public_root, RULES)
        assert list_uploads(public_root, RULES)[0] == closed
        with pytest.raises(RefusedError, match=r"^cannot be read: Permission denied$"):
            hash_upload(closed)
    assert closed.unusable_reason == "cannot be read: Permission denied"
    assert (fine.unusable_reason, fine.is_arriving) == (None, False)


def test_a_file_that_cannot_be_read_is_named_by_its_number(public_root: Path) -> None:
    """Neither the text nor what a log shows of the error's origin may hold the site's path."""
    file = public_root / "incoming" / "S01_a" / "Jane_Doe.dcm"
    file.parent.mkdir(parents=True)
    file.write_text("")
    with unreadable(file):
        (listing,) = list_uploads(public_root, RULES)
        with pytest.raises(RefusedError, match=r"^file 1 cannot be read: Permission denied$") as refused:
            hash_upload(listing)
    assert "Jane" not in "".join(traceback.format_exception(refused.value))


def test_folders_may_be_nested_deeper_than_calls(incoming: Path) -> None:
    """A path holds two thousand folders, Python's stack half as many."""
    folders = [incoming / "S02_a"]
    while len(folders) < 1500:
        folders.append(folders[-1] / "d")
    for folder in folders:
        folder.mkdir()
    try:
        assert list_uploads(incoming.parent, RULES)[-1].unusable_reason == "holds no files"
    finally:
        for folder in reversed(folders):  # pytest could not remove them
            folder.rmdir()


def test_an_upload_is_unchanged_until_something_happens_to_it(incoming: Path) -> None:
    """What was read is stored only if it is what lies there."""
    upload = read_upload(incoming.parent)
    assert is_unchanged(upload)
    upload.files[0].path.write_bytes(b"late")
    assert not is_unchanged(upload)
    shutil.rmtree(upload.path)
    assert not is_unchanged(upload)


def test_an_upload_that_cannot_be_read_any_more_is_not_unchanged(public_root: Path) -> None:
    """Nobody can tell, so the next night looks again."""
    write_series(public_root / "incoming" / "S01_a", on_slices(NATIVE, 0))
    upload = read_upload(public_root)
    with unreadable(upload.path):
        assert not is_unchanged(upload)


def test_records_show_no_path(incoming: Path) -> None:
    """Their representation ends up in logs."""
    (listing,) = list_uploads(incoming.parent, RULES)
    assert "S01_a" not in repr((listing, hash_upload(listing)))


def _pack(folder: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                zipped.write(file, f"{inside}{file.relative_to(folder).as_posix()}")
    return path


@pytest.mark.parametrize("inside", ["", "S01_a/", "export/S01_a/"], ids=["bare", "named", "nested"])
def test_a_zip_file_and_the_folder_it_was_made_of_are_one_upload(incoming: Path, inside: str) -> None:
    """Whoever packs a folder may pack its name or not; files have the same numbers either way."""
    (incoming / "S01_a" / "more").mkdir()
    (incoming / "S01_a" / "more" / "notes.txt").write_text("x")
    _pack(incoming / "S01_a", incoming / "S01_b.ZIP", inside)
    folder, zipped = (hash_upload(listing) for listing in list_uploads(incoming.parent, RULES))
    assert (folder.content_digest, folder.upload_id) == (zipped.content_digest, zipped.upload_id)
    assert [file.sha256 for file in folder.files] == [file.sha256 for file in zipped.files]
    assert (folder.name, zipped.name) == ("S01_a", "S01_b")
    assert zipped.files[-1].site_path == f"S01_b.ZIP/{inside}more/notes.txt"


def test_a_folder_around_all_files_counts_for_nothing(incoming: Path) -> None:
    """Nor does it where it was not packed."""
    before = read_upload(incoming.parent)
    shutil.copytree(incoming / "S01_a", incoming / "S01_b" / "Jane_Doe" / "export")
    assert read_upload(incoming.parent, "S01_b").content_digest == before.content_digest


def test_an_open_zip_file_can_be_read(incoming: Path) -> None:
    """Its files lie outside of the trial while it is open, and nowhere after."""
    folder = read_upload(incoming.parent)
    _pack(incoming / "S01_a", incoming / "S01_b.zip")
    before = sorted(incoming.parent.rglob("*"))
    with open_upload(read_upload(incoming.parent, "S01_b.zip")) as opened:
        paths = [file.path for file in opened.files]
        assert [path.read_bytes() for path in paths] == [file.path.read_bytes() for file in folder.files]
        assert sorted(incoming.parent.rglob("*")) == before
    assert not any(path.exists() or path.parent.exists() for path in paths)


def test_a_zip_file_that_changes_is_read_again(incoming: Path) -> None:
    """What was planned is no longer what lies there."""
    _pack(incoming / "S01_a", incoming / "S01_b.zip")
    upload = read_upload(incoming.parent, "S01_b.zip")
    with zipfile.ZipFile(incoming / "S01_b.zip", "w") as zipped:
        zipped.writestr("late", "x")
    with pytest.raises(UploadChangedError, match="changed while it was read"), open_upload(upload):
        pass
    assert not is_unchanged(upload)


def test_a_dangerous_zip_file_is_refused(incoming: Path) -> None:
    """The reasons are those of `storage.zipped`; the upload is listed, not passed over."""
    with zipfile.ZipFile(incoming / "S02_a.zip", "w") as zipped:
        zipped.writestr("../x", "")
    (_, listing) = list_uploads(incoming.parent, RULES)
    with pytest.raises(RefusedError, match="1 paths that lead out of it"):
        hash_upload(listing)


def test_a_damaged_member_of_a_zip_file_costs_that_file(incoming: Path) -> None:
    """The other files are as they were packed; it is another upload than the whole one."""
    folder = read_upload(incoming.parent)
    pack_damaged(incoming / "S01_a", incoming / "S02_a.zip", folder.files[2].path.name)
    upload = read_upload(incoming.parent, "S02_a.zip")
    assert [file.number for file in upload.files if file.is_damaged] == [3]
    sound = [file.sha256 for file in folder.files]
    assert [file.sha256 for file in upload.files if not file.is_damaged] == [*sound[:2], *sound[3:]]
    assert upload.content_digest != folder.content_digest
    with open_upload(upload) as opened:
        assert [file.is_damaged for file in opened.files] == [file.is_damaged for file in upload.files]
        assert opened.files[0].path.read_bytes() == folder.files[0].path.read_bytes()


def test_a_damaged_file_is_not_taken_for_what_is_left_of_it(incoming: Path) -> None:
    """A zip file that holds those bytes and no more is another upload."""
    name = sorted(file.name for file in (incoming / "S01_a").iterdir())[0]
    pack_damaged(incoming / "S01_a", incoming / "S02_a.zip", name)
    damaged = read_upload(incoming.parent, "S02_a.zip")
    with open_upload(damaged) as opened:
        rest = opened.files[0].path.read_bytes()
    (incoming / "S01_a" / name).write_bytes(rest)
    cut_off = read_upload(incoming.parent)
    assert [file.sha256 for file in cut_off.files] == [file.sha256 for file in damaged.files]
    assert cut_off.content_digest != damaged.content_digest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_files": 7}, "holds 8 files, uploads.max_files allows 7"),
        ({"max_file_mib": 0.0005}, "holds a file of 0 MiB, uploads.max_file_mib allows 0.0005"),
        ({"max_total_mib": 0.005}, "holds 0 MiB, uploads.max_total_mib allows 0.005"),
    ],
    ids=["count", "file", "total"],
)
def test_absurd_folders_are_refused_unread(incoming: Path, changes: dict[str, float], reason: str) -> None:
    """A terabyte of nothing would be hashed for hours."""
    (listing,) = list_uploads(incoming.parent, RULES.model_copy(update=changes))
    assert listing.unusable_reason == reason


def test_an_upload_arrives_when_it_has_lain_unchanged(incoming: Path) -> None:
    """Copies keep the scanner's times, so it is the change of status that counts."""
    patient = RULES.model_copy(update={"stable_minutes": 10.0})
    for file in (incoming / "S01_a").iterdir():
        os.utime(file, ns=(1, 1))
    (listing,) = list_uploads(incoming.parent, patient)
    assert (listing.is_arriving, listing.unusable_reason) == (True, None)
    with pytest.raises(UploadChangedError):
        hash_upload(listing)
    hasty = RULES.model_copy(update={"stable_minutes": 0.2 / 60})
    time.sleep(0.25)
    assert not list_uploads(incoming.parent, hasty)[0].is_arriving


def test_an_arriving_upload_is_not_judged(incoming: Path) -> None:
    """An empty folder is how every transfer begins."""
    (incoming / "S02_a").mkdir()
    (incoming / "S03_a.zip").write_bytes(b"PK")
    patient = RULES.model_copy(update={"stable_minutes": 10.0})
    assert {listing.unusable_reason for listing in list_uploads(incoming.parent, patient)} == {None}


def test_a_marker_file_says_that_an_upload_is_complete(incoming: Path) -> None:
    """In a folder, or beside a zip file; it is no file of the upload."""
    marked = RULES.model_copy(update={"stable_minutes": math.inf, "marker_file": "complete"})
    plain = read_upload(incoming.parent)
    _pack(incoming / "S01_a", incoming / "S01_b.zip", "S01_a/")
    assert [listing.is_arriving for listing in list_uploads(incoming.parent, marked)] == [True, True]
    (incoming / "S01_a" / "complete").write_text("")
    (incoming / "S01_b.zip.complete").write_text("")
    folder, zipped = list_uploads(incoming.parent, marked)
    assert (folder.is_arriving, zipped.is_arriving) == (False, False)
    assert hash_upload(folder).content_digest == plain.content_digest == hash_upload(zipped).content_digest


def test_listings_know_the_order_of_arrival(incoming: Path) -> None:
    """The first copy of an image stands, so the first upload must be known."""
    time.sleep(0.02)
    shutil.copytree(incoming / "S01_a", incoming / "A_late", copy_function=shutil.copy2)
    late, first = list_uploads(incoming.parent, RULES)
    assert first.changed_ns < late.changed_ns
