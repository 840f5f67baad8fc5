"""A whole session of the perceptual study, clicked through in a real browser."""

import json
import re
import subprocess
import sys
import time

import pytest
from PIL import Image, ImageFilter

from p2p_jax.commands import study as command
from p2p_jax.data.toy.facades import render
from p2p_jax.evaluation import study
from p2p_jax.evaluation.study.sessions import read_sessions
from support.browser import chromium

pytestmark = pytest.mark.slow

PRACTICE, TRIALS, SECONDS, PAUSE = 2, 4, 0.15, 0.05
OTHER = {"left": "right", "right": "left"}
# Keeps what is to be seen whenever the page goes on: the phase, and in which frames a picture stands. Presses a key too
# early in every trial, which is no answer.
WATCH = """
window.seen = [];
const pictures = () => [...document.querySelectorAll('.frame')].map((frame) => frame.childElementCount);
new MutationObserver(() => {
  seen.push([document.body.dataset.phase, ...pictures()]);
  if (document.body.dataset.phase === 'right') dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' }));
}).observe(document.body, { attributeFilter: ['data-phase'] });
"""
ONE_TRIAL = [["left", 1, 0], ["pause", 0, 0], ["right", 0, 1], ["question", 0, 0]]


@pytest.fixture
def folder(tmp_path):
    for name in ("photos", "smeared"):
        (tmp_path / name).mkdir()
    for i in range(PRACTICE + TRIALS):
        photo = Image.fromarray(render(i, "val", 64).photo)
        photo.save(tmp_path / "photos" / f"{i}.png")
        photo.filter(ImageFilter.GaussianBlur(2)).save(tmp_path / "smeared" / f"{i}.png")
    return tmp_path / "study"


def make(folder, preset):
    command.run([
        "make", "--output", str(folder), "--real", str(folder.parent / "photos"),
        "--fake", f"smeared={folder.parent / 'smeared'}", "--preset", preset, "--practice", str(PRACTICE),
        "--trials", str(TRIALS), "--seconds", str(SECONDS), "--pause", str(PAUSE),
    ])  # fmt: skip


