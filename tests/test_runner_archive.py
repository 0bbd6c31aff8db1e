"""Archives of folders: packed the same way each time, and unpacked without surprises."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from workers.errors import UploadRefused
from workers.runner import archive


def test_a_packed_folder_unpacks_to_the_same_files_and_packs_to_the_same_bytes(tmp_path: Path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"")
    (folder / "link").symlink_to("/etc/passwd")

    archive.pack(folder, tmp_path / "one.tar")
    archive.unpack(tmp_path / "one.tar", tmp_path / "copy")
    archive.pack(tmp_path / "copy", tmp_path / "two.tar")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert (tmp_path / "copy" / "saved_model.pb").read_bytes() == b"graph"
    assert not (tmp_path / "copy" / "link").exists()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside")],
        [member("/outside")],
        [member("a/../../outside")],
        [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("link", tarfile.LNKTYPE, "saved_model.pb")],
        [member("fifo", tarfile.FIFOTYPE)],
        [member("device", tarfile.CHRTYPE)],
        [member("same"), member("same")],
        [member("file"), member("file/below")],
        [member("file"), member("file", tarfile.DIRTYPE)],
        [member(".")],
    ],
    ids=lambda members: members[-1].name + members[-1].type.decode(errors="replace"),
)
def test_an_archive_with_anything_but_plain_files_is_refused(tmp_path: Path, members: list[tarfile.TarInfo]):
    with tarfile.open(tmp_path / "hostile.tar", "w") as tar:
        for info in members:
            tar.addfile(info)
    with pytest.raises(UploadRefused) as refused:
        archive.unpack(tmp_path / "hostile.tar", tmp_path / "folder")
    assert refused.value.code == "archive_invalid"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "hostile.tar"]


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path):
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(UploadRefused):
        archive.unpack(tmp_path / "junk", tmp_path / "folder")
