"""`p2p_jax.data.archives` against a server on the loopback address and archives made here."""

import errno
import functools
import hashlib
import http.server
import io
import json
import pathlib
import shutil
import sys
import tarfile
import threading

import pytest

from p2p_jax.data import archives, unpacking
from p2p_jax.errors import InputError
from support.processes import run_python

FILES = {
    "facades/train/1.jpg": b"first" * 999,
    "facades/train/2.jpg": b"second" * 999,
    "facades/val/1.jpg": b"third" * 999,
    "facades/test/1.jpg": b"fourth",
}


def make_archive(path, files=FILES, extra=()):
    """Write a tar.gz of `files` (name -> bytes) and of `extra` members without data."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member)


def contents(folder):
    return {f"facades/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*.jpg")}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, notes what was asked for, and can hang up in the middle of a file."""

    def do_GET(self):
        self.server.downloads.append(self.path)
        if not self.server.hang_up:
            return super().do_GET()
        data = pathlib.Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A running server of tmp_path/served; `stop()` may be called early and more than once."""
    served = tmp_path / "served"
    served.mkdir()
    handler = functools.partial(Handler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.archive = served / "facades.tar.gz"
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.downloads, server.hang_up = [], False
        make_archive(server.archive)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def stop():
            server.shutdown()
            server.server_close()
            thread.join()

        server.stop = stop
        yield server
        stop()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def fetch(server, cache, name="facades"):
    return archives.fetch(name, cache, base_url=server.url)


def left_in(cache):
    return sorted(path.name for path in cache.iterdir())


def test_downloads_unpacks_and_records(server, cache):
    folder = fetch(server, cache)
    assert folder == cache / "facades"
    assert contents(folder) == FILES
    data = server.archive.read_bytes()
    record = json.loads((cache / "facades.json").read_text())
    assert record == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert left_in(cache) == ["facades", "facades.json", "facades.tar.gz"]


def test_second_call_needs_no_network(server, cache):
    folder = fetch(server, cache)
    server.stop()
    (cache / "facades.tar.gz").unlink()
    assert fetch(server, cache) == folder
    assert server.downloads == ["/facades.tar.gz"]


def test_interrupted_unpacking_resumes_from_the_archive(server, cache, monkeypatch):
    copy, calls = shutil.copyfileobj, []

    def interrupt(source, target, *length):
        calls.extend(length)  # the server copies too, without a length
        if len(calls) == 2:  # the second image
            raise KeyboardInterrupt
        copy(source, target, *length)

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "copyfileobj", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(server, cache)
    assert left_in(cache) == ["facades.json", "facades.tar.gz"]
    server.stop()
    assert contents(fetch(server, cache)) == FILES
    assert server.downloads == ["/facades.tar.gz"]


def test_interrupted_download_leaves_nothing_and_starts_again(server, cache):
    server.hang_up = True
    with pytest.raises(
        InputError, match="cannot download http://127.0.0.1.*facades.tar.gz: the connection ended after "
    ):
        fetch(server, cache)
    assert left_in(cache) == []
    server.hang_up = False
    assert contents(fetch(server, cache)) == FILES


def test_litter_of_a_killed_process_is_not_taken_for_the_set(server, cache):
    litter = cache / "facades.tmp-killed" / "facades" / "train"
    litter.mkdir(parents=True)
    (litter / "1.jpg").write_bytes(b"half")
    assert contents(fetch(server, cache)) == FILES


def test_archive_placed_by_hand_needs_no_server(server, cache):
    server.stop()
    cache.mkdir()
    shutil.copy(server.archive, cache)
    assert contents(fetch(server, cache)) == FILES
    assert server.downloads == []


def test_another_process_may_finish_first(server, cache, monkeypatch):
    unpack = archives._unpack

    def lose_the_race(archive, scratch):
        unpack(archive, scratch)
        shutil.copytree(scratch / "facades", cache / "facades")

    monkeypatch.setattr(archives, "_unpack", lose_the_race)
    assert contents(fetch(server, cache)) == FILES
    assert left_in(cache) == ["facades", "facades.json", "facades.tar.gz"]


@pytest.mark.parametrize("where", ["server", "cache"])
def test_changed_bytes_are_refused_with_both_checksums(server, cache, where):
    old = hashlib.sha256(server.archive.read_bytes()).hexdigest()
    shutil.rmtree(fetch(server, cache))
    if where == "server":
        (cache / "facades.tar.gz").unlink()
    changed = server.archive if where == "server" else cache / "facades.tar.gz"
    make_archive(changed, FILES | {"facades/train/1.jpg": b"changed"})
    new = hashlib.sha256(changed.read_bytes()).hexdigest()
    with pytest.raises(InputError) as error:
        fetch(server, cache)
    source = f"{server.url}/facades.tar.gz" if where == "server" else str(changed)
    for part in (source, old, new, f"delete {cache / 'facades.json'}"):
        assert part in str(error.value)
    assert not (cache / "facades").exists()
    (cache / "facades.json").unlink()  # the mend that the message names
    assert contents(fetch(server, cache))["facades/train/1.jpg"] == b"changed"


DAMAGE = {
    "cut short": lambda data: data[: len(data) // 2],
    "wrong checksum": lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],  # gzip ends: CRC-32, length
    "web page": lambda data: b"<html>please log in</html>",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_archive_is_named_and_not_recorded(server, cache, damage):
    whole = server.archive.read_bytes()
    server.archive.write_bytes(DAMAGE[damage](whole))
    with pytest.raises(InputError, match=r"facades.tar.gz is damaged or cut short") as error:
        fetch(server, cache)
    assert "--config.data.dir" in str(error.value)
    assert left_in(cache) == []
    server.archive.write_bytes(whole)
    assert contents(fetch(server, cache)) == FILES


def member(name, kind=tarfile.REGTYPE, target="", size=0):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, size
    return made


def trusted(server, cache):
    """Put the server's archive into the cache with the record of one that was checked when it was downloaded."""
    cache.mkdir()
    data = server.archive.read_bytes()
    (cache / "facades.tar.gz").write_bytes(data)
    (cache / "facades.json").write_text(json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}))


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