class Page:
    """The study's page in a browser, and the server behind it; a context."""

    def __init__(self, driver, folder):
        self.driver, self.folder, self.port = driver, folder, 0

    def __enter__(self):
        self.start_server()
        self.driver.get(f"http://127.0.0.1:{self.port}/")
        return self

    def __exit__(self, *_):
        self.kill_server()

    def start_server(self):
        arguments = ["serve", "--study", str(self.folder), "--port", str(self.port)]
        self.server = subprocess.Popen(
            [sys.executable, "-m", "p2p_jax", "study", *arguments], stdout=subprocess.PIPE, text=True
        )
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", self.server.stdout.readline())[1])

    def kill_server(self):
        self.server.kill()
        self.server.communicate()

    def wait(self, phase):
        self.wait_for(f"document.body.dataset.phase === '{phase}'")

    def wait_for(self, condition):
        deadline = time.monotonic() + 20
        while not self.run(f"return {condition}"):
            assert time.monotonic() < deadline, f"{condition}: {self.run('return document.body.outerHTML')}"
            time.sleep(0.005)

    def run(self, script):
        return self.driver.execute_script(script)

    def text(self, element):
        return self.driver.find_element("id", element).text

    def click(self, element):
        self.driver.find_element("id", element).click()

    def press(self, key):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def enter(self, name):
        self.wait("welcome")
        self.run(WATCH)
        self.driver.find_element("id", "name").send_keys(name + "\n")

    def trials(self):
        return read_sessions(self.folder)[0]["anna"].trials

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_session_with_the_mouse(folder, tmp_path, capsys):
    """pix2pix's question; trials 3 and 4 of 0 to 5 take the fake for real."""
    make(folder, "pix2pix")
    fooled = {0, 3, 4}
    with chromium(tmp_path) as driver, Page(driver, folder) as page:
        page.enter("anna")
        for number in range(PRACTICE + TRIALS):
            page.wait("question")
            assert page.text("question") == "Which one was fake?"
            assert page.text("where") == f"Practice {number + 1} of 2" if number < 2 else f"{number - 1} of 4"
            fake = page.trials()[number].fake
            if number == 5:
                time.sleep(0.3)  # hesitates
            page.click(OTHER[fake] if number in fooled else fake)
            if number < PRACTICE:
                page.wait("feedback")
                assert page.text("question") == (f"No: the {fake} one was fake" if number == 0 else "Correct")
                assert (page.text(fake), page.text(OTHER[fake])) == ("Fake", "Real")
                sizes = page.run("return [...document.images].map((i) => [i.clientWidth, i.clientHeight])")
                assert sizes == [[384, 384]] * 2
                page.click("next")
            if number == PRACTICE - 1:
                page.wait("break")
                page.click("go")
        page.wait("end")
        assert page.text("end-text").startswith("anna, your session is complete")
        seen = [entry for entry in page.run("return seen") if entry[0] != "feedback"]
        starts = [i for i, entry in enumerate(seen) if entry[0] == "left"]
        assert [seen[i : i + 4] for i in starts] == [ONE_TRIAL] * (PRACTICE + TRIALS)

        # Who has finished cannot begin again; somebody else can.
        driver.refresh()
        page.wait("end")
        page.click("another")
        page.enter("Anna")
        page.wait("end")
        assert page.errors() == []

    sessions, broken = read_sessions(folder)
    answers = sessions["anna"].answers
    assert broken == 0 and list(sessions) == ["anna"] and len(answers) == 6
    for answer in answers:
        assert all(1000 * SECONDS - 2 <= shown < 5000 for shown in answer["shown_ms"])
        assert 0 < answer["response_ms"] < 20_000 and answer["views"] == 1
    assert answers[5]["response_ms"] >= 300
    command.run(["analyse", "--study", str(folder), "--json", str(tmp_path / "results.json")])
    result = json.loads((tmp_path / "results.json").read_text())["algorithms"]["smeared"]
    assert (result["rate"], result["fooled"], result["trials"], result["participants"]) == (0.5, 2, 4, 1)
    assert "50.0%" in capsys.readouterr().out


def test_a_session_with_keys_a_reload_and_a_server_that_goes_away(folder, tmp_path):
    """CycleGAN's question; trial 2 of 0 to 5 takes the fake for real."""
    make(folder, "cyclegan")
    with chromium(tmp_path) as driver, Page(driver, folder) as page:
        from selenium.webdriver import Keys

        arrows = {"left": Keys.ARROW_LEFT, "right": Keys.ARROW_RIGHT}
        page.enter("anna")
        for number in range(PRACTICE + TRIALS):
            if number == 3:  # the page is loaded anew in the midst of a trial
                page.wait("question")
                driver.refresh()
                page.wait("break")
                assert page.text("break-title") == "Welcome back"
                page.press(Keys.ENTER)
            page.wait("question")
            assert page.text("question") == "Which one was real?"
            assert number == 5 or page.errors() == []
            fake = page.trials()[number].fake
            if number == 4:
                page.kill_server()
            page.press(arrows[fake if number == 2 else OTHER[fake]])
            if number == 4:
                page.wait_for("document.getElementById('problem').open")
                assert len(read_sessions(folder)[0]["anna"].answers) == 4
                page.start_server()
                page.press(Keys.ENTER)
            if number < PRACTICE:
                page.wait("feedback")
                assert page.text("question") == "Correct"
                page.press(Keys.ENTER)
            if number == PRACTICE - 1:
                page.wait("break")
                page.press(Keys.ENTER)
        page.wait("end")
    trials, answers = read_sessions(folder)[0]["anna"][2:]
    assert [answer["choice"] != trial.fake for trial, answer in zip(trials, answers, strict=True)] == [
        number != 2 for number in range(6)
    ]
    assert [answer["views"] for answer in answers] == [1, 1, 1, 2, 0, 1]  # the killed server's count went with it
    _, results, _ = study.analyse(folder, draws=10)
    assert results["smeared"].rate == 0.25 and results["smeared"].badly_timed == 1
