"""Headless Chromium for tests of pages; nothing is downloaded, and the tests are skipped where it is missing."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--force-device-scale-factor=1",
)


@contextlib.contextmanager
def chromium(
    tmp_path: Path, width: int = 1280, height: int = 900, flags: Sequence[str] = (), *, network: bool = False
) -> Iterator[Any]:
    """Start Chromium with a new profile below `tmp_path`; yield Selenium's driver, and quit it in the end.

    `flags` are added to those that all have.

    The driver's ``get_log("browser")`` returns what the page wrote to the console since the last call, errors and
    refused requests included; with `network` ``requests`` tells what was asked for. A test that asks for the browser
    where it, its driver or Selenium is missing is skipped.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver_path = shutil.which("chromedriver")
    if browser is None or driver_path is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: apt install chromium chromium-driver)")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, *flags, f"--window-size={width},{height}", f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"} | ({"performance": "ALL"} if network else {}))
    driver = webdriver.Chrome(options, Service(executable_path=driver_path))
    try:
        yield driver
    finally:
        driver.quit()


def requests(driver: Any) -> list[str]:
    """Return the addresses that pages have asked for since the last call; those of the browser's own pages are none."""
    found = []
    for entry in driver.get_log("performance"):
        told = json.loads(entry["message"])["message"]
        if told["method"] == "Network.requestWillBeSent":
            found.append(told["params"]["request"]["url"])
        elif told["method"] == "Network.webSocketCreated":
            found.append(told["params"]["url"])
    return [url for url in found if not url.startswith("chrome://")]