HOSTILE = {
    "above": ([member("../escaped.jpg")], "points outside"),
    "absolute": ([member("/escaped.jpg")], "points outside"),
    "up and down": ([member("facades/train/../../../escaped.jpg")], "points outside"),
    "up inside": ([member("facades/train/../escaped.jpg")], "points outside"),
    "backslashes": ([member("facades\\..\\..\\escaped.jpg")], "that some systems do not allow in names"),
    "drive": ([member("C:/escaped.jpg")], "that some systems do not allow in names"),
    "drive inside": ([member("facades/C:escaped.jpg")], "that some systems do not allow in names"),
    "control": ([member("facades/train/escaped\x1b[2J.jpg")], "that some systems do not allow in names"),
    "link above": ([member("facades/train/escaped.jpg", tarfile.SYMTYPE, "../../../escaped.jpg")], "points outside"),
    "absolute link": ([member("facades/train/escaped.jpg", tarfile.SYMTYPE, "/escaped.jpg")], "points outside"),
    "hard link": ([member("facades/train/escaped.jpg", tarfile.LNKTYPE, "../escaped.jpg")], "points outside"),
    "link inside": ([member("facades/train/escaped.jpg", tarfile.SYMTYPE, "1.jpg")], "is a link"),
    "through a link": (
        [member("facades/escaped", tarfile.SYMTYPE, "/tmp"), member("facades/escaped/x.jpg")], "points outside",
    ),
    "device": ([member("facades/escaped", tarfile.CHRTYPE)], "is not a plain file"),
    "pipe": ([member("facades/escaped", tarfile.FIFOTYPE)], "is not a plain file"),
    "twice": ([member("facades/train/1.jpg")], "is in it twice"),
    "other capitals": ([member("facades/TRAIN/1.JPG")], "is in it twice"),
    "other spelling": ([member("facades/val/\u00e9.jpg"), member("facades/val/e\u0301.jpg")], "is in it twice"),
    "folder that is a file": ([member("facades/train/1.jpg/escaped.jpg")], "is also a file"),
    "file that is a folder": ([member("facades/train")], "is a file and also a folder"),
    "empty folder on a file": ([member("facades/train/1.jpg", tarfile.DIRTYPE)], "is also a file"),
    "long": ([member("facades/" + "escaped" * 40 + ".jpg")], "is too long"),
    "deep": ([member("facades/" + "escaped/" * 150 + "x.jpg")], "is too long"),
    "dot at its end": ([member("facades/train/escaped.jpg.")], "ends with a dot"),
    "long head": ([member("facades/" + "x" * 6_000_000)], "the header of a file in it is too long"),
}  # fmt: skip


