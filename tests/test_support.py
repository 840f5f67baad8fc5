"""What the tests themselves rest on: programs that are kept, comparers that notice, files that stand alone."""

import ast
import json
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax._src.compilation_cache import compress_executable

from p2p_jax.data.stream import sources
from p2p_jax.data.toy import facades
from p2p_jax.nets import convolution
from support import environment, skipped
from support.comparers import (
    assert_close_trees,
    assert_equal_batches,
    assert_equal_streams,
    assert_equal_trees,
    same_pixels,
)
from support.configs import SMALL, small_config
from support.images import noise
from support.processes import run, run_python

TESTS = Path(__file__).parent


def test_damaged_programs_are_dropped_and_folders_of_the_user_left_alone(tmp_path, monkeypatch):
    folder = tmp_path / "tests" / "jaxlib-1"
    folder.mkdir(parents=True)
    monkeypatch.setattr(environment, "_programs_folder", lambda: folder)
    whole = compress_executable(b"a program" * 99)
    (folder / "good-cache").write_bytes(whole)
    (folder / "cut-cache").write_bytes(whole[: len(whole) // 2])
    (folder / "empty-cache").write_bytes(b"")
    (tmp_path / "precious").write_bytes(b"")
    monkeypatch.setattr(environment, "_LIMIT", 10**6)
    for named in ("", str(tmp_path)):  # none of ours
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", named)
        assert environment.tidy_programs() == []
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
    assert sorted(environment.tidy_programs()) == ["cut-cache", "empty-cache"]
    assert environment.tidy_programs() == []
    assert [path.name for path in folder.glob("*-cache")] == ["good-cache"]
    monkeypatch.setattr(environment, "_LIMIT", 0)
    environment.tidy_programs()
    assert not list(folder.glob("*-cache")) and (tmp_path / "precious").exists()


def test_a_process_draws_each_toy_facade_once():
    data = small_config().data
    first = sources.toy(data, "val")
    before = facades.render.cache_info()
    again = sources.toy(data, "val")
    after = facades.render.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (100, 0)
    np.testing.assert_array_equal(again.read(7)[0], first.read(7)[0])


def test_programs_have_a_folder_for_each_version_processor_and_set_of_flags(monkeypatch):
    found = {environment._programs_folder()}
    monkeypatch.setattr(environment, "CHEAP_COMPILATION", "--other")
    found.add(environment._programs_folder())
    monkeypatch.setattr(environment, "_JAXLIB", "9.9.9")
    found.add(environment._programs_folder())
    monkeypatch.setattr(environment.cache_folder, "processor", lambda: "another")
    found.add(environment._programs_folder())
    assert len(found) == 4 and len({path.parent for path in found}) == 1
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == jax.config.jax_compilation_cache_dir


def test_libraries_leave_the_home_alone():
    """All but JAX's programs, which are found before."""
    code = "import matplotlib; print(matplotlib.get_cachedir()); print(matplotlib.get_configdir())"
    for folder in run_python(code).split():
        assert Path(folder).parent.parent.name == "home" and Path(folder).parents[2].name == "tests"


WANTING = {
    "conftest.py": "from support import skipped\ndef pytest_configure(config):\n    skipped.register(config)\n",
    "test_whole.py": "import pytest\npytest.importorskip('lacking')\ndef test_a():\n    pass\n",
    "test_part.py": """
import os, pytest
def test_b():
    assert "SECOND" not in os.environ
@pytest.mark.parametrize("package", ["lacking", "json"])
def test_c(package):
    pytest.importorskip(package)
    assert package == "lacking" or "SECOND" not in os.environ
@pytest.mark.skipif(True, reason="this is no Mac")
def test_d():
    pass
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_tests_are_run_where_they_can_be(workers, tmp_path, monkeypatch):
    for name, text in WANTING.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv(skipped.VARIABLE, str(tmp_path / "skipped.json"))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--rootdir", str(tmp_path), str(tmp_path)]
    assert "2 passed" in run(command, tmp_path).stdout
    lacking = "could not import 'lacking': No module named 'lacking'"
    first = {
        "test_whole.py": lacking,
        "test_part.py::test_c[lacking]": lacking,
        "test_part.py::test_d": "this is no Mac",
    }
    assert json.loads((tmp_path / "skipped.json").read_text()) == first
    report = [sys.executable, skipped.__file__, str(tmp_path / "skipped.json")]
    assert run(report).returncode == 1
    (tmp_path / "lacking.py").write_text("")
    monkeypatch.setenv("SECOND", "1")
    assert "2 passed, 1 skipped" in run(command, tmp_path).stdout
    assert json.loads((tmp_path / "skipped.json").read_text()) == {"test_part.py::test_d": "this is no Mac"}
    ended = run(report)
    assert (ended.returncode, ended.stdout) == (0, "skipped everywhere: test_part.py::test_d: this is no Mac\n")


def test_convolutions_are_plain_unless_a_test_asks(request):
    assert not convolution.detours((1, 8, 8))
    request.getfixturevalue("fast_convolutions")
    assert convolution.detours((1, 8, 8)) and not convolution.detours((None, 8, 8))


def test_comparers_notice():
    tree = {"a": np.ones(3, np.float32), "b": [np.zeros(2)]}
    other = {"a": np.ones(3, np.float32) + np.float32(1e-6), "b": [np.zeros(2)]}
    assert_equal_trees(tree, {**tree})
    assert_close_trees(other, tree, rtol=1e-5)
    assert_close_trees(other, tree, of_largest=1e-5)
    for differs in (
        lambda: assert_equal_trees(other, tree),
        lambda: assert_equal_trees({"a": tree["a"]}, tree),
        lambda: assert_close_trees(other, tree, rtol=1e-8),
        lambda: assert_close_trees(other, tree, of_largest=1e-8),
        lambda: assert_equal_batches({"a": tree["a"]}, {"b": tree["a"]}),
        lambda: assert_equal_batches({"a": tree["a"]}, {"a": other["a"]}),
    ):
        with pytest.raises(AssertionError):
            differs()
    with pytest.raises((AssertionError, AttributeError)):
        assert_equal_streams([tree], [tree, tree])
    pixels = noise(4, 4, 3, low=2, high=250)
    assert same_pixels(pixels + np.uint8(1), pixels) and not same_pixels(pixels + np.uint8(2), pixels)
    assert not same_pixels(pixels[:3], pixels)


def test_configs_are_not_shared():
    before = repr(SMALL)
    given = {"num_downs": 2}
    assert small_config(generator=given, generator__base_width=8).generator.base_width == 8
    assert given == {"num_downs": 2} and repr(SMALL) == before


def test_noise_is_of_the_whole_range():
    assert (noise(64, 64).min(), noise(64, 64).max()) == (0, 255)
    assert -1 <= noise(64, 64, dtype=np.float32).min() < -0.9 < 0.9 < noise(64, 64, dtype=np.float32).max() < 1
    assert not np.array_equal(noise(8), noise(8, seed=1))


@pytest.mark.parametrize("path", sorted(TESTS.glob("test_*.py")), ids=lambda path: path.stem)
def test_files_import_nothing_of_each_other(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.startswith(("test_", "conftest"))]


def test_gpus_take_products_over_the_smallest_maps(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    taken = {steps: convolution._as_product(steps, most=512) for steps in ((1, 8, 8), (1, 16, 16), (None, 8, 8))}
    assert list(taken.values()) == [True, False, False]
    assert not convolution._as_product((1, 8, 8), most=32)
