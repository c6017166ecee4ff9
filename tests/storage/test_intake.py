"""Intake of a visit's uploads."""

import re
import shutil
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest

from storage.config_intake import IntakeConfig
from storage.dicom_series import assemble
from storage.dicom_write import write_guide_nifti, write_guide_seg
from storage.errors import RefusedError, StorageError, UnreadableError
from storage.intake import VisitIntake, intake_visit
from storage.upload import Upload, hash_upload, list_uploads, open_upload
from tests.storage.drawn_uploads import (
    NATIVE,
    NATIVE_TI_MS,
    POST,
    demo_config,
    drawn_masks,
    pack_damaged,
    read_instances,
    read_upload,
    stack_geometry,
    write_series,
    write_visit,
)

INTAKE = demo_config().intake
RULES = demo_config().uploads
LABEL_VALUES = INTAKE.guide.nifti_labels.model_dump()


def _intake(root: Path, intake: IntakeConfig = INTAKE) -> VisitIntake:
    return intake_visit([hash_upload(listing) for listing in list_uploads(root, RULES)], intake)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of an upload."""
    return tmp_path / "incoming" / "S01_a"


def test_an_upload_becomes_stacks_and_guides(tmp_path: Path, folder: Path) -> None:
    """Each segmentation goes to the series it was drawn on."""
    files = write_visit(folder)
    other = drawn_masks()[:, ::-1]
    write_guide_seg(folder / "g1.dcm", drawn_masks(), files["native"][::8], "native")
    write_guide_seg(folder / "g2.dcm", other, files["post"][::9], "post")
    (folder / "notes.txt").write_text("x")
    taken = _intake(tmp_path)
    assert taken.post is not None
    assert (taken.native.echoes.shape[:2], taken.post.echoes.shape[:2]) == ((3, 8), (3, 9))
    assert np.array_equal(taken.guides["native"], drawn_masks())
    assert np.array_equal(taken.guides["post"], other)
    assert (taken.refused_files, taken.n_other_series) == ((), 0)
    assert taken.study_date == NATIVE.started_at.date()


def test_a_nifti_guide_serves_every_role_on_its_grid(tmp_path: Path, folder: Path) -> None:
    """It references no series, so the geometry decides."""
    write_visit(folder)
    write_guide_nifti(folder / "guide.nii.gz", drawn_masks(), stack_geometry(), LABEL_VALUES)
    taken = _intake(tmp_path)
    assert np.array_equal(taken.guides["native"], drawn_masks())
    assert np.array_equal(taken.guides["post"], drawn_masks())


def test_a_segmentation_of_another_series_goes_by_geometry(tmp_path: Path, folder: Path) -> None:
    """A reader may have drawn on a cine image of the same planes."""
    write_visit(folder)
    cine = write_series(tmp_path / "cine", replace(NATIVE, description="cine", ti_ms=(100.0,)))
    write_guide_seg(folder / "guide.dcm", drawn_masks(), cine, "cine")
    taken = _intake(tmp_path)
    assert set(taken.guides) == {"native", "post"}


def test_a_guide_of_a_series_that_is_missing_leaves_the_other_guide_alone(
    tmp_path: Path, folder: Path
) -> None:
    """The post-contrast images were not sent but their guide was: the native guide still counts."""
    files = write_visit(folder)
    write_guide_seg(folder / "g1.dcm", drawn_masks(), files["native"][::8], "native")
    write_guide_seg(folder / "g2.dcm", drawn_masks()[:, ::-1], files["post"][::9], "post")
    for file in files["post"]:
        file.unlink()
    taken = _intake(tmp_path)
    assert np.array_equal(taken.guides["native"], drawn_masks())
    (refused,) = taken.refused_files
    assert "its series is not in the upload" in refused.reason


def test_without_a_guide_there_is_none(tmp_path: Path, folder: Path) -> None:
    """The visit goes on and is flagged later."""
    write_visit(folder)
    assert _intake(tmp_path).guides == {}


def test_a_guide_off_the_grid_is_left_out(tmp_path: Path, folder: Path) -> None:
    """The images are still worth having."""
    write_visit(folder)
    off = replace(stack_geometry(), pixel_spacing_mm=(2.0, 2.0))
    write_guide_nifti(folder / "guide.nii", drawn_masks(), off, LABEL_VALUES)
    taken = _intake(tmp_path)
    (file,) = taken.refused_files
    assert taken.guides == {}
    assert file.path.name == "guide.nii"
    assert file.reason.startswith("native: the guide's grid is 12 x 10 at 2 x 2 mm")


def test_two_guides_for_one_slice_are_both_left_out(tmp_path: Path, folder: Path) -> None:
    """Which reader is right is not for us to say."""
    files = write_visit(folder)
    write_guide_seg(folder / "g1.dcm", drawn_masks(), files["native"][::8], "one")
    write_guide_seg(folder / "g2.dcm", drawn_masks()[:, :1], files["native"][:1], "two")
    taken = _intake(tmp_path)
    assert taken.guides == {}
    assert len(taken.refused_files) == 2
    assert {file.reason for file in taken.refused_files} == {
        "native: another guide is for the same slice; upload one guide a slice"
    }


def test_guides_for_different_slices_are_joined(tmp_path: Path, folder: Path) -> None:
    """One segmentation a slice is a common export."""
    files = write_visit(folder)
    for index in range(3):
        image = files["native"][8 * index : 8 * index + 1]
        write_guide_seg(folder / f"g{index}.dcm", drawn_masks()[:, index : index + 1], image, str(index))
    assert np.array_equal(_intake(tmp_path).guides["native"], drawn_masks())


def test_an_upload_that_was_completed_and_sent_again_is_one_visit(tmp_path: Path, folder: Path) -> None:
    """All its files come twice, the guide too; nothing contradicts anything."""
    files = write_visit(folder)
    write_guide_seg(folder / "g1.dcm", drawn_masks(), files["native"][::8], "native")
    shutil.copytree(folder, folder.with_name("S01_again"))
    (folder.with_name("S01_again") / "readme.txt").write_text("complete now")
    taken = _intake(tmp_path)
    assert np.array_equal(taken.guides["native"], drawn_masks())
    assert taken.refused_files == ()


def test_two_uploads_make_one_visit(tmp_path: Path) -> None:
    """Native and post-contrast images may be sent apart."""
    write_series(tmp_path / "incoming" / "S01_a", NATIVE)
    write_series(tmp_path / "incoming" / "S01_b", POST)
    taken = _intake(tmp_path)
    assert taken.post is not None
    assert taken.native.sources[0][0].upload_id != taken.post.sources[0][0].upload_id


def _two_copies(root: Path) -> tuple[Upload, Upload]:
    """Give two uploads of one visit whose fourth image differs, in the order of arrival."""
    paths = write_series(root / "incoming" / "S01_b", NATIVE)
    shutil.copytree(root / "incoming" / "S01_b", root / "incoming" / "S01_a")
    (root / "incoming" / "S01_a" / "extra").write_text("")
    changed = root / "incoming" / "S01_a" / paths[3].name
    changed.write_bytes(changed.read_bytes()[:-2] + b"\1\1")
    late, first = (hash_upload(listing) for listing in list_uploads(root, RULES))
    return first, late


def test_the_first_copy_of_an_image_stands(tmp_path: Path) -> None:
    """Whichever upload came first: names and digests decide nothing."""
    uploads = _two_copies(tmp_path)
    for first, late in (uploads, uploads[::-1]):
        taken = intake_visit([first, late], INTAKE)
        assert {source.upload_id for row in taken.native.sources for source in row} == {first.upload_id}
        (refused,) = taken.refused_files
        assert refused.upload_id == late.upload_id
        assert refused.reason.startswith(f"has the SOPInstanceUID of upload {first.upload_id}, file ")
        assert "but other content; the first stands until the wrong one" in refused.reason


def test_a_damaged_image_that_came_whole_elsewhere_is_not_missed(tmp_path: Path, folder: Path) -> None:
    """It is quarantined, but nobody needs to review the visit for it."""
    paths = write_series(folder, NATIVE)
    shutil.copytree(folder, folder.with_name("S01_b"))
    paths[3].write_bytes(paths[3].read_bytes()[:-100])
    taken = _intake(tmp_path)
    assert taken.refused_files == ()
    (made_good,) = taken.made_good_files
    assert made_good.path == paths[3]


def test_nifti_guides_say_by_their_names_whose_they_are(tmp_path: Path, folder: Path) -> None:
    """Both lie on one grid, so nothing else tells them apart."""
    write_visit(folder)
    other = drawn_masks()[:, ::-1]
    write_guide_nifti(folder / "LV_pre.nii", drawn_masks(), stack_geometry(), LABEL_VALUES)
    write_guide_nifti(folder / "LV_post.nii.gz", other, stack_geometry(), LABEL_VALUES)
    assert _intake(tmp_path).guides == {}
    taken = _intake(tmp_path, _with_names("pre", "post"))
    assert np.array_equal(taken.guides["native"], drawn_masks())
    assert np.array_equal(taken.guides["post"], other)
    assert taken.refused_files == ()


def test_a_nifti_guide_of_images_that_were_not_sent_is_left_out(tmp_path: Path, folder: Path) -> None:
    """It is not given to other images instead."""
    write_series(folder, NATIVE)
    write_guide_nifti(folder / "LV_post.nii", drawn_masks(), stack_geometry(), LABEL_VALUES)
    taken = _intake(tmp_path, _with_names("pre", "post"))
    assert taken.guides == {}
    (refused,) = taken.refused_files
    assert refused.reason == "its name is for post images, which are not in the upload"


def test_a_name_that_fits_both_patterns_is_refused(tmp_path: Path, folder: Path) -> None:
    """Never guessed."""
    write_visit(folder)
    write_guide_nifti(folder / "pre_post.nii", drawn_masks(), stack_geometry(), LABEL_VALUES)
    (refused,) = _intake(tmp_path, _with_names("pre", "post")).refused_files
    assert "make the two patterns exclusive" in refused.reason


def _with_names(native: str, post: str) -> IntakeConfig:
    guide = INTAKE.guide.model_copy(update={"nifti_native": native, "nifti_post": post})
    return INTAKE.model_copy(update={"guide": guide})


def test_a_refused_visit_names_the_file_that_is_empty(tmp_path: Path, folder: Path) -> None:
    """A transfer that broke off leaves empty files; without them the visit only lacks an echo."""
    file = write_visit(folder)["native"][0]
    file.write_bytes(b"")
    with pytest.raises(
        RefusedError, match=r"7 inversion times.*left out: upload .*is empty \(0 bytes\)"
    ) as caught:
        _intake(tmp_path)
    assert [refused.path for refused in caught.value.files] == [file]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_an_archive_in_an_upload_is_refused_and_other_files_are_counted(
    tmp_path: Path, folder: Path, packed: bool
) -> None:
    """Images in a nested zip file must not be lost in silence, nor cost the others; a PDF holds none."""
    write_visit(folder)
    (folder / "more.zip").write_bytes(b"PK")
    (folder / "letter.pdf").write_bytes(b"%PDF")
    if packed:
        shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
        shutil.rmtree(folder)
    (listing,) = list_uploads(tmp_path, RULES)
    with open_upload(hash_upload(listing)) as opened:
        taken = intake_visit([opened], INTAKE)
    (refused,) = taken.refused_files
    assert refused.reason == "is an archive inside of the upload; put its files into the upload themselves"
    assert refused.remedy == "mend"
    assert len(taken.other_files) == 1


def test_a_zip_file_is_taken_in_as_its_folder_is(tmp_path: Path, folder: Path) -> None:
    """Stacks, guides and refusals are the same."""
    write_visit(folder)
    write_guide_nifti(folder / "guide.nii.gz", drawn_masks(), stack_geometry(), LABEL_VALUES)
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM")
    plain = _intake(tmp_path)
    shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    (listing,) = list_uploads(tmp_path, RULES)
    with open_upload(hash_upload(listing)) as opened:
        taken = intake_visit([opened], INTAKE)
    assert np.array_equal(taken.native.echoes, plain.native.echoes)
    assert taken.native.sources == plain.native.sources
    assert np.array_equal(taken.guides["post"], plain.guides["post"])
    assert [file.reason for file in taken.refused_files] == [file.reason for file in plain.refused_files]


def test_a_truncated_file_refuses_the_visit_and_is_named(tmp_path: Path, folder: Path) -> None:
    """The reason says what is missing and which file to send again, without its name."""
    paths = sorted(write_visit(folder)["native"])
    broken = paths[5]
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(RefusedError) as refused:
        _intake(tmp_path)
    (file,) = refused.value.files
    assert file.path == broken
    assert "has 7 inversion times, expected 8" in refused.value.reason
    expected = f"; left out: upload {file.upload_id}, file {file.file_number}: 140 bytes of pixel data"
    assert expected in refused.value.reason
    assert broken.name not in refused.value.reason


def test_a_broken_file_that_is_not_needed_stops_nobody(tmp_path: Path, folder: Path) -> None:
    """What is left is complete, so the visit goes on and the file is refused."""
    write_visit(folder)
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM")
    taken = _intake(tmp_path)
    assert [file.path.name for file in taken.refused_files] == ["broken.dcm"]


def test_files_of_one_fault_are_named_together(tmp_path: Path, folder: Path) -> None:
    """Twenty-four times the same sentence reads badly."""
    write_series(folder, replace(NATIVE, ti_ms=(*NATIVE_TI_MS[:7], 20_000.0)))
    with pytest.raises(
        RefusedError, match=r"; left out: upload u-\w+, file \d+, \d+, \d+: inversion time 20000 ms"
    ):
        _intake(tmp_path)


def test_files_of_two_patients_are_refused(tmp_path: Path) -> None:
    """Matching looks at one file; intake at all of them."""
    write_series(tmp_path / "incoming" / "S01_a", NATIVE)
    write_series(tmp_path / "incoming" / "S01_b", replace(POST, patient_id="S02"))
    with pytest.raises(RefusedError, match="the files carry 2 different PatientIDs") as refused:
        _intake(tmp_path)
    assert "S02" not in str(refused.value)
    assert re.search(r"\(24 files: upload u-\w+, file 1, .*, \.\.\.; 27 files: upload", refused.value.reason)


@pytest.mark.parametrize("name", ["guide.nii.gz", "notes.txt"])
def test_a_file_the_machine_cannot_read_is_no_refusal(tmp_path: Path, folder: Path, name: str) -> None:
    """It may be read on another day; the text names upload and number, and nothing shows the path."""
    write_visit(folder)
    (folder / name).write_text("")
    (listing,) = list_uploads(tmp_path, RULES)
    upload = hash_upload(listing)
    (number,) = (file.number for file in upload.files if file.path.name == name)
    (folder / name).unlink()
    with pytest.raises(UnreadableError) as unreadable:
        intake_visit([upload], INTAKE)
    where = f"upload {upload.upload_id}, file {number}"
    assert str(unreadable.value) == f"{where} cannot be read: No such file or directory"
    assert str(tmp_path) not in "".join(traceback.format_exception(unreadable.value))
    assert isinstance(unreadable.value, StorageError)


def test_a_file_that_vanishes_before_its_pixels_are_read_is_no_refusal(tmp_path: Path, folder: Path) -> None:
    """Headers and pixels are read at different times."""
    instances = read_instances(write_series(folder))
    instances[4].path.unlink()
    with pytest.raises(
        UnreadableError, match=r"^upload u-3fa9c1d2e4, file 5 cannot be read: No such file"
    ) as gone:
        assemble(instances, INTAKE)
    assert str(tmp_path) not in "".join(traceback.format_exception(gone.value))


def test_records_show_no_identifiers(tmp_path: Path, folder: Path) -> None:
    """What an error or a log shows of a record must hold no patient, no path and no UID."""
    write_visit(folder)
    (instance,) = read_instances(write_series(folder)[:1])
    images = assemble(read_instances(write_series(folder)), INTAKE)
    shown = repr((instance, images))
    identifiers = (str(tmp_path), "S01", instance.sop_instance_uid, instance.series_instance_uid)
    assert not [name for name in identifiers if name in shown]


def test_an_image_with_text_burned_in_is_named(tmp_path: Path) -> None:
    """By upload and file; text in an image that no rule asks for is nobody's worry."""
    paths = write_visit(tmp_path / "incoming" / "S01_a")
    image = pydicom.dcmread(paths["native"][4])
    image.BurnedInAnnotation = "YES"
    image.save_as(paths["native"][4])
    upload = read_upload(tmp_path)
    number = next(file.number for file in upload.files if file.path == paths["native"][4])
    taken = intake_visit([upload], demo_config().intake)
    assert taken.burned_in_files == (f"upload {upload.upload_id}, file {number}: BurnedInAnnotation is YES",)