@pytest.mark.parametrize("when", ["downloaded", "unpacked"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_must_not_be_written_is_refused(server, cache, name, when):
    """When it comes, and when it is unpacked, though a record says that it was checked before."""
    extra, fault = HOSTILE[name]
    make_archive(server.archive, extra=extra)
    if when == "unpacked":
        trusted(server, cache)
    with pytest.raises(InputError, match=f"facades.tar.gz is refused: .*{fault}") as error:
        fetch(server, cache)
    assert "\n" not in str(error.value) and "--config.data.dir" in str(error.value)
    assert everything_below(cache) == (["facades.json", "facades.tar.gz"] if when == "unpacked" else [])
    assert sorted(path.name for path in cache.parent.iterdir()) == ["cache", "served"]


@pytest.mark.parametrize("when", ["downloaded", "unpacked"])
def test_what_grows_beyond_bounds_is_refused(server, cache, when, monkeypatch):
    """An archive of some kilobytes in which many megabytes of nothing are told, and one of very many files."""
    monkeypatch.setattr(unpacking, "_LEAST_ALLOWED", 10**7)
    with tarfile.open(server.archive, "w:gz") as tar:
        tar.addfile(member("facades/train/1.jpg", size=2 * 10**7), Zeros(2 * 10**7))
    if when == "unpacked":
        trusted(server, cache)
    with pytest.raises(InputError, match=r"its files are larger than 0\.0 GB in total"):
        fetch(server, cache)
    make_archive(server.archive)
    if when == "unpacked":
        shutil.rmtree(cache)
        trusted(server, cache)
    monkeypatch.setattr(unpacking, "MOST_MEMBERS", 3)
    with pytest.raises(InputError, match="it holds more than 3 files"):
        fetch(server, cache)
    assert not (cache / "facades").exists()


class Zeros(io.RawIOBase):
    """A file of nothing."""

    def __init__(self, size):
        self._left = size

    def readinto(self, buffer):
        count = min(self._left, len(buffer))
        buffer[:count] = bytes(count)
        self._left -= count
        return count

    def readable(self):
        return True


def test_a_server_that_sends_more_than_it_says_is_cut_off(server, cache, monkeypatch):
    monkeypatch.setattr(archives, "_LARGEST", 100)
    with pytest.raises(InputError, match="cannot download .*GB are free"):
        fetch(server, cache)
    monkeypatch.setattr(archives, "_LARGEST", 10**9)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 100))
    with pytest.raises(InputError, match=r"cannot download .*, but only 0\.0 GB are free in "):
        fetch(server, cache)
    assert left_in(cache) == []


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"sha256": "x", "size": null}', "[" * 100_000])
def test_a_damaged_record_is_named(server, cache, record):
    trusted(server, cache)
    (cache / "facades.json").write_text(record)
    with pytest.raises(InputError, match=r"facades\.json is damaged .*: delete it and run again"):
        fetch(server, cache)


def test_only_the_set_itself_is_written(server, cache):
    make_archive(server.archive, FILES | {"other/x.jpg": b"", "README": b"", "./facades/val/2.jpg": b"fifth"})
    assert contents(fetch(server, cache)) == FILES | {"facades/val/2.jpg": b"fifth"}
    assert left_in(cache) == ["facades", "facades.json", "facades.tar.gz"]


def test_a_full_disk_is_no_damage(server, cache, monkeypatch):
    def fill(source, target, *length):
        if "tmp" in str(target.name) or target.name.endswith("1.jpg"):
            raise OSError(errno.ENOSPC, "No space left on device")

    trusted(server, cache)
    monkeypatch.setattr(archives.shutil, "copyfileobj", fill)
    with pytest.raises(InputError, match=r"cannot be unpacked \(No space left on device\)"):
        fetch(server, cache)
    assert left_in(cache) == ["facades.json", "facades.tar.gz"]


def test_archive_of_another_set_is_refused(server, cache):
    server.archive.rename(server.archive.with_name("maps.tar.gz"))
    with pytest.raises(InputError, match="is not a pix2pix archive: it lacks maps/train/"):
        fetch(server, cache, "maps")
    assert left_in(cache) == []


def test_dead_link_names_the_url_and_the_way_round(server, cache):
    with pytest.raises(InputError, match="404") as error:
        fetch(server, cache, "night2day")
    assert f"{server.url}/night2day.tar.gz" in str(error.value)
    assert "--config.data.dir" in str(error.value)
    assert left_in(cache) == []


def test_no_network_names_the_url_and_the_way_round(server, cache):
    server.stop()
    with pytest.raises(InputError, match="refused") as error:
        fetch(server, cache)
    assert f"{server.url}/facades.tar.gz" in str(error.value)
    assert "--config.data.dir" in str(error.value)


def test_unknown_name_lists_the_names(cache):
    with pytest.raises(InputError, match="'facade'.*edges2shoes, facades, maps") as error:
        archives.fetch("facade", cache)
    assert "--config.data.dir" in str(error.value)


def test_cityscapes_names_the_command_that_prepares_it(cache):
    with pytest.raises(InputError, match="python -m p2p_jax cityscapes --gtfine"):
        archives.fetch("cityscapes", cache)
    assert not cache.exists()


def test_neither_tensorflow_nor_tfds_is_needed(server, cache, monkeypatch):
    for name in ("tensorflow", "tensorflow_datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    assert contents(fetch(server, cache)) == FILES


def test_cache_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="P2P_JAX_CACHE"):
        archives.fetch("facades", tmp_path / "file" / "cache")


def test_import_is_lazy():
    code = "import sys, p2p_jax.data.archives; print([m for m in sys.modules if m.startswith('tensorflow')])"
    assert run_python(code) == "[]\n"
