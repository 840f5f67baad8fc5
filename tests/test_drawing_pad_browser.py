"""The notebooks' drawing pad in a real browser, with a stand-in for the notebook's side of it."""

import base64

import numpy as np
import pytest

from support.browser import chromium

pytestmark = pytest.mark.slow

pytest.importorskip("anywidget")
COLORS = {"facade": (0, 0, 255), "window": (0, 85, 255), "door": (0, 170, 255)}
START = np.random.RandomState(0).randint(0, 256, (48, 64, 3), np.uint8)
SCALE = 4
RENDER = """
const [code, state, done] = arguments;
window.state = state;
window.saves = 0;
const model = {get: (key) => state[key], set: (key, value) => (state[key] = value), save_changes: () => window.saves++};
import("data:text/javascript;base64," + code).then((module) => {
  module.default.render({model, el: document.body});
  const wait = () => (document.querySelector("canvas").width === 64 ? done() : setTimeout(wait, 10));
  wait();
});
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("pad")) as driver:
        yield driver


@pytest.fixture
def pad(driver):
    """A pad, on a page of its own, which must leave no word in the console."""
    from p2p_jax.notebook import DrawingPad

    pad = DrawingPad(START, COLORS, scale=SCALE)
    state = {key: getattr(pad, key) for key in ("_colors", "_scale", "_start", "_drawn")}
    driver.get("data:text/html,<body style='margin:0'></body>")
    driver.execute_async_script(RENDER, base64.b64encode(str(pad._esm).encode()).decode(), state)
    yield pad
    assert driver.get_log("browser") == []


def press(driver, text):
    (button,) = [x for x in driver.find_elements("css selector", "button") if x.text == text]
    button.click()


def drag(driver, *points):
    """Move the mouse over places (x, y) of the picture, with the button held."""
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = driver.find_element("css selector", "canvas")
    actions = ActionChains(driver, duration=0)
    for i, (x, y) in enumerate(points):
        # Offsets are from the middle of the element, which has a border of a pixel.
        actions.move_to_element_with_offset(canvas, (x - 32) * SCALE, (y - 24) * SCALE)
        if i == 0:
            actions.click_and_hold()
    actions.release().perform()


def drawn(driver, pad):
    pad._drawn = driver.execute_script("return window.state._drawn")
    return pad.image.astype(int)


def test_a_rectangle_in_the_chosen_colour(driver, pad):
    press(driver, "door")
    drag(driver, (10, 8), (40, 40), (30, 20))
    expected = START.astype(int)
    expected[8:20, 10:30] = COLORS["door"]
    np.testing.assert_array_equal(drawn(driver, pad), expected)
    assert driver.execute_script("return window.saves") == 1


def test_a_stroke_is_of_one_colour(driver, pad):
    press(driver, "brush")
    drag(driver, (5, 5), (50, 40))
    changed = (drawn(driver, pad) != START).any(axis=-1)
    assert changed[5, 5] and changed[40, 50] and 100 < changed.sum() < 400
    assert (drawn(driver, pad)[changed] == COLORS["facade"]).all()


def test_start_again(driver, pad):
    drag(driver, (10, 8), (30, 20))
    assert (drawn(driver, pad) != START).any()
    press(driver, "start again")
    np.testing.assert_array_equal(drawn(driver, pad), START)
    chosen = [x.text for x in driver.find_elements("css selector", "button") if "black" in x.get_attribute("style")]
    assert "rectangle" in chosen
