"""Zip files from strangers."""

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.errors import RefusedError
from storage.zipped import MIB, is_archive, list_members, unpack_members, unpacked_name
from tests.storage.drawn_uploads import demo_config

RULES = demo_config().uploads


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Path of the zip file to make."""
    return tmp_path / "S01_a.zip"


def _write(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)


def _named(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.filename = name  # the constructor mends some names, a stranger does not
    return info


def _link(zipped: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    zipped.writestr(info, "/etc/passwd")


def _encrypted(path: Path) -> None:
    """Set the flag of encryption in the list of members, where a reader looks first."""
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 8
    data[place] |= 1
    path.write_bytes(bytes(data))


def _stated_size(path: Path, size: int) -> None:
    """Let the list of members state another size than that of the data."""
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(bytes(data))


def test_members_are_listed_by_name(archive: Path) -> None:
    """Numbers stand for names and must not depend on the order of packing."""
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.mkdir("S01")
        zipped.writestr("S01/b", b"22")
        zipped.writestr("S01/a", b"1")
        zipped.writestr("__MACOSX/S01/._a", b"x")
    assert [(member.name, member.size) for member in list_members(archive, RULES)] == [
        ("S01/a", 1),
        ("S01/b", 2),
    ]


def test_members_are_unpacked_under_numbers(archive: Path, tmp_path: Path) -> None:
    """No name of a stranger's ever becomes a path; the ending of a NIfTI file says how it is packed."""
    _write(archive, **{"S01/guide.NII.GZ": b"g", "S01/IM1": b"i"})
    folder = tmp_path / "out"
    folder.mkdir()
    members = list_members(archive, RULES)
    unpack_members(archive, members, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"1": b"i", "2.nii.gz": b"g"}
    assert unpacked_name(2, members[1].name) == "2.nii.gz"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda zipped: zipped.writestr(_named("../../x"), b""), "1 paths that lead", id="up"),
        pytest.param(lambda zipped: zipped.writestr(_named("/etc/x"), b""), "1 paths that lead", id="root"),
        pytest.param(lambda zipped: zipped.writestr(_named("a\\..\\x"), b""), "1 paths that lead", id="back"),
        pytest.param(lambda zipped: zipped.writestr(_named("C:/x"), b""), "1 paths that lead", id="drive"),
        pytest.param(_link, "1 links or special files", id="link"),
        pytest.param(
            lambda zipped: zipped.writestr("a", b"x", zipfile.ZIP_LZMA), "other than deflate", id="lzma"
        ),
        pytest.param(lambda zipped: zipped.mkdir("S01"), "holds no files", id="empty"),
        pytest.param(
            lambda zipped: (zipped.writestr("a/b", b"1"), zipped.writestr("a//b", b"2")),
            "1 names more than once",
            id="double",
        ),
    ],
)
def test_what_no_transfer_needs_is_refused(
    archive: Path, make: Callable[[zipfile.ZipFile], object], reason: str
) -> None:
    """Before anything is unpacked, with the number found."""
    with zipfile.ZipFile(archive, "w") as zipped:
        make(zipped)
    with pytest.raises(RefusedError, match=reason):
        list_members(archive, RULES)


def test_an_encrypted_zip_file_is_refused(archive: Path) -> None:
    """Nobody types a password at night."""
    _write(archive, a=b"secret")
    _encrypted(archive)
    with pytest.raises(RefusedError, match="1 encrypted members"):
        list_members(archive, RULES)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"max_files": 2}, "3 members, uploads.max_files allows 2", id="count"),
        pytest.param({"max_file_mib": 15.0}, "20 MiB unpacked, uploads.max_file_mib allows 15", id="file"),
        pytest.param({"max_total_mib": 30.0}, "40 MiB unpacked, uploads.max_total_mib", id="total"),
        pytest.param({}, r"unpacks to \d+ times its size, uploads.max_ratio allows 100", id="ratio"),
    ],
)
def test_absurd_sizes_are_refused(archive: Path, changes: dict[str, float], reason: str) -> None:
    """The number found, the limit, and the key that sets it."""
    zeros = bytes(20 * MIB)
    _write(archive, a=zeros, b=zeros, c=b"")
    with pytest.raises(RefusedError, match=reason):
        list_members(archive, RULES.model_copy(update=changes))


def test_members_that_share_their_data_are_refused(archive: Path) -> None:
    """The known trick against limits on the ratio: many names for one packed block."""
    _write(archive, a=bytes(range(256)) * 40)
    data = archive.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[start:end]
    entries = b"".join(entry.replace(b"a", name, 1) for name in (b"a", b"b", b"c", b"d", b"e", b"f"))
    tail = bytearray(data[end:])
    tail[8:16] = struct.pack("<HHI", 6, 6, len(entries))
    archive.write_bytes(data[:start] + entries + bytes(tail))
    with pytest.raises(RefusedError, match="members overlap"):
        list_members(archive, RULES)


@pytest.mark.parametrize("size", [3, 3000], ids=["less", "more"])
def test_a_member_that_lies_about_its_size_is_refused(archive: Path, tmp_path: Path, size: int) -> None:
    """Limits are checked against what the list of members states; no more is written."""
    _write(archive, a=b"0123456789" * 20, b=b"b")
    _stated_size(archive, size)
    members = list_members(archive, RULES)
    assert unpack_members(archive, members, tmp_path) == {1}
    assert (tmp_path / "1").stat().st_size <= size
    assert (tmp_path / "2").read_bytes() == b"b"


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.98])
def test_half_a_zip_file_is_refused(archive: Path, kept: float) -> None:
    """Its list of members comes last."""
    _write(archive, a=b"0123456789" * 20)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(RefusedError, match="is no zip file, or is cut off"):
        list_members(archive, RULES)


def _damage(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_a_damaged_member_costs_no_other(archive: Path, tmp_path: Path) -> None:
    """The checksum tells; the others have theirs."""
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("a", b"0123456789")
        zipped.writestr("b", b"abcdefghij")
    _damage(archive, b"0123456789", b"0123456780")
    assert unpack_members(archive, list_members(archive, RULES), tmp_path) == {1}
    assert (tmp_path / "2").read_bytes() == b"abcdefghij"


def test_a_member_whose_stream_is_broken_keeps_what_came_out(archive: Path, tmp_path: Path) -> None:
    """Whoever mends it finds it in quarantine."""
    data = np.random.default_rng(0).integers(0, 256, 3 * MIB, dtype=np.uint8).tobytes()
    _write(archive, a=data, b=b"b")
    packed = bytearray(archive.read_bytes())
    packed[2 * MIB : 2 * MIB + 100] = bytes(100)
    archive.write_bytes(packed)
    assert unpack_members(archive, list_members(archive, RULES), tmp_path) == {1}
    assert (tmp_path / "1").read_bytes()[:MIB] == data[:MIB]


def test_a_zip_file_of_damaged_members_alone_is_refused(archive: Path, tmp_path: Path) -> None:
    """Nothing of it can be used."""
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("a", b"0123456789")
    _damage(archive, b"0123456789", b"0123456780")
    with pytest.raises(
        RefusedError, match="all 1 files in the zip file are damaged; make the zip file again"
    ):
        unpack_members(archive, list_members(archive, RULES), tmp_path)


def test_archives_are_known_by_their_names() -> None:
    """A packed NIfTI file is none."""
    names = ("a.zip", "a.TAR", "a.tar.gz", "guide.nii.gz", "IM1.dcm", "zip")
    assert [name for name in names if is_archive(name)] == ["a.zip", "a.TAR", "a.tar.gz"]
