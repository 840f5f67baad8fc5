"""The report in a real browser, opened from disk."""

import numpy as np
import pytest

from p2p_jax.evaluation.report import write_report
from support.browser import chromium

pytestmark = pytest.mark.slow

HOSTILE = "<b onclick=alert(1)>&\"'"
L1 = {"9.png": 0.3, "10.png": 0.1, HOSTILE: None, "8.png": 0.4, "11.png": 0.2}
HISTORY = "step,train/gen/l1,eval/l1\n" + "".join(f"{i},{1 / i},{0.5 if i == 200 else ''}\n" for i in (100, 200, 400))


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rows = [{"name": name, "l1": value, "psnr": 20.0 - i} for i, (name, value) in enumerate(L1.items())]
    results = {
        "run": "facades",
        "step": 200,
        "direction": "BtoA",
        "split": "val",
        "num_images": 5,
        "paired": True,
        "norm": "batch",
        "dropout": True,
        "config": {"best_metric": "l1", "seed": 3},
        "metrics": {"l1": {"mean": 0.25, "std": 0.1118, "count": 5}, "psnr": {"mean": 18.0, "std": 1.0, "count": 5}},
        "set_metrics": {"FID and KID": {"fid": 120.5}},
        "images": rows,
    }
    columns = ("input", "output", "target")
    images = [
        {name: np.full((64, 64, 3), 40 * i + 20 * j, np.uint8) for j, name in enumerate(columns)} for i in range(5)
    ]
    (folder / "metrics.csv").write_text(HISTORY)
    write_report(folder / "report.html", results, images, folder / "metrics.csv")
    with chromium(folder) as driver:
        driver.page = (folder / "report.html").as_uri()
        yield driver


@pytest.fixture(autouse=True)
def page(driver):
    """Open the page anew for each test, which must leave no word in the console and ask for nothing."""
    driver.get(driver.page)
    yield
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def find(driver, selector):
    return driver.find_element("css selector", selector)


def texts(driver, selector):
    return [element.text for element in driver.find_elements("css selector", selector)]


def choose(driver, selector, text):
    from selenium.webdriver.support.select import Select

    Select(find(driver, selector)).select_by_visible_text(text)


def test_numbers_are_seen(driver):
    assert driver.title == "facades, step 200: evaluation"
    assert texts(driver, ".mean") == [
        "0.2500\n\u00b1 0.1118 between the 5 images",
        "18.00\n\u00b1 1.000 between the 5 images",
    ]
    assert texts(driver, ".sets td") == ["120.5"]
    assert find(driver, ".card:nth-child(1) .values").text.split() == ["l1", "0.3000", "psnr", "20.00"]
    assert find(driver, ".card:nth-child(3) .values").text.split() == ["l1", "n/a", "psnr", "18.00"]
    assert find(driver, "#found").text == "5 of 5 images"


def test_sorting_and_searching(driver):
    assert texts(driver, ".card .name") == list(L1)
    choose(driver, "#sort", "l1")
    assert texts(driver, ".card .name") == ["10.png", "11.png", "9.png", "8.png", HOSTILE]
    find(driver, "#order").click()
    assert find(driver, "#order").text == "Descending"
    assert texts(driver, ".card .name") == ["8.png", "9.png", "11.png", "10.png", HOSTILE]  # n/a is last in any order
    choose(driver, "#sort", "name")
    assert texts(driver, ".card .name")[:4] == ["11.png", "10.png", "9.png", "8.png"]
    choose(driver, "#sort", "order of the data")
    assert texts(driver, ".card .name") == list(L1)[::-1]
    find(driver, "#search").send_keys("1.PNG")
    assert texts(driver, ".card .name") == ["11.png"]
    assert find(driver, "#found").text == "1 of 5 images"


def clip(driver, card=1):
    script = "return getComputedStyle(document.querySelectorAll('.stage img.over')[arguments[0]]).clipPath"
    return driver.execute_script(script, card - 1)


def test_the_slider_follows_keys_and_pointer(driver):
    from selenium.webdriver import ActionChains, Keys

    assert clip(driver) == clip(driver, 2) == "inset(0px 0px 0px 50%)"
    slider = find(driver, ".stage input")
    slider.send_keys(Keys.ARROW_RIGHT * 3)
    assert clip(driver) == "inset(0px 0px 0px 53%)" and clip(driver, 2) == "inset(0px 0px 0px 50%)"
    assert slider.get_attribute("value") == "53"
    assert slider.accessible_name == "9.png: divide between output on the left and target on the right, in percent"
    slider.send_keys(Keys.HOME)
    assert clip(driver) == "inset(0px 0px 0px 0%)"
    stage = find(driver, ".stage")
    quarter = stage.size["width"] // 4
    ActionChains(driver).click_and_hold(stage).move_by_offset(quarter, 0).release().perform()
    assert slider.get_attribute("value") in ("74", "75")
    assert find(driver, "#viewer").get_attribute("open") is None  # dragging is no click
    handle = driver.execute_script("return document.querySelector('.divide').getBoundingClientRect().x")
    assert abs(handle - stage.rect["x"] - 0.75 * stage.rect["width"]) < 4


def wait_for(driver, condition):
    """Wait until a JavaScript expression is true."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 10).until(lambda driver: driver.execute_script(f"return {condition}"))


def pixel(driver, selector):
    """Return the red of a picture's centre, once the picture has come near the window and is decoded."""
    script = """const img = document.querySelector(arguments[0]), done = arguments[1];
        const loaded = new Promise(then => img.complete && img.src ? then() : img.addEventListener('load', then));
        loaded.then(() => img.decode()).then(() => {
          const canvas = new OffscreenCanvas(64, 64).getContext('2d');
          canvas.drawImage(img, 0, 0, 64, 64);
          done(canvas.getImageData(32, 32, 1, 1).data[0]);
        }, error => done(String(error)));"""
    return driver.execute_async_script(script, selector)


