"""`p2p_jax.data.cycle_gan_sets`: TFDS itself downloads, checks and prepares a tiny archive from this machine."""

import functools
import hashlib
import http.server
import io
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from p2p_jax.data import cycle_gan_sets, load, make_source, unpacking
from p2p_jax.errors import InputError
from support.configs import data_config

config_of = functools.partial(data_config, source="cycle_gan/horse2zebra", val_split="test", flip=True)
COUNTS = {"trainA": 3, "trainB": 4, "testA": 2, "testB": 1}
GRAY = ("trainB", 1)


def jpeg(seed, mode="RGB"):
    """Return an encoded image of one colour, and that colour."""
    image = Image.new("RGB", (20, 16), tuple(np.random.RandomState(seed).randint(0, 256, 3).tolist())).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue(), np.asarray(image.convert("RGB"))[0, 0]


@functools.cache
def images():
    names = [(folder, i) for folder, count in COUNTS.items() for i in range(count)]
    return {name: jpeg(seed, "L" if name == GRAY else "RGB") for seed, name in enumerate(names)}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    def do_GET(self):
        self.server.downloads.append(self.path)
        return super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def tfds_dir(tmp_path, monkeypatch):
    """Let TFDS keep its data in an empty folder, as $TFDS_DATA_DIR would if it were set before the import."""
    tfds = cycle_gan_sets.import_tfds()
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


@pytest.fixture
def server(tmp_path, tfds_dir, monkeypatch):
    """A running server of a tiny horse2zebra.zip, which TFDS takes for the real one."""
    from tensorflow_datasets.core.download import checksums
    from tensorflow_datasets.image_classification import cycle_gan

    served = tmp_path / "served"
    served.mkdir()
    archive = served / "horse2zebra.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for (folder, i), (data, _) in images().items():
            file.writestr(f"horse2zebra/{folder}/n{i}.jpg", data)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served)) as server:
        server.archive, server.downloads = archive, []
        server.url = f"http://127.0.0.1:{server.server_port}/horse2zebra.zip"

        def expect(data):
            info = checksums.UrlInfo(
                size=len(data), checksum=hashlib.sha256(data).hexdigest(), filename="horse2zebra.zip"
            )
            monkeypatch.setitem(cycle_gan.CycleGAN.url_infos, server.url, info)

        monkeypatch.delitem(cycle_gan.CycleGAN.url_infos, cycle_gan._DL_URLS["horse2zebra"])
        monkeypatch.setitem(cycle_gan._DL_URLS, "horse2zebra", server.url)
        expect(archive.read_bytes())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def stop():
            server.shutdown()
            server.server_close()
            thread.join()

        server.expect, server.stop = expect, stop
        yield server
        stop()


def test_downloads_once_and_keeps_the_bytes(server):
    side_a, side_b = cycle_gan_sets.fetch("horse2zebra", "train")
    for side, folder in ((side_a, "trainA"), (side_b, "trainB")):
        assert side == {f"n{i}.jpg": data for (f, i), (data, _) in images().items() if f == folder}
    assert server.downloads == ["/horse2zebra.zip"]
    server.stop()
    again = cycle_gan_sets.fetch("horse2zebra", "train")
    assert again == (side_a, side_b)
    assert all(list(side) == sorted(side) for side in (*again, side_a, side_b))
    assert [len(side) for side in cycle_gan_sets.fetch("horse2zebra", "test")] == [2, 1]


def test_stream_of_a_set_with_a_grayscale_image(server, capsys):
    data = load(config_of(data__output__channels=1))
    assert "3 + 4 unpaired images in train, 2 + 1 in test" in capsys.readouterr().out
    batch = next(data.train(0))
    assert batch["real_a"].shape == (4, 16, 16, 3) and batch["real_b"].shape == (4, 16, 16, 1)
    colour = {tuple(np.rint((image[5, 5] + 1) * 127.5).astype(int)) for image in batch["real_a"]}
    assert len(colour) == 3
    for value in colour:
        assert min(np.abs(np.array(value) - c).max() for (f, _), (_, c) in images().items() if f == "trainA") <= 2
    luma = sorted(np.rint((batch["real_b"][:, 5, 5, 0] + 1) * 127.5))
    stored = sorted(c @ [0.299, 0.587, 0.114] for (f, _), (_, c) in images().items() if f == "trainB")
    np.testing.assert_allclose(luma, stored, atol=2)


def test_names_and_fingerprint(server):
    source = make_source(config_of().data, "train")
    assert source.b.names == [f"cycle_gan/horse2zebra/trainB/n{i}.jpg" for i in range(4)]
    assert source.fingerprint == make_source(config_of().data, "train").fingerprint
    assert source.a._replace(mark="other").fingerprint != source.a.fingerprint
    assert source.a.mark != make_source(config_of().data, "test").a.mark


def test_an_unreadable_image_is_named(server, monkeypatch):
    broken = {"good.jpg": images()["trainA", 0][0], "bad.jpg": b"<html>"}
    monkeypatch.setattr(cycle_gan_sets, "fetch", lambda name, split: (broken, broken))
    with pytest.raises(InputError, match=r"cycle_gan/horse2zebra/testA/bad.jpg cannot be read"):
        list(load(config_of()).validation(2))


