"""What stands under one name of incoming/: its files and their times, looked at without opening one."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands under one name of incoming/."""

    name: str
    """The name; a rule may read the subject from it."""
    files: tuple[tuple[str, os.stat_result], ...]
    """Relative name and status of all that is no folder, sorted by name."""
    changed_ns: int
    """Newest time of any file or folder in it."""
    is_folder: bool
    """Whether it is a folder."""

    def fingerprint(self) -> str:
        """Digest over the name, and relative name, size and modification time of each file."""
        digest = hashlib.sha256(f"{self.name}\0".encode())
        for name, status in self.files:
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return digest.hexdigest()


def look_at(path: Path) -> Entry:
    """List a folder with all that is in it, or a single file; a link is not followed."""
    own_name, status = printable(path.name), path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return Entry(own_name, ((own_name, status),), _newest_ns(status), is_folder=False)
    files: list[tuple[str, os.stat_result]] = []
    changed_ns = _newest_ns(status)
    for name, entry in _walk(path):
        status = entry.stat(follow_symlinks=False)
        changed_ns = max(changed_ns, _newest_ns(status))
        if not entry.is_dir(follow_symlinks=False):
            files.append((printable(name), status))
    return Entry(own_name, tuple(sorted(files, key=lambda file: file[0])), changed_ns, is_folder=True)


def _newest_ns(status: os.stat_result) -> int:
    # Copies may keep the time at which a scanner wrote a file; the change of status is when it came here.
    return max(status.st_mtime_ns, status.st_ctime_ns)


def is_as_listed(path: Path, fingerprint: str) -> bool:
    """Whether an entry still lists as it did; False where it is gone."""
    try:
        return look_at(path).fingerprint() == fingerprint
    except OSError:
        return False


def named_files(folder: Path) -> list[tuple[str, Path]]:
    """Relative name and path of each file of a folder, sorted by name."""
    return sorted(
        (printable(name), Path(entry.path))
        for name, entry in _walk(folder)
        if not entry.is_dir(follow_symlinks=False)
    )


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Give name and entry of all in a folder; a path may hold more folders than Python nests calls."""
    folders = [("", str(folder))]
    while folders:
        prefix, path = folders.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                name = prefix + entry.name
                yield name, entry
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{name}/", entry.path))


def without_marker(named: list[tuple[str, Path]], marker: str) -> list[tuple[str, Path]]:
    """Take out the file that says an upload is complete, wherever whoever packed it put it."""
    names = without_common_folders([name for name, _ in named if name != marker])
    kept = [entry for entry in named if entry[0] != marker]
    return [entry for entry, name in zip(kept, names, strict=True) if name != marker]


def without_common_folders(names: Sequence[str]) -> list[str]:
    """Take off the folders that hold all files: whoever packs a folder may pack its name or not."""
    folders = [name.split("/")[:-1] for name in names]
    n_shared = 0
    while folders and all(one[: n_shared + 1] == folders[0][: n_shared + 1] for one in folders):
        if len(folders[0]) == n_shared:
            break
        n_shared += 1
    return [name.split("/", n_shared)[-1] for name in names]


def printable(name: str) -> str:
    """Make a name printable that is no UTF-8, and reaches Python as surrogates; names stay apart."""
    return name.encode(errors="backslashreplace").decode()
