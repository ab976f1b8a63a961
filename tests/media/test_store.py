"""The store: names are hashes, files are whole or absent, memory is bounded."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import DataError, StoreError
from agentenv.media import ImageLimits, MediaStore, media_store, use_media_store
from tests.pictures import PRETENDERS, encoded, scene, with_orientation


def test_what_is_put_is_described_and_found_again() -> None:
    store, data = MediaStore(), encoded(scene(), "PNG")
    image = store.put(data)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert (image.mime, image.width, image.height, image.handle) == ("image/png", 120, 80, "")
    assert store.get(image.sha256) == data
    assert image.sha256 in store
    assert store.path(image.sha256) is None
    assert store.info(image.sha256) is store.info(image.sha256)


def test_sizes_are_those_that_a_person_sees() -> None:
    image = MediaStore().put(with_orientation(scene(), 6))
    assert (image.width, image.height) == (80, 120)


def test_a_wrong_name_is_corrected_and_a_pretender_refused_with_the_name_it_used() -> None:
    store = MediaStore()
    assert store.put(encoded(scene(), "JPEG"), "image/png").mime == "image/jpeg"
    with pytest.raises(DataError, match=r"SVG.*'image/png'"):
        store.put(PRETENDERS["svg"], "image/png")


def test_damage_is_found_at_once_where_that_is_asked_for() -> None:
    store, data = MediaStore(), encoded(scene(), "JPEG")
    broken = data[: len(data) // 2]
    store.put(broken)
    with pytest.raises(DataError, match="cut off"):
        store.put(broken, verify=True)
    store.put(data, verify=True)


def test_limits_are_the_stores() -> None:
    with pytest.raises(DataError, match="too large"):
        MediaStore(limits=ImageLimits(max_pixels=100)).put(encoded(scene(), "PNG"))


@pytest.mark.parametrize("sync", [False, True])
def test_a_folder_has_the_layout_of_a_run(tmp_path: Path, sync: bool) -> None:
    store = MediaStore(tmp_path, sync=sync)
    name = store.put_bytes(b"clip")
    place = tmp_path / "media" / name[:2] / name
    assert place.read_bytes() == b"clip"
    assert store.path(name) == place
    assert [file.name for file in place.parent.iterdir()] == [name]
    assert MediaStore(tmp_path).get(name) == b"clip"
    assert MediaStore(roots=[tmp_path]).get(name) == b"clip"


def test_other_folders_can_be_added(tmp_path: Path) -> None:
    name = MediaStore(tmp_path).put_bytes(b"x")
    store = MediaStore()
    assert name not in store
    store.add_root(tmp_path)
    store.add_root(tmp_path)
    assert name in store
    assert store.get(name) == b"x"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a" * 63, "A" * 64, "g" * 64, "/etc/passwd", "a" * 64 + "\n"])
def test_only_a_hash_is_a_name(tmp_path: Path, name: str) -> None:
    store = MediaStore(tmp_path)
    for ask in (store.get, store.path, store.__contains__):
        with pytest.raises(StoreError, match="not a SHA-256"):
            ask(name)


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(StoreError, match="no media aaaaaaaaaaaa in <MediaStore in memory>"):
        MediaStore().get("a" * 64)


def test_a_file_that_was_tampered_with_is_not_handed_out(tmp_path: Path) -> None:
    name = MediaStore(tmp_path).put_bytes(b"good")
    (tmp_path / "media" / name[:2] / name).write_bytes(b"evil")
    with pytest.raises(StoreError, match="damaged"):
        MediaStore(tmp_path).get(name)


def test_a_file_that_cannot_be_read_is_a_store_error(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, max_bytes=0)
    name = store.put_bytes(b"x")
    place = store.path(name)
    assert place is not None
    place.chmod(0)
    if os.access(place, os.R_OK):  # root reads everything
        assert store.get(name) == b"x"
    else:
        with pytest.raises(StoreError, match="cannot be read"):
            store.get(name)


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "media").write_bytes(b"a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be written"):
        MediaStore(tmp_path).put_bytes(b"x")


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(0, 100))
def test_memory_is_bounded_and_nothing_is_lost(pieces: list[bytes], budget: int) -> None:
    store = MediaStore(max_bytes=budget)
    names = [store.put_bytes(piece) for piece in pieces]
    assert store._in_memory <= budget
    assert [store.get(name) for name in names] == pieces
    assert store._in_memory == sum(map(len, store._memory.values())) <= budget
    store.close()


def test_the_temporary_folder_is_bounded_too_and_goes_with_the_store() -> None:
    store = MediaStore(max_bytes=10, max_spill=20)
    names = [store.put_bytes(bytes([i]) * 10) for i in range(6)]
    assert [name in store for name in names] == [False, False, False, True, True, True]
    folder = store._spill_folder
    assert folder is not None
    assert folder.is_dir()
    store.close()
    store.close()
    assert not folder.exists()
    again = MediaStore(max_bytes=0)
    again.put_bytes(b"x")
    kept = again._spill_folder
    assert kept is not None
    del again
    assert not kept.exists()


def test_with_a_folder_memory_is_only_a_cache(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, max_bytes=10)
    names = [store.put_bytes(bytes([i]) * 10) for i in range(5)]
    assert store._spill_folder is None
    assert [store.get(name)[0] for name in names] == [0, 1, 2, 3, 4]


def test_media_are_saved_beside_a_record_once(tmp_path: Path) -> None:
    store = MediaStore()
    names = [store.put_bytes(b"a"), store.put_bytes(b"b")]
    assert store.save([*names, names[0]], tmp_path, sync=True) == 2
    assert store.save(names, tmp_path) == 0
    assert MediaStore(tmp_path).get(names[1]) == b"b"
    with pytest.raises(StoreError, match="no media"):
        store.save(["a" * 64], tmp_path)


def test_many_threads_write_one_content(tmp_path: Path) -> None:
    store, data = MediaStore(tmp_path), os.urandom(100_000)
    with ThreadPoolExecutor(16) as pool:
        names = set(pool.map(lambda _: store.put_bytes(data), range(64)))
    (name,) = names
    files = [file for file in (tmp_path / "media").rglob("*") if file.is_file()]
    assert [file.name for file in files] == [name]


def test_the_process_has_one_store() -> None:
    before = media_store()
    assert before is media_store()
    mine = MediaStore()
    use_media_store(mine)
    assert media_store() is mine
    use_media_store(before)


def test_a_forked_child_can_use_the_store_and_leaves_the_parents_files() -> None:
    store = media_store()
    spilled = MediaStore(max_bytes=0)
    name = spilled.put_bytes(b"x")
    with store._lock:
        child = os.fork()
        if child == 0:
            store.put_bytes(b"in the child")
            spilled.close()
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert spilled.get(name) == b"x"


def test_the_headers_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentenv.media.store._MOST_INFOS", 2)
    store = MediaStore()
    for seed in range(4):
        store.info(store.put(encoded(scene(8, 8, seed), "PNG")).sha256)
    assert len(store._infos) == 2


def test_a_file_is_kept_where_it_lies(tmp_path: Path) -> None:
    store, file, data = MediaStore(max_bytes=0), tmp_path / "large.bin", os.urandom(3 << 20)
    file.write_bytes(data)
    name = store.put_file(file)
    assert name == hashlib.sha256(data).hexdigest() == store.put_file(str(file))
    assert name in store
    assert store.path(name) == file
    assert store.get(name) == data
    assert store.save([name], tmp_path / "run", sync=True) == 1
    assert (tmp_path / "run" / "media" / name[:2] / name).read_bytes() == data


def test_a_file_that_was_changed_is_not_found_until_it_is_put_again(tmp_path: Path) -> None:
    store, file = MediaStore(max_bytes=0), tmp_path / "a.bin"
    file.write_bytes(b"one")
    name = store.put_file(file)
    file.write_bytes(b"another")
    assert name not in store
    with pytest.raises(StoreError, match="no media"):
        store.get(name)
    assert store.put_file(file) == hashlib.sha256(b"another").hexdigest()
    file.unlink()
    assert store.path(hashlib.sha256(b"another").hexdigest()) is None
    with pytest.raises(StoreError, match="cannot be read"):
        store.put_file(file)
    store.close()
