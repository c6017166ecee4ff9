"""What a store keeps of its source images' headers."""

from pathlib import Path

import pydicom
import pytest
import zarr

from storage.config_uploads import PrivacyConfig
from storage.deidentify import clean_header, key_id, pseudonymous_uid
from storage.errors import RefusedError
from storage.intake import intake_visit
from storage.source_headers import read_source_header, stored_source_header, write_source_header
from tests.storage.drawn_uploads import BROKEN_DICOM, demo_config, read_upload, write_visit

KEY = bytes(range(32))
RULES = PrivacyConfig(headers="basic", dates="shift", keep_private=())


def test_a_store_keeps_references_and_one_cleaned_header(tmp_path: Path) -> None:
    """An export refers to each source image, in the order of the echoes."""
    paths = write_visit(tmp_path / "incoming" / "S01_a")["native"]
    upload = read_upload(tmp_path)
    stack = intake_visit([upload], demo_config().intake).native
    store = zarr.create_group(tmp_path / "store.zarr")
    source = read_source_header(stack, [upload], RULES, KEY, "S01")
    write_source_header(store, "native", source)

    found = stored_source_header(store, "native")
    assert found == source
    assert stored_source_header(store, "post") is None
    originals = [pydicom.dcmread(path) for path in paths]
    by_time = sorted(range(8), key=lambda index: stack.ti_ms[0][index])
    assert by_time == list(range(8))
    names = {pseudonymous_uid(original.SOPInstanceUID, KEY): original for original in originals}
    for slice_index, uids in enumerate(source.sop_instance_uids):
        assert [float(names[uid].InversionTime) for uid in uids] == stack.ti_ms[slice_index].tolist()
    first = names[source.sop_instance_uids[0][0]]
    cleaned = clean_header(first, RULES, KEY, "S01")
    assert source.header == cleaned.to_json_dict()
    assert pydicom.Dataset.from_json(source.header).PatientName == "S01"
    assert source.study_instance_uid == pseudonymous_uid(first.StudyInstanceUID, KEY)
    assert source.key_id == key_id(KEY)


def test_a_stack_is_read_as_before_beside_its_source(tmp_path: Path) -> None:
    """The source has a group of its own; the stack's attributes are the stack's."""
    from storage.arrays import read_stack, stored_roles, write_stack

    write_visit(tmp_path / "incoming" / "S01_a")
    upload = read_upload(tmp_path)
    stack = intake_visit([upload], demo_config().intake).native
    store = zarr.create_group(tmp_path / "store.zarr")
    write_stack(store, stack)
    write_source_header(store, "native", read_source_header(stack, [upload], RULES, KEY, "S01"))
    assert stored_roles(store) == ("native",)
    assert read_stack(store, "native").sources == stack.sources


def test_a_file_that_broke_since_it_was_read_is_refused(tmp_path: Path) -> None:
    """The site can still replace it while the night runs."""
    paths = write_visit(tmp_path / "incoming" / "S01_a")["native"]
    upload = read_upload(tmp_path)
    stack = intake_visit([upload], demo_config().intake).native
    paths[3].write_bytes(BROKEN_DICOM)
    with pytest.raises(RefusedError, match=r"^upload u-.*, file \d+: its header cannot be read"):
        read_source_header(stack, [upload], RULES, KEY, "S01")
