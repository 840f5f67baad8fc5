"""The notebooks run top to bottom, in a small setting; they carry no output, and their helpers work without them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from support.processes import environment

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("anywidget")

ROOT = Path(__file__).parent.parent
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"pix2pix": 8, "cyclegan": 5, "write_your_own_objective": 4, "inside_the_networks": 11}
RUNS = {  # folders, and the metrics in which a run trained
    "pix2pix": {"notebook_toy_facades_*": "eval/l1"},
    "cyclegan": {"notebook_toy_unpaired_*": "eval/cycle"},
    "write_your_own_objective": {f"objectives/{name}": "eval/l1" for name in ("original", "hinge", "reader")},
    "inside_the_networks": {
        f"inside/{name}": "eval/l1" for name in ("unet", "encoder_decoder", "L1", "1x1", "16x16", "70x70")
    },
}


def by_name(books):
    return pytest.mark.parametrize("path", books, ids=lambda path: path.stem)


@pytest.mark.slow
@by_name(BOOKS)
def test_a_notebook_runs_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_JAX_NOTEBOOK", "small")
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    book = nbformat.read(path, as_version=4)
    book.cells.insert(0, nbformat.v4.new_code_cell("import support"))  # cheap programs, as in all of the tests
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[path.stem]
    for folder, metric in RUNS[path.stem].items():
        (file,) = tmp_path.glob(f"runs/{folder}/metrics.csv")
        header, *_, last = file.read_text().splitlines()
        assert float(dict(zip(header.split(","), last.split(","), strict=True))[metric]) > 0


@by_name(BOOKS)
def test_a_notebook_is_tidy(path):
    book = json.loads(path.read_text())
    cells = [(cell["cell_type"], "".join(cell["source"]), cell) for cell in book["cells"]]
    for kind, _, cell in cells:
        assert kind == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)
    (_, title, _), *_ = cells
    assert f"colab.research.google.com/github/p2p-jax/p2p-jax/blob/main/notebooks/{path.name}" in title
    text = "".join(source for kind, source, _ in cells if kind == "markdown")
    assert len(text) > 2_000
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (path.parent / link).is_file()
    for link in re.findall(r"github.com/p2p-jax/p2p-jax/(?:blob|tree)/main/([^)#]*)", text):
        assert (ROOT / link).exists()


def test_all_notebooks_are_known():
    assert {path.stem for path in BOOKS} == set(PICTURES) == set(RUNS)


def test_grid():
    from p2p_jax.notebook import grid

    images = np.linspace(-1, 1, 2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    picture = np.asarray(grid({"left": images, "right": list(np.uint8((images + 1) * 127.5 + 0.5))}, height=8))
    assert picture.shape == (16 + 2 * 12 - 4, 2 * 12 - 4, 3)
    np.testing.assert_array_equal(picture[16:24:2, :8:2], np.uint8((images[0] + 1) * 127.5 + 0.5))
    np.testing.assert_array_equal(picture[16:, :8], picture[16:, 12:])
    gray = [np.full((8, 6, 1), 90, np.uint8), np.full((4, 4, 1), 50, np.uint8)]  # of other sizes than the first
    assert np.unique(np.asarray(grid({"left": images, "right": gray}, height=4))[16:, 8:12, 0]).tolist() == [
        50,
        90,
        255,
    ]


def test_what_is_drawn_comes_back():
    from p2p_jax.errors import InputError
    from p2p_jax.notebook import DrawingPad

    image = np.random.RandomState(0).randint(0, 256, (6, 5, 3), np.uint8)
    pad = DrawingPad(image, {"wall": (0, 0, 255)})
    np.testing.assert_array_equal(pad.image, image)
    assert pad._colors == [["wall", "#0000ff"]]
    other = DrawingPad(255 - image, {"wall": np.array([0, 0, 255], np.uint8)})
    pad._drawn = other._drawn
    np.testing.assert_array_equal(pad.image, 255 - image)
    with pytest.raises(InputError, match=r"uint8 \[H, W, 3\], not float64 \(2, 2, 3\)"):
        DrawingPad(np.zeros((2, 2, 3)), {})
