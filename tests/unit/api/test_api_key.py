"""The API key's file."""

import os
import threading
from pathlib import Path

import pytest

from bridge.api.key import KEY_FILE, KeyFileError, load_or_create_key, read_key


def test_the_first_start_makes_a_key_that_only_its_user_can_read(tmp_path):
    key = load_or_create_key(tmp_path / "data", {})
    path = tmp_path / "data" / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip() == key
    assert len(key) >= 40
    assert [entry.name for entry in path.parent.iterdir()] == [KEY_FILE], "no draft stays behind"


def test_the_umask_does_not_matter(tmp_path):
    before = os.umask(0)
    try:
        load_or_create_key(tmp_path, {})
    finally:
        os.umask(before)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_the_key_stays_the_same_and_differs_between_boxes(tmp_path):
    first = load_or_create_key(tmp_path / "a", {})
    assert load_or_create_key(tmp_path / "a", {}) == first
    assert read_key(tmp_path / "a", {}) == first
    assert load_or_create_key(tmp_path / "b", {}) != first


def test_of_many_starts_at_once_all_get_the_same_key(tmp_path):
    found: list[str] = []
    gate = threading.Barrier(16)

    def start() -> None:
        gate.wait()
        found.append(load_or_create_key(tmp_path, {}))

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


def test_the_variable_goes_before_the_file_and_makes_none(tmp_path):
    key = load_or_create_key(tmp_path / "data", {"OFFHOOK_API_KEY": " from-the-environment-1 "})
    assert key == "from-the-environment-1"
    assert not (tmp_path / "data").exists()
    assert read_key(tmp_path, {"OFFHOOK_API_KEY": key}) == key


@pytest.mark.parametrize("key", ["short", "with spaces in the middle", "ünïcödé-key-of-enough-length", "x" * 15])
def test_a_weak_or_broken_key_is_refused(tmp_path, key):
    with pytest.raises(KeyFileError, match="at least 16 printable"):
        load_or_create_key(tmp_path, {"OFFHOOK_API_KEY": key})
    (tmp_path / KEY_FILE).write_text(key)
    (tmp_path / KEY_FILE).chmod(0o600)
    with pytest.raises(KeyFileError, match="at least 16 printable"):
        load_or_create_key(tmp_path, {})


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o666])
def test_a_key_that_others_can_read_or_change_is_refused(tmp_path, mode):
    load_or_create_key(tmp_path, {})
    (tmp_path / KEY_FILE).chmod(mode)
    for use in (load_or_create_key, read_key):
        with pytest.raises(KeyFileError, match="open to other users"):
            use(tmp_path, {})


def test_a_key_for_the_group_to_read_is_fine(tmp_path):
    key = load_or_create_key(tmp_path, {})
    (tmp_path / KEY_FILE).chmod(0o640)
    assert read_key(tmp_path, {}) == key


def test_a_client_makes_no_key(tmp_path):
    with pytest.raises(KeyFileError, match="start the bridge once"):
        read_key(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "data", Path("/proc/offhook")):
        with pytest.raises(KeyFileError, match=r"make .* writable for this user, or set OFFHOOK_API_KEY"):
            load_or_create_key(place, {})


def test_a_directory_in_the_file_s_place_is_an_error_with_a_message(tmp_path):
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(KeyFileError, match="can't be read"):
        load_or_create_key(tmp_path, {})
