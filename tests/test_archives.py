"""`p2p_jax.data.archives` against a server on the loopback address and archives made here."""

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

from p2p_jax.data import archives
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
        if len(calls) == 3:  # the download, the first image, the second
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


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../escaped.jpg"),
        tarfile.TarInfo("/escaped.jpg"),
        tarfile.TarInfo("facades/train/../../../escaped.jpg"),
        link("facades/train/escaped.jpg", "../../../escaped.jpg", tarfile.SYMTYPE),
        link("facades/train/escaped.jpg", "/escaped.jpg", tarfile.SYMTYPE),
        link("facades/train/escaped.jpg", "../escaped.jpg", tarfile.LNKTYPE),
    ],
)
def test_members_that_point_outside_are_refused(server, cache, member):
    make_archive(server.archive, extra=[member])
    with pytest.raises(InputError, match="is refused: .*escaped.jpg' in it points outside"):
        fetch(server, cache)
    assert left_in(cache) == []
    assert not (cache.parent / "escaped.jpg").exists()


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