def test_the_time_since_contrast_is_told_where_the_headers_state_it(tmp_path: Path) -> None:
    """From the bolus to the first post-contrast image; unknown where no image names the bolus."""
    paths = write_visit(tmp_path / "incoming" / "S01_a")
    assert intake_visit([read_upload(tmp_path)], INTAKE).minutes_since_contrast is None
    bolus_at = POST.started_at - timedelta(minutes=12, seconds=30)
    for path in paths["post"]:
        image = pydicom.dcmread(path)
        image.ContrastBolusStartTime = f"{bolus_at:%H%M%S}"
        image.save_as(path)
    assert intake_visit([read_upload(tmp_path)], INTAKE).minutes_since_contrast == pytest.approx(12.5)


@pytest.mark.parametrize("minutes", [-1.0, 13 * 60.0])
def test_a_bolus_after_the_images_or_of_another_day_tells_no_time(tmp_path: Path, minutes: float) -> None:
    """A wrong clock and midnight both give a number that would be published."""
    paths = write_visit(tmp_path / "incoming" / "S01_a")
    bolus_at = POST.started_at - timedelta(minutes=minutes)
    for path in paths["post"]:
        image = pydicom.dcmread(path)
        image.ContrastBolusStartTime = f"{bolus_at:%H%M%S}"
        image.save_as(path)
    assert intake_visit([read_upload(tmp_path)], INTAKE).minutes_since_contrast is None


@pytest.mark.parametrize("damaged", ["notes.txt", "echo"])
def test_a_damaged_member_of_a_zip_file_is_refused_by_itself(
    tmp_path: Path, folder: Path, damaged: str
) -> None:
    """The visit goes on if what remains is complete; the file that is not there is never parsed."""
    files = write_visit(folder)
    (folder / "notes.txt").write_text("\n".join(map(str, range(1000))))
    name = files["native"][0].name if damaged == "echo" else damaged
    number = sorted(file.name for file in folder.iterdir()).index(name) + 1
    pack_damaged(folder, tmp_path / "incoming" / "S01_z.zip", name)
    shutil.rmtree(folder)
    (listing,) = list_uploads(tmp_path, RULES)
    with open_upload(hash_upload(listing)) as opened:
        if damaged == "echo":
            with pytest.raises(
                RefusedError, match=r"slice 1 has 7 inversion times.*; left out: upload"
            ) as error:
                intake_visit([opened], INTAKE)
            (refused,) = error.value.files
        else:
            (refused,) = intake_visit([opened], INTAKE).refused_files
    assert (refused.file_number, refused.remedy) == (number, "mend")
    assert refused.reason == "is damaged in the zip file; make the zip file again, or send the folder"
