import fcntl
import os
import stat

import numpy as np
import pytest

from nann import durable_files
from nann.durable_files import link_or_copy, new_file, new_folder, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half_of(path):
    with new_file(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk full")


def make_half_of(path):
    with new_folder(path) as folder:
        (folder / "new").touch()
        raise OSError("disk full")


def test_a_file_is_replaced_at_the_end_and_readers_of_the_old_one_keep_it(tmp_path):
    path, linked = tmp_path / "a.npy", tmp_path / "linked.npy"
    np.save(path, np.zeros(3))
    link_or_copy(path, linked)
    with new_file(path) as temporary:
        np.save(temporary, np.ones(4))
        assert np.load(path).tolist() == [0, 0, 0]
    assert np.load(path).tolist() == [1, 1, 1, 1]
    assert np.load(linked).tolist() == [0, 0, 0]
    assert names(tmp_path) == ["a.npy", "linked.npy"]


def test_json_is_for_people_too_and_its_folder_is_made(tmp_path):
    write_json(tmp_path / "made" / "a.json", {"a": [1]})
    assert (tmp_path / "made" / "a.json").read_text() == '{\n  "a": [\n    1\n  ]\n}\n'


def test_a_file_that_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="disk full"):
        write_half_of(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_get_the_permissions_that_the_user_wants(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


def test_what_is_durable_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(durable_files.os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(durable_files.os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    write_text(tmp_path / "a.txt", "text")
    assert done == ["fsync", "replace", "fsync"], "the file, and then the folder's list of names"
    done.clear()
    write_text(tmp_path / "a.txt", "text", durable=False)
    assert done == ["replace"]
    done.clear()
    with new_folder(tmp_path / "folder") as folder:
        (folder / "a").touch()
        (folder / "b").touch()
    assert done == ["fsync", "fsync", "fsync", "replace", "fsync"]


def test_a_folder_takes_the_place_of_another_at_the_end(tmp_path):
    for content in ("first", "second"):
        with new_folder(tmp_path / "made" / "folder") as folder:
            assert names(folder) == []
            (folder / content).touch()
    assert names(tmp_path / "made" / "folder") == ["second"]
    assert names(tmp_path / "made") == ["folder"]


def test_a_folder_that_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(OSError, match="disk full"):
        make_half_of(tmp_path / "folder")
    assert names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["folder"]


def test_what_a_crash_left_goes_with_the_next_write_and_what_is_being_written_stays(tmp_path):
    held = tmp_path / ".4194400.new.folder"
    held.mkdir()
    for name in (".4194301.new.folder", ".4194302.old.folder", ".4194303.new.other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").touch()
    for name in (".4194301.new.a.txt", ".4194302.new.b.txt"):
        (tmp_path / name).touch()
    descriptor = os.open(held, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as another process does that writes it
    with new_folder(tmp_path / "folder") as folder:
        assert ".4194302.old.folder" in names(tmp_path), "it may be the only copy"
        (folder / "new").touch()
    write_text(tmp_path / "a.txt", "text")
    os.close(descriptor)
    assert names(tmp_path) == [".4194302.new.b.txt", ".4194303.new.other", held.name, "a.txt", "folder"]


def test_a_mount_point_gets_the_new_entries(tmp_path, monkeypatch):
    """As the volume of a container: renaming it fails with EBUSY."""
    volume = tmp_path / "volume"
    volume.mkdir()
    for name in ("lost+found", "old"):
        (volume / name).mkdir()
    inode = volume.stat().st_ino
    monkeypatch.setattr(durable_files.os.path, "ismount", lambda path: path == volume)
    with new_folder(volume) as folder:
        assert folder.parent == volume
        (folder / "new").touch()
    assert names(volume) == ["lost+found", "new"]
    assert volume.stat().st_ino == inode
    assert names(tmp_path) == ["volume"]