def assert_mends_are_named(error, tfds_dir):
    for part in ("cycle_gan/horse2zebra", str(tfds_dir / "downloads/manual/horse2zebra.zip"), "--config.data.dir"):
        assert part in str(error.value)


def test_changed_archive_is_refused(server, tfds_dir):
    right = server.archive.read_bytes()
    server.expect(right + b"more")
    with pytest.raises(InputError, match="wrong checksum") as error:
        cycle_gan_sets.fetch("horse2zebra", "train")
    assert_mends_are_named(error, tfds_dir)
    server.expect(right)
    assert len(cycle_gan_sets.fetch("horse2zebra", "train")[0]) == 3


def test_no_server_is_told_at_once_and_mended_by_hand(server, tfds_dir):
    archive = server.archive.read_bytes()
    server.stop()
    with pytest.raises(InputError, match="refused") as error:
        cycle_gan_sets.fetch("horse2zebra", "train")
    assert_mends_are_named(error, tfds_dir)
    by_hand = tfds_dir / "downloads" / "manual" / "horse2zebra.zip"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(archive + b"changed")
    with pytest.raises(InputError, match="wrong checksum"):
        cycle_gan_sets.fetch("horse2zebra", "train")
    by_hand.write_bytes(archive)
    assert len(cycle_gan_sets.fetch("horse2zebra", "train")[0]) == 3
    assert server.downloads == []


def test_missing_archive_is_told(server, tfds_dir):
    server.archive.unlink()
    with pytest.raises(InputError, match="404") as error:
        cycle_gan_sets.fetch("horse2zebra", "train")
    assert_mends_are_named(error, tfds_dir)


def test_a_copy_of_ones_own_needs_no_tfds(tmp_path, monkeypatch):
    for (folder, i), (data, _) in images().items():
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"n{i}.jpg").write_bytes(data)
    monkeypatch.setattr(cycle_gan_sets, "import_tfds", None)
    data = load(config_of(data__dir=str(tmp_path)))
    assert (data.num_train, data.num_val) == (4, 2)
    with pytest.raises(InputError, match="there is no folder nowhere"):
        load(config_of(data__dir="nowhere"))


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("horse2zebras", "train", "apple2orange, cezanne2photo.* did you mean horse2zebra?"),
        ("cityscapes", "train", "there is no CycleGAN set 'cityscapes'.*--config.data.dir=FOLDER"),
        ("facades", "val", "not 'val': set .*--config.data.val_split=test"),
    ],
)
def test_unknown_names_and_splits(name, split, message):
    with pytest.raises(InputError, match=message):
        cycle_gan_sets.fetch(name, split)


def test_names_are_those_of_tfds():
    cycle_gan_sets.import_tfds()
    from tensorflow_datasets.image_classification import cycle_gan

    assert sorted(cycle_gan._DATA_OPTIONS) == list(cycle_gan_sets.NAMES)
    files = {info.filename for info in cycle_gan.CycleGAN.url_infos.values()}
    assert files >= {f"{name}.zip" for name in cycle_gan_sets.NAMES}


def changed(path):
    """Give an archive another content of the same size, as a flipped bit would."""
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_an_archive_that_is_not_the_published_one_any_more_is_refused(server, tfds_dir):
    cycle_gan_sets.fetch("horse2zebra", "train")
    published = hashlib.sha256(server.archive.read_bytes()).hexdigest()
    (archive,) = (tfds_dir / "downloads" / "cycle_gan").glob("*.zip")
    found = changed(archive)
    with pytest.raises(InputError) as error:
        cycle_gan_sets.fetch("horse2zebra", "test")
    for part in (str(archive), published, found, "is not the published archive", "Delete it and run again"):
        assert part in str(error.value)
    archive.unlink()
    assert [len(side) for side in cycle_gan_sets.fetch("horse2zebra", "test")] == [2, 1]


def test_an_archive_that_stays_as_it_was_is_not_read_through_again(server, tfds_dir, monkeypatch):
    cycle_gan_sets.fetch("horse2zebra", "train")
    (record,) = (tfds_dir / "downloads" / "cycle_gan").glob("*.zip.p2p_jax.json")
    with monkeypatch.context() as patch:
        patch.setattr(cycle_gan_sets.hashlib, "file_digest", None)
        assert [len(side) for side in cycle_gan_sets.fetch("horse2zebra", "test")] == [2, 1]
    for damaged in ("", "[]", "{}", "[" * 100_000):
        record.write_text(damaged)
        assert [len(side) for side in cycle_gan_sets.fetch("horse2zebra", "test")] == [2, 1]


def test_an_archive_that_says_it_is_larger_than_it_can_be_is_refused(server, monkeypatch):
    monkeypatch.setattr(unpacking, "_LEAST_ALLOWED", 100)
    monkeypatch.setattr(unpacking, "_RATIO", 0)
    with pytest.raises(InputError, match="its files are larger than"):
        cycle_gan_sets.fetch("horse2zebra", "train")
