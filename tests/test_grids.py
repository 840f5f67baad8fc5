"""Sample grids, the page that shows them over time, and that it opens from disk."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from p2p_jax.images import lab
from p2p_jax.images.domains import Domain
from p2p_jax.training.grids import make_grid, pictures, read_places, write_grid
from p2p_jax.training.samples_page import SamplesPage
from support.browser import chromium


def test_grid_places_columns_and_repeats_gray():
    red = np.zeros((2, 8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    gray = np.full((2, 8, 8, 1), 128, np.uint8)
    grid = make_grid({"input": red, "output": gray})
    assert grid.shape == (16 + 2 * 8 + 4, 2 * 8 + 4, 3)
    np.testing.assert_array_equal(grid[16:24, :8], np.broadcast_to([255, 0, 0], (8, 8, 3)))
    np.testing.assert_array_equal(grid[28:, 12:], np.full((8, 8, 3), 128))
    assert (grid[16:, 8:12] == 255).all()


def test_pictures_of_columns_of_several_kinds():
    four_bands, labels = Domain("uint16", 4, (0.0,) * 4, (10.0,) * 4), Domain("labels", 2)
    one_hot = labels.encode(np.array([0, 1], np.uint8).reshape(2, 1, 1, 1))
    bands = np.zeros((2, 1, 1, 4), np.float32) + np.array([-1, 0, 1, 1], np.float32)
    shown = pictures({"input": bands, "output": one_hot, "heat": bands[..., :1]}, (four_bands, labels))
    assert list(shown) == ["input", "output", "heat"]
    assert shown["input"].tolist() == [[[[0, 128, 255]]]] * 2
    assert shown["output"].tolist() == [[[[0]]], [[[255]]]]
    assert shown["heat"].tolist() == [[[[0]]]] * 2  # of neither kind
    assert make_grid(shown).shape == (16 + 2 + 4, 3 + 8, 3)


def test_columns_of_equal_channels_are_told_apart_by_their_names():
    a, b = Domain("label_colors", 3, (0.0,) * 3, (255.0,) * 3), Domain("labels", 3)
    image = np.zeros((1, 1, 1, 3), np.float32)
    names = ["input", "output", "target", "real A", "fake B", "rec A", "real B", "fake A", "rec B"]
    shown = pictures(dict.fromkeys(names, image), (a, b))
    of_a = [name for name in names if shown[name].shape[-1] == 3]
    assert of_a == ["input", "real A", "rec A", "fake A"]


def test_colours_are_shown_with_the_lightness_of_their_row():
    photo = np.random.RandomState(0).randint(60, 200, (2, 8, 8, 3)).astype(np.uint8)
    domains = Domain("lab_l", 1, (0.0,), (100.0,)), Domain("lab_ab", 2, (-110.0,) * 2, (110.0,) * 2)
    lightness, colour = (domain.encode(domain.values(photo)) for domain in domains)
    shown = pictures({"input": lightness, "output": 0 * colour, "target": colour}, domains)
    assert np.abs(shown["target"].astype(int) - photo).max() <= 1
    np.testing.assert_allclose(lab.from_rgb(shown["output"])[..., 0], (lightness[..., 0] + 1) * 50, atol=0.3)
    assert np.ptp(shown["output"], axis=-1).max() == 0  # gray
    assert shown["input"].shape == (2, 8, 8, 1)


def step_grid(folder, step, value, size=8):
    """Write a grid of one image: an input that stays, and an output of the given gray."""
    columns = {"input": np.zeros((1, size, size, 3), np.uint8), "output": np.full((1, size, size, 1), value, np.uint8)}
    path = folder / f"step_{step:07d}.png"
    return path, write_grid(path, columns, step, f"step {step}  l1 0.5")


@pytest.mark.parametrize(("size", "factor"), [(8, 32), (64, 4), (128, 2), (200, 1), (600, 1)])
def test_small_images_are_enlarged_by_whole_factors(tmp_path, size, factor):
    path, grid = step_grid(tmp_path, 7, 200, size)
    side = size * factor
    assert grid.shape == (32 + side, 2 * side + 4, 3)
    assert (grid[32:, side + 4 :] == 200).all() and (grid[32:, :side] == 0).all()
    assert grid[:32].min() < 128  # the step and the names of the columns are written there
    np.testing.assert_array_equal(np.asarray(Image.open(path)), grid)
    assert read_places(path) == {
        "step": 7, "caption": "step 7  l1 0.5", "columns": ["input", "output"], "rows": 1,
        "width": side, "height": side, "top": 32, "gap": 4,
    }  # fmt: skip


def test_the_page_holds_the_grids_up_to_the_step_that_training_goes_on_from(tmp_path):
    for step in (0, 20, 40):
        step_grid(tmp_path, step, step)
    Image.new("RGB", (8, 8)).save(tmp_path / "step_0000010.png")  # of another program: it does not say what it is
    page = SamplesPage(tmp_path, 20, "a <run>")
    assert steps_of(tmp_path) == [0, 20]
    page.add(step_grid(tmp_path, 30, 99)[0])
    assert steps_of(tmp_path) == [0, 20, 30]
    assert "<h1>a &lt;run></h1>" in (tmp_path / "index.html").read_text("ascii")


def steps_of(folder):
    text = (folder / "steps.js").read_text()
    return [grid["step"] for grid in json.loads(re.fullmatch(r"show\((.*)\);\n", text)[1])]


@pytest.mark.slow
def test_the_page_grows_while_it_is_open(tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    step_grid(folder, 0, 10)
    page = SamplesPage(folder, 0, "run")
    page.add(step_grid(folder, 100, 250)[0])
    with chromium(tmp_path) as driver:
        from selenium.webdriver.support.wait import WebDriverWait

        driver.get((folder / "index.html").as_uri())
        wait = WebDriverWait(driver, 20)

        def heads():
            # Read in one go: the page may replace its cells between two calls of the driver.
            return driver.execute_script(
                "return Array.from(document.querySelectorAll('#steps th'), th => th.innerText)"
            )

        wait.until(lambda _: heads() == ["input", "0", "100"])
        page.add(step_grid(folder, 2000, 128)[0])
        wait.until(lambda _: heads() == ["input", "0", "100", "2,000"])
        assert driver.find_element("id", "caption").text == "step 2000 l1 0.5"
        assert not driver.find_element("id", "legend").is_displayed()
        first = "arguments[0].value = 0; arguments[0].dispatchEvent(new Event('input'))"
        driver.execute_script(first, driver.find_element("id", "step"))
        assert driver.find_element("id", "caption").text == "step 0 l1 0.5"
        assert driver.find_element("id", "grid").get_attribute("src").endswith("step_0000000.png")
        shown = tmp_path / "shown.png"
        cells = driver.find_elements("css selector", "#steps .cell")
        grays = []
        for cell in cells:
            cell.screenshot(str(shown))
            grays.append(int(np.median(np.asarray(Image.open(shown).convert("L")))))
        assert grays == [0, 10, 250, 128]  # input, and the output at each step
        assert not driver.get_log("browser")


@pytest.mark.slow
def test_the_page_says_what_the_columns_of_a_cyclegan_are(tmp_path):
    columns = {name: np.zeros((1, 64, 64, 3), np.uint8) for name in ("real A", "fake B", "rec A")}
    page = SamplesPage(tmp_path, 0, "run")
    path = tmp_path / "step_0000100.png"
    write_grid(path, columns, 100, "step 100")
    page.add(path)
    with chromium(tmp_path) as driver:
        driver.get((tmp_path / "index.html").as_uri())
        legend = driver.find_element("id", "legend")
        assert legend.is_displayed() and "fake: its translation. rec: the translation, translated back" in legend.text