def test_the_columns_compared_can_be_chosen(driver):
    driver.execute_script("document.querySelector('#gallery').scrollIntoView()")
    second = ".card:nth-child(2) .stage"
    assert (pixel(driver, f"{second} img:not(.over)"), pixel(driver, f"{second} img.over")) == (60, 80)
    choose(driver, "#left", "input")
    assert (pixel(driver, f"{second} img:not(.over)"), pixel(driver, f"{second} img.over")) == (40, 80)
    assert texts(driver, f"{second} .side") == ["input", "target"]


def test_enlarging_shows_all_columns(driver):
    from selenium.webdriver import Keys

    choose(driver, "#sort", "l1")
    find(driver, ".card:nth-child(2) .stage").click()
    assert find(driver, "#viewer").is_displayed()
    assert find(driver, "#viewer-name").text == "11.png"
    assert find(driver, "#viewer-place").text == "2 of 5"
    assert texts(driver, "#viewer figcaption") == [f"{name}, 64 \u00d7 64" for name in ("input", "output", "target")]
    assert [pixel(driver, f"#viewer figure:nth-child({i}) img") for i in (1, 2, 3)] == [160, 180, 200]
    tops = driver.execute_script(
        "return [...document.querySelectorAll('#viewer img')].map(e => e.getBoundingClientRect().y)"
    )
    assert len(set(tops)) == 1  # side by side
    find(driver, "#next").click()
    assert find(driver, "#viewer-name").text == "9.png"
    find(driver, "#viewer").send_keys(Keys.ARROW_LEFT * 3)
    assert find(driver, "#viewer-name").text == HOSTILE
    find(driver, "#close").click()
    assert not find(driver, "#viewer").is_displayed()
    find(driver, ".card:nth-child(1) .name").send_keys(Keys.ENTER)
    assert find(driver, "#viewer-name").text == "10.png"


def test_best_and_worst_know_what_is_better(driver):
    assert texts(driver, ".cases h3") == ["Best lowest l1", "Worst highest l1"]
    assert texts(driver, ".case .name") == ["10.png", "11.png", "8.png", "9.png"]
    choose(driver, "#case-metric", "psnr")
    assert texts(driver, ".cases h3") == ["Best highest psnr", "Worst lowest psnr"]
    assert texts(driver, ".case .name") == ["9.png", "10.png", "11.png", "8.png"]
    assert texts(driver, ".rows span") == ["input", "output", "target"] * 2
    find(driver, ".cases:nth-child(2) .case:nth-of-type(2)").click()
    assert (find(driver, "#viewer-name").text, find(driver, "#viewer-place").text) == ("8.png", "2 of 2")


def test_curves_read_out(driver):
    from selenium.webdriver import ActionChains, Keys

    assert texts(driver, ".panel h3") == ["l1\nstep 200", "gen/l1\nstep 400"]
    assert texts(driver, ".legend output") == ["0.5000", "0.002500"]
    chart = driver.find_elements("css selector", ".panel svg")[1]
    ActionChains(driver).move_to_element_with_offset(chart, -chart.size["width"] // 2 + 60, 0).perform()
    assert texts(driver, ".panel h3")[1] == "gen/l1\nstep 100"
    assert texts(driver, ".legend output")[1] == "0.01000"
    chart.send_keys(Keys.ARROW_RIGHT)
    assert texts(driver, ".legend output")[1] == "0.005000"
    path = driver.find_elements("css selector", "path.line")[1].get_attribute("d")
    points = np.array([[float(v) for v in p.split()] for p in path[1:].split("L")])
    assert len(points) == 3
    assert points[0, 1] < points[1, 1] < points[2, 1]  # a loss that falls goes down on the page
    np.testing.assert_allclose((points[1] - points[0]) / (points[2] - points[0]), [1 / 3, 2 / 3], atol=2e-3)


def test_the_config_can_be_copied(driver):
    driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    find(driver, "summary").click()
    find(driver, "#copy").click()
    selected = driver.execute_script("return getSelection().toString()")
    assert selected == '{\n  "best_metric": "l1",\n  "seed": 3\n}'
    wait_for(driver, "document.querySelector('#copy').textContent !== 'Copy'")
    assert find(driver, "#copy").text == "Copied"


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out(driver, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    inner, outer = driver.execute_script(script)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inner == outer <= width


def test_only_pictures_near_the_window_are_decoded(driver, tmp_path):
    rows = [{"name": f"{i}.png"} for i in range(400)]
    images = [{"output": np.full((32, 32, 3), 80, np.uint8), "target": np.eye(32, dtype=np.uint8)[..., None]}] * 400
    write_report(tmp_path / "many.html", {"run": "many", "images": rows}, images, None, max_images=400)
    driver.get((tmp_path / "many.html").as_uri())
    script = "return [...document.querySelectorAll('.stage')].map(stage => stage.querySelectorAll('img[src]').length)"
    wait_for(driver, "document.querySelector('.card:first-child img').complete && document.images[0].src")
    first = driver.execute_script(script)
    assert len(first) == 400 and first[0] == 2 and first[-1] == 0
    driver.execute_script("document.querySelector('.card:last-child').scrollIntoView()")
    wait_for(driver, "document.querySelector('.card:last-child img').src && !document.images[0].src")
    last = driver.execute_script(script)
    assert last[0] == 0 and last[-1] == 2
