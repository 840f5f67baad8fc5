"""The perceptual study: what is served tells nothing, no answer is lost, and the rate is the one that was clicked."""

import http.client
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from p2p_jax.commands import study as command
from p2p_jax.config import resolve, to_json
from p2p_jax.data import load_split
from p2p_jax.data.toy.facades import render
from p2p_jax.errors import InputError
from p2p_jax.evaluation import study
from p2p_jax.evaluation.study import design, journal, serving
from p2p_jax.evaluation.study import server as server_module
from p2p_jax.evaluation.study.analysis import bootstrap
from p2p_jax.evaluation.study.design import Design, Trial
from p2p_jax.evaluation.study.server import Server
from p2p_jax.evaluation.study.sessions import read_sessions
from p2p_jax.inference import Translator
from p2p_jax.training.saving import Checkpoints
from support.configs import small_config, small_cyclegan_config
from support.images import random_batch, to_uint8

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SHORT = study.PRESETS["pix2pix"]._replace(practice=2, trials=4, size=16, seconds=0.05, pause=0.0)
WAIT = 0.1  # seconds in which both images of a short study can be seen
OTHER = {"left": "right", "right": "left"}
_secrets = {}  # (url, participant) -> of the session, as a browser keeps it


def examples_of_noise(seed, count=8):
    """An algorithm of some examples, reals and fakes, each another noise."""
    rng = np.random.RandomState(seed)
    for i in range(count):
        for kind in ("real", "fake"):
            yield kind, f"example {i}", rng.randint(0, 256, (16, 16, 3), np.uint8)


def make_algorithm(images, source=None):
    images = list(images)
    names = [[name for kind, name, _ in images if kind == wanted] for wanted in ("real", "fake")]
    return study.Algorithm(source or {}, *names, images)


def make_noise_study(folder, protocol=SHORT, names=("ours",), seed=0):
    algorithms = {name: make_algorithm(examples_of_noise(i), {"secret": name}) for i, name in enumerate(names)}
    return study.make(folder, algorithms, protocol, seed)


@pytest.fixture
def served(tmp_path):
    """Start servers in this process: ``served(folder) -> Server``; all are stopped in the end."""
    servers = []

    def start(folder):
        server = Server(folder, 0)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(tmp_path, served):
    make_noise_study(tmp_path / "study")
    return served(tmp_path / "study")


def fetch(url, path="", body=None, headers=None):
    """Return status, headers and body of a reply."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    query = urllib.parse.parse_qs(path.partition("?")[2]).get("participant", [""])[0]
    name = " ".join(str(body.get("participant") if isinstance(body, dict) else query).split()).casefold()
    known = {"X-Study-Secret": _secrets[url, name]} if (url, name) in _secrets else {}
    headers = ({"Content-Type": "application/json"} if data else {}) | known | (headers or {})
    try:
        with OPENER.open(urllib.request.Request(url + path, data, headers), timeout=20) as reply:
            status, found, contents = reply.status, dict(reply.headers), reply.read()
            if path == "api/session" and "secret" in (state := json.loads(contents)):
                _secrets[url, state["participant"].casefold()] = state["secret"]
            return status, found, contents
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def call(url, path, body=None):
    status, _, reply = fetch(url, path, body)
    assert status == 200, reply
    return json.loads(reply)


def carry_secrets(old, new):
    """Let the browser meet a study again at another place."""
    _secrets.update({(new, name): secret for (url, name), secret in [*_secrets.items()] if url == old})


def see(url, participant, trial, wait=WAIT):
    """Ask for both images, and wait as long as a page shows them."""
    for side in ("left", "right"):
        status, _, reply = fetch(url, f"image?participant={urllib.parse.quote(participant)}&trial={trial}&side={side}")
        assert status == 200, reply
    time.sleep(wait)


def post_answer(url, participant, trial, choice, shown=(50.0, 50.0)):
    body = {"participant": participant, "trial": trial, "choice": choice, "shown_ms": list(shown), "response_ms": 500}
    return call(url, "api/answer", body)


def take_part(url, folder, participant, fooled):
    """Answer a whole session: `fooled` are the numbers of the trials on which the fake is taken for real."""
    protocol = design.load(folder).protocol
    call(url, "api/session", {"participant": participant})
    trials = read_sessions(folder)[0][participant].trials
    for number, trial in enumerate(trials):
        taken_for_fake = OTHER[trial.fake] if number in fooled else trial.fake
        choice = taken_for_fake if protocol.question == "fake" else OTHER[taken_for_fake]
        see(url, participant, number)
        state = post_answer(url, participant, number, choice)
        feedback = {"fake": trial.fake, "correct": number not in fooled}
        assert state.get("feedback") == (feedback if number < protocol.practice else None)
    assert state["finished"]


# Making.


def test_presets_are_those_of_the_papers():
    assert {
        "pix2pix": study.Protocol("fake", 10, 40, 1.0, 384, 0.5, "different", 50),
        "cyclegan": study.Protocol("real", 10, 40, 1.0, 384, 0.5, "different", 25),
    } == study.PRESETS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Toy photographs, and the same ones smeared."""
    root = tmp_path_factory.mktemp("folders")
    for name in ("photos", "smeared"):
        (root / name).mkdir()
    for i in range(6):
        photo = Image.fromarray(render(i, "val", 64).photo)
        photo.save(root / "photos" / f"house_{i}.png", pnginfo=None)
        photo.resize((8, 8)).resize((64, 64)).save(root / "smeared" / f"house_{i}.jpg", comment=b"fake")
    return root


def png_chunks(data):
    """Return the types of a PNG file's chunks."""
    types, place = set(), 8
    while place < len(data):
        types.add(data[place + 4 : place + 8])
        place += int.from_bytes(data[place : place + 4], "big") + 12
    return types


def test_images_agree_in_everything_but_their_pixels(folders, tmp_path, capsys):
    output = tmp_path / "study"
    arguments = ["--output", str(output), "--real", str(folders / "photos"), "--fake", f"ours={folders / 'smeared'}"]
    command.run(["make", *arguments, "--preset", "cyclegan", "--practice", "2", "--trials", "3", "--seconds", "0.5"])
    assert "ours: 6 fakes, 6 real images" in capsys.readouterr().out
    made = design.load(output)
    assert made.protocol == study.PRESETS["cyclegan"]._replace(practice=2, trials=3, seconds=0.5)
    kept = made.algorithms["ours"]
    assert kept["source"] == {"real": "photos", "fake": "smeared"}
    assert sorted(kept["real"].values()) == sorted(kept["fake"].values()) == [f"house_{i}" for i in range(6)]
    files = sorted((output / "images").iterdir())
    assert {file.stem for file in files} == kept["real"].keys() | kept["fake"].keys()
    assert len(files) == 12 and all(re.fullmatch(r"[0-9a-f]{16}\.png", file.name) for file in files)
    assert len({(file.stat().st_size, file.stat().st_mtime_ns) for file in files}) == 1
    for file in files:
        assert png_chunks(file.read_bytes()) == {b"IHDR", b"IDAT", b"IEND"}  # neither text nor time
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size, image.info) == ("PNG", "RGB", (384, 384), {})
    image_id = next(image_id for image_id, name in kept["real"].items() if name == "house_3")
    photo = Image.open(folders / "photos" / "house_3.png").resize((384, 384), Image.Resampling.BICUBIC)
    assert np.array_equal(Image.open(output / "images" / f"{image_id}.png"), photo)


def test_names_come_from_the_system_unless_a_seed_is_given(tmp_path):
    made = [make_noise_study(tmp_path / str(i), seed=seed) for i, seed in enumerate((None, None, 3, 3, 4))]
    ids = [tuple(m.algorithms["ours"]["fake"]) for m in made]
    assert ids[2] == ids[3] and len({*ids}) == 4
    assert made[2].draw("ours", 0) == made[3].draw("ours", 0) != made[4].draw("ours", 0)
    assert made[0].key != made[1].key and len(made[0].key) == 32


def test_the_same_real_image_is_kept_once_for_all_algorithms(tmp_path):
    algorithms = {name: make_algorithm(examples_of_noise(0)) for name in ("a", "b")}
    kept = study.make(tmp_path / "study", algorithms, SHORT).algorithms
    assert kept["a"]["real"] == kept["b"]["real"] and not kept["a"]["fake"].keys() & kept["b"]["fake"].keys()
    assert len(list((tmp_path / "study" / "images").iterdir())) == 8 + 8 + 8


@pytest.mark.parametrize("pairing", ["different", "same"])
def test_a_session_shows_no_image_twice(pairing):
    kept = {kind: {f"{kind} {i}": f"name {i}" for i in range(50)} for kind in ("real", "fake")}
    made = Design(study.PRESETS["pix2pix"]._replace(pairing=pairing), "key", {"ours": kept})
    left, seen = 0, set()
    for number in range(40):
        trials = made.draw("ours", number)
        seen.add(tuple(trials))
        for trial in trials:
            fake, real = (trial.left, trial.right) if trial.fake == "left" else (trial.right, trial.left)
            assert (kept["fake"][fake] == kept["real"][real]) == (pairing == "same")
        assert len({image for trial in trials for image in trial[:2]}) == 100
        left += sum(trial.fake == "left" for trial in trials)
    assert len(seen) == 40
    assert abs(left - 1000) < 5 * np.sqrt(2000 / 4)  # of 2,000 tosses


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A paired run and one without pairs, saved before any training."""
    root = tmp_path_factory.mktemp("runs")
    for name, config in (("paired", small_config()), ("unpaired", small_cyclegan_config())):
        state = jax.jit(resolve(config.objective)(config).init)(jax.random.key(0), random_batch(config))
        checkpoints = Checkpoints(root / name, config)
        checkpoints.save(1, jax.device_get(state), None)
        checkpoints.wait()
        checkpoints.close()
        (root / name / "config.json").write_text(to_json(config))
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("run", "direction"), [("paired", "BtoA"), ("unpaired", "BtoA")])
def test_from_runs(runs, tmp_path, run, direction):
    """Real images are what the run imitates, fakes are what its translator makes, both at the network's size."""
    output = tmp_path / "study"
    arguments = ["--size", "16", "--practice", "2", "--trials", "3", "--direction", direction]
    command.run(["make", "--output", str(output), "--runs", f"ours={runs / run}", *arguments])
    kept = design.load(output).algorithms["ours"]
    assert {name: kept["source"][name] for name in ("workdir", "step", "direction", "split")} == {
        "workdir": run, "step": 1, "direction": direction, "split": "val",
    }  # fmt: skip
    translator = Translator.from_workdir(runs / run, direction=direction)
    opened = load_split(translator.config, "val")
    given, wanted = ("real_a", "real_b") if direction == translator.config.data.direction else ("real_b", "real_a")
    batch = next(opened.batches(len(opened.names[0])))
    for kind, images in (("fake", translator(batch[given])), ("real", batch[wanted])):
        assert len(kept[kind]) == len(images) == len(opened.names[0]) > 5
        for image_id, name in kept[kind].items():
            number = int(name.removeprefix("real_a ").removeprefix("real_b ").split()[0])
            shown = np.asarray(Image.open(output / "images" / f"{image_id}.png"), int)
            assert np.abs(shown - to_uint8(images[number])).max() <= (kind == "fake")  # sums in another order
    assert (set(kept["real"].values()) == set(kept["fake"].values())) == (run == "paired")


@pytest.mark.slow
def test_what_runs_cannot_be_a_study(runs, tmp_path):
    for arguments, message in [
        ([str(runs / "paired"), str(runs / ".." / runs.name / "paired")], "are both called paired; write NAME="),
        ([str(runs / "unpaired"), "--pairing", "same", "--trials", "3"], "--pairing same, but .* has no real image"),
        ([str(runs / "paired"), "--split", "no_such_split"], "no_such_split"),
        ([str(runs / "nowhere")], "nowhere"),
    ]:
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            command.run(["make", "--output", str(tmp_path / "new"), "--runs", *arguments])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 7}, "ours has 8 real and 8 fake images, but a session shows 9 of each, none twice"),
        ({"trials": 0}, "`trials` must be from 1"),
        ({"seconds": float("nan")}, "`seconds` must be from"),
        ({"size": 4}, "`size` must be from 16"),
    ],
)
def test_what_cannot_be_a_study_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        make_noise_study(tmp_path / "study", SHORT._replace(**changes))
    assert list(tmp_path.iterdir()) == []  # nothing is left half made


def test_wrong_arguments_end_in_one_line(folders, tmp_path):
    make_noise_study(tmp_path / "study")
    real, fake = ["--real", str(folders / "photos")], ["--fake", f"ours={folders / 'smeared'}"]
    for arguments, message in [
        (["make", "--output", f"{tmp_path}/study", *real, *fake], "exists already"),
        (["make", "--output", f"{tmp_path}/new", *real], "give either --runs RUN ..., or"),
        (["make", "--output", f"{tmp_path}/new", *real, *fake, "--runs", "x"], "give either --runs RUN ..., or"),
        (["make", "--output", f"{tmp_path}/new", *real, *fake], "a session shows 50 of each"),
        (["make", "--output", f"{tmp_path}/new", *real, "--fake", "ours=nowhere"], "there is no folder nowhere"),
        (["serve", "--study", f"{tmp_path}/new"], "is not a study"),
        (["serve", "--study", f"{tmp_path}/study", "--port", "70000"], "port 70000 is not available"),
        (["analyse", "--study", str(folders)], "is not a study"),
        (["analyse", "--study", f"{tmp_path}/study", "--draws", "0"], "--draws must be at least 1"),
    ]:
        with pytest.raises(SystemExit, match=f"error: .*{re.escape(message)}"):
            command.run(arguments)


# Serving: the truth stays inside.


def everything_served(url, participant, choose):
    """Take part, and return every reply on the way, feedback taken out; ask for all images, in and out of turn."""
    replies = [fetch(url, path) for path in ("", "page.js", "page.css", "api/study", "study.json", "answers.jsonl")]
    replies.append(fetch(url, "api/session", {"participant": participant}))
    for trial in range(6):
        replies.append(fetch(url, f"api/state?participant={participant}"))
        for number in range(-1, 8):
            for side in ("left", "right", "fake", "real"):
                replies.append(fetch(url, f"image?participant={participant}&trial={number}&side={side}"))
        body = {"participant": participant, "trial": trial, "choice": choose(trial), "shown_ms": [1, 1]}
        status, headers, reply = fetch(url, "api/answer", body | {"response_ms": 1})
        reply = json.loads(reply)
        assert ("feedback" in reply) == (trial < 2)
        reply.pop("feedback", None)
        replies.append((status, headers, json.dumps(reply).encode()))
    return [
        (status, {k: v for k, v in headers.items() if k not in ("Date", "Content-Length")}, body)
        for status, headers, body in replies
    ]


def test_replies_do_not_depend_on_the_truth(tmp_path, served, monkeypatch):
    """Where all images look alike, a study and its mirror image, fakes for reals, send the very same bytes."""
    grey = np.full((16, 16, 3), 128, np.uint8)
    draw, runs = Design.draw, []
    for mirrored in (False, True):
        if mirrored:
            mirror = lambda *args: [Trial(t.right, t.left, OTHER[t.fake]) for t in draw(*args)]  # noqa: E731
            monkeypatch.setattr(Design, "draw", mirror)
        images = [(kind, str(i), grey) for i in range(8) for kind in ("real", "fake")]
        folder = tmp_path / f"mirrored {mirrored}"
        made = study.make(folder, {"ours": make_algorithm(images)}, SHORT, seed=0)
        monkeypatch.setattr(secrets, "token_urlsafe", lambda count: "s" * count)
        runs.append(everything_served(served(folder).url, "anna", lambda trial: ("left", "right")[trial % 2]))
        texts = b" ".join(reply for _, headers, reply in runs[-1] if headers["Content-Type"] != "image/png")
        hidden = [*made.algorithms["ours"]["real"], *made.algorithms["ours"]["fake"], made.key, "ours", "algorithm"]
        assert not [word for word in hidden if word.encode() in texts]
    sides = [[trial.fake for trial in read_sessions(folder)[0]["anna"].trials] for folder in sorted(tmp_path.iterdir())]
    assert sides[0] == [OTHER[side] for side in sides[1]]
    assert runs[0] == runs[1]
    statuses = [status for status, headers, _ in runs[0] if headers["Content-Type"] == "image/png"]
    assert statuses == [200] * 2 * 6  # two images a trial, out of all that was asked for


def test_what_is_sent_before_an_answer_is_the_protocol_and_the_place(server, tmp_path):
    assert call(server.url, "api/study") == {
        "question": "fake", "practice": 2, "trials": 4, "seconds": 0.05, "pause": 0.0, "size": 16,
    }  # fmt: skip
    state = {"participant": "Anna K", "trial": 0, "practice": True, "finished": False}
    begun = call(server.url, "api/session", {"participant": "  Anna   K "})
    assert re.fullmatch(r"[\w-]{32}", begun.pop("secret")) and begun == state
    assert call(server.url, "api/state?participant=anna%20k") == state
    trial = read_sessions(tmp_path / "study")[0]["anna k"].trials[0]
    for side in ("left", "right"):
        _, _, body = fetch(server.url, f"image?participant=Anna+K&trial=0&side={side}")
        assert body == (tmp_path / "study" / "images" / f"{getattr(trial, side)}.png").read_bytes()


def test_headers_of_every_reply(server):
    for path in ("", "page.js", "api/study", "nowhere"):
        _, headers, body = fetch(server.url, path)
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"]
        assert headers["Content-Length"] == str(len(body)) and headers["Server"].strip() == "p2p_jax"
    page = b"".join(fetch(server.url, path)[2] for path in ("", "page.js", "page.css"))
    assert re.findall(rb"https?:", page) == [] and b"style=" not in page and b"onclick" not in page


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("nowhere", None, 404),
        ("../study.json", None, 404),
        ("%2e%2e/study.json", None, 404),
        ("images/../study.json", None, 404),
        ("page.js/../../server.py", None, 404),
        ("api/state", None, 404),
        ("api/state?participant=nobody", None, 404),
        ("image?participant=nobody&trial=0&side=left", None, 404),
        ("image?participant=anna&trial=0&side=../../study.json%00", None, 404),
        ("image?participant=anna&trial=0&side=__class__", None, 404),
        ("image?participant=anna&trial=1&side=left", None, 409),
        ("image?participant=anna&trial=%C2%B2&side=left", None, 409),
        ("api/session", {"participant": 7}, 400),
        ("api/session", {"participant": "x" * 65}, 400),
        ("api/session", {"participant": "a\nb"}, 400),
        ("api/session", {"participant": "\ud800"}, 400),
        ("api/session", b"[1]", 400),
        ("api/session", b"{", 400),
        ("api/session", b'{"participant": "' + b"x" * 5_000 + b'"}', 413),
        ("api/answer", {}, 400),
        ("nowhere", {}, 404),
    ],
)
def test_bad_requests_are_refused(server, tmp_path, path, body, status):
    call(server.url, "api/session", {"participant": "anna"})
    before = (tmp_path / "study" / journal.NAME).read_bytes()
    found, headers, reply = fetch(server.url, path, body)
    assert found == status and headers["Content-Type"] == "application/json" and "error" in json.loads(reply)
    assert (tmp_path / "study" / journal.NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"participant": "nobody"}, 404),
        ({"participant": None}, 404),
        ({"trial": 1}, 409),
        ({"trial": 6}, 409),
        ({"trial": -1}, 400),
        ({"trial": True}, 400),
        ({"trial": "0"}, 400),
        ({"choice": "fake"}, 400),
        ({"choice": None}, 400),
        ({"shown_ms": [1]}, 400),
        ({"shown_ms": [1, -1]}, 400),
        ({"shown_ms": [1, float("nan")]}, 400),
        ({"shown_ms": [1, "1"]}, 400),
        ({"response_ms": None}, 400),
        ({"response_ms": float("inf")}, 400),
    ],
)
def test_bad_answers_are_refused(server, tmp_path, change, status):
    call(server.url, "api/session", {"participant": "anna"})
    body = {"participant": "anna", "trial": 0, "choice": "left", "shown_ms": [1, 1], "response_ms": 1}
    assert fetch(server.url, "api/answer", body | change)[0] == status
    kinds = [record["kind"] for record in journal.read(tmp_path / "study").records]
    assert kinds == ["session"] + ["refused"] * ("participant" not in change)
    assert call(server.url, "api/answer", body)["trial"] == 1


def raw(server, request, wait=20):
    """Send bytes as they are; return the status and the rest of the reply, None where the server only hangs up."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=wait) as connection:
        connection.sendall(request)
        found = b""
        while chunk := connection.recv(65_536):
            found += chunk
    return (int(found.split()[1]) if found.startswith(b"HTTP/1.1 ") else None), found


def posted(body=b"{}", **headers):
    """Return the bytes of a request that enters; a header of None is left out."""
    given = {"Host": "localhost", "Content-Type": "application/json", "Connection": "close"}
    given |= {"Content-Length": len(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in given.items() if value is not None]
    return "\r\n".join(["POST /api/session HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


DEEP = b'{"participant":' + b"[" * 1_900 + b"]" * 1_900 + b"}"
RAW = {
    "deep": (posted(DEEP), 400),
    "deeper than is allowed": (posted(b"[" * 100_000), 413),
    "deep and unfinished": (posted(b"[" * 4_000), 400),
    "long number": (posted(b'{"participant": ' + b"9" * 4_050 + b"}"), 400),
    "long exponent": (posted(b'{"participant": 1e' + b"9" * 4_000 + b"}"), 400),
    "not a number": (posted(b'{"participant": NaN}'), 400),
    "not text": (posted(b"\xff\xfe\x00"), 400),
    "half a letter": (posted(b'{"participant": "\xe2\x82"}'), 400),
    "other encoding": (posted('{"participant": 7}'.encode("utf-16")), 400),
    "nothing": (posted(b""), 400),
    "length of 4,000 digits": (posted(Content_Length="9" * 4_000), 413),
    "length of 5,000 digits": (posted(Content_Length="9" * 5_000), 413),
    "negative length": (posted(Content_Length="-1"), 400),
    "length with a sign": (posted(Content_Length="+2"), 400),
    "length in other digits": (posted(Content_Length="\xb2"), 400),
    "length in words": (posted(Content_Length="many"), 400),
    "no length": (posted(Content_Length=None), 411),
    "chunked": (posted(b"2\r\n{}\r\n0\r\n\r\n", Content_Length=None, Transfer_Encoding="chunked"), 411),
    "chunked and a length": (posted(Transfer_Encoding="chunked"), 411),
    "two lengths": (posted().replace(b"Connection", b"Content-Length: 400\r\nConnection"), 400),
    "no type": (posted(Content_Type=None), 415),
    "odd type": (posted(Content_Type="\xff;;;=\x7f"), 415),
    "no host": (posted(Host=None), 403),
    "body of a GET": (b"GET /api/study HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 400),
    "other site as the path": (
        b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404,
    ),
    "no path": (b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "long path": (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
    "long header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    "version of the future": (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
    "no version that is one": (b"GET / HTTP/x\r\nHost: localhost\r\n\r\n", 400),
    "no request": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "image of a long number": (
        b"GET /image?participant=anna&trial=" + b"9" * 4_000 + b"&side=left HTTP/1.1\r\nHost: localhost\r\n"
        b"Connection: close\r\n\r\n", 404,
    ),
} | {
    f"method {method}": (f"{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode(), 405)
    for method in ("PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "NONSENSE", "get")
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_request_is_refused(server, tmp_path, name, capfd):
    request, status = RAW[name]
    before = (tmp_path / "study" / journal.NAME).read_bytes()
    found, reply = raw(server, request)
    assert found == status, reply
    assert (b'{"error": ' in reply) != (name == "method HEAD") and b"Content-Security-Policy" in reply
    assert (tmp_path / "study" / journal.NAME).read_bytes() == before
    assert fetch(server.url, "api/study")[0] == 200
    assert "".join(capfd.readouterr()) == ""


def test_who_sends_slowly_or_hangs_up_holds_nobody_up(server, monkeypatch, capfd):
    monkeypatch.setattr(server_module, "_SLOWEST", 0.5)
    monkeypatch.setattr(server_module, "_IDLE", 1.0)
    whole = posted(b'{"participant": "anna"}')
    assert raw(server, whole[:-5])[0] == 408  # the rest does not come
    assert raw(server, whole[:40])[0] is None  # in the midst of its headers
    assert raw(server, b"")[0] is None
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        start = time.monotonic()
        with pytest.raises(ConnectionError):  # letter by letter, each in time
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - start < 10
    for given in (whole[:-5], whole[:40], b""):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
            connection.sendall(given)
    assert fetch(server.url, "api/study")[0] == 200
    time.sleep(0.2)
    assert "".join(capfd.readouterr()) == ""


def test_only_this_machine_is_served(server):
    assert server.server_address[0] == "127.0.0.1" and server.url.startswith("http://127.0.0.1:")
    if sys.platform == "linux":  # which has all of 127/8
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", server.server_port), timeout=5)
    # A foreign name that its owner lets point to this machine.
    assert fetch(server.url, "api/study", headers={"Host": "evil.example:80"})[0] == 403
    assert fetch(server.url, "api/study", headers={"Host": f"localhost:{server.server_port}"})[0] == 200
    # A form on another site's page.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert fetch(server.url, "api/session", {"participant": "x"}, form)[0] == 415


# Serving: no answer is lost, none counts twice.


def test_a_second_post_changes_nothing(server, tmp_path):
    call(server.url, "api/session", {"participant": "anna"})
    first = post_answer(server.url, "anna", 0, "left")
    lines = (tmp_path / "study" / journal.NAME).read_bytes()
    assert post_answer(server.url, "anna", 0, "left") == first
    assert (tmp_path / "study" / journal.NAME).read_bytes() == lines
    assert post_answer(server.url, "anna", 0, "right") == first  # the first answer stands
    refused = journal.read(tmp_path / "study").records[-1]
    assert (refused["kind"], refused["reason"]) == ("refused", "another answer to the same trial")
    assert [answer["choice"] for answer in read_sessions(tmp_path / "study")[0]["anna"].answers] == ["left"]


def test_many_posts_at_once(server, tmp_path):
    names = [f"p{i}" for i in range(8)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: call(server.url, "api/session", {"participant": name}), names * 2))
        for trial in range(3):
            list(pool.map(lambda name, trial=trial: post_answer(server.url, name, trial, "left"), names * 3))
    records, broken = journal.read(tmp_path / "study")
    assert broken == 0 and len(records) == 8 + 8 * 3
    assert sorted((r["participant"], r.get("trial", -1)) for r in records) == [
        (name, trial) for name in names for trial in range(-1, 3)
    ]


def test_a_participant_goes_on_after_a_reload_and_cannot_begin_again(server, tmp_path):
    folder = tmp_path / "study"
    call(server.url, "api/session", {"participant": "Anna"})
    post_answer(server.url, "Anna", 0, "left")
    assert call(server.url, "api/session", {"participant": " anna"})["trial"] == 1
    for _ in range(3):
        assert fetch(server.url, "image?participant=anna&trial=1&side=left")[0] == 200
    for trial in range(1, 6):
        post_answer(server.url, "Anna", trial, "left")
    lines = (folder / journal.NAME).read_bytes()
    assert call(server.url, "api/session", {"participant": "ANNA"})["finished"]
    assert fetch(server.url, "image?participant=anna&trial=5&side=left")[0] == 409
    assert fetch(server.url, "image?participant=anna&trial=6&side=left")[0] == 409
    assert (folder / journal.NAME).read_bytes() == lines
    assert [answer["views"] for answer in read_sessions(folder)[0]["anna"].answers] == [0, 3, 0, 0, 0, 0]


def test_who_gives_no_name_is_given_a_code(server):
    codes = {call(server.url, "api/session", {"participant": " "})["participant"] for _ in range(20)}
    assert len(codes) == 20 and all(re.fullmatch("[A-HJKMNP-Z2-9]{5}", code) for code in codes)


def test_algorithms_are_given_in_turn(tmp_path, served):
    make_noise_study(tmp_path / "study", names=("a", "b", "c"), seed=None)
    server = served(tmp_path / "study")
    for i in range(9):
        call(server.url, "api/session", {"participant": f"p{i}"})
        given = [session.algorithm for session in read_sessions(tmp_path / "study")[0].values()]
        assert max(map(given.count, "abc")) - min(map(given.count, "abc")) <= 1
    assert sorted(given) == sorted("abc" * 3)


def start_process(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "p2p_jax", "study", "serve", "--study", str(folder), "--port", "0"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    line = process.stdout.readline()
    return process, re.search(r"http://127\.0\.0\.1:\d+/", line)[0]


@pytest.mark.slow
def test_a_killed_server_goes_on_where_it_was(tmp_path):
    folder = tmp_path / "study"
    make_noise_study(folder)
    place, old = {"anna": 0, "ben": 0}, ""
    for given in (2, 1, 3):
        process, url = start_process(folder)
        carry_secrets(old, url)
        old = url
        try:
            for name in place:
                assert call(url, "api/session", {"participant": name})["trial"] == place[name]
                for _ in range(given):
                    see(url, name, place[name])
                    place[name] = post_answer(url, name, place[name], "left")["trial"]
            with pytest.raises(InputError, match="another server is running"):
                Server(folder, 0)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    records, broken = journal.read(folder)
    assert broken == 0 and place == {"anna": 6, "ben": 6} and len(records) == 2 + 12 + 12
    sessions = read_sessions(folder)[0]
    assert all(session.finished for session in sessions.values())
    _, results, _ = study.analyse(folder, draws=10)
    assert results["ours"].fooled == sum(t.fake == "right" for s in sessions.values() for t in s.trials[2:])


@pytest.mark.slow
def test_no_acknowledged_answer_is_lost_when_the_server_is_killed_at_work(tmp_path):
    folder, acknowledged, count = tmp_path / "study", {"anna": 0, "ben": 0}, 400
    study.make(folder, {"ours": make_algorithm(examples_of_noise(0, count))}, SHORT._replace(practice=0, trials=count))

    def answer_until_killed(name):
        while acknowledged[name] < count:
            try:
                acknowledged[name] = post_answer(url, name, acknowledged[name], "left")["trial"]
            except (OSError, http.client.HTTPException):
                return

    old = ""
    for seconds in (0.05, 0.2, 0.4):
        process, url = start_process(folder)
        carry_secrets(old, url)
        old = url
        for name in acknowledged:  # an answer may be in the file whose reply was lost
            place = call(url, "api/session", {"participant": name})["trial"]
            assert acknowledged[name] <= place <= acknowledged[name] + 1
        killer = threading.Timer(seconds, process.kill)
        killer.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(answer_until_killed, acknowledged))
        killer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        sessions = read_sessions(folder)[0]
        assert all(len(sessions[name].answers) - n in (0, 1) for name, n in acknowledged.items())
    assert min(acknowledged.values()) > 10  # it was at work


def test_a_line_cut_off_anywhere_is_left_out_and_stays_alone(tmp_path, served):
    folder = tmp_path / "study"
    make_noise_study(folder)
    url = served(folder).url
    call(url, "api/session", {"participant": "anna"})
    for trial in range(3):
        post_answer(url, "anna", trial, "left")
    whole = (folder / journal.NAME).read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    extra = {"kind": "session", "participant": "ben", "algorithm": "ours", "trials": []}
    for cut in range(1, last):
        (folder / journal.NAME).write_bytes(whole[:-cut])
        kept = 3 if cut == 1 else 2  # without its end of line alone, a line is whole
        records, broken = journal.read(folder)
        assert len(records) == 1 + kept and broken == (cut > 1)
        assert len(read_sessions(folder)[0]["anna"].answers) == kept
        journal.append(folder, extra)
        records, broken = journal.read(folder)
        assert records[-1] == extra and len(records) == 2 + kept and broken == (cut > 1)


def test_a_session_goes_on_after_a_cut_off_line(tmp_path, served):
    folder = tmp_path / "study"
    make_noise_study(folder)
    server = served(folder)
    call(server.url, "api/session", {"participant": "anna"})
    post_answer(server.url, "anna", 0, "left")
    post_answer(server.url, "anna", 1, "left")
    server.shutdown()
    server.server_close()
    (folder / journal.NAME).write_bytes((folder / journal.NAME).read_bytes()[:-20])
    url = served(folder).url
    carry_secrets(server.url, url)
    assert call(url, "api/session", {"participant": "anna"})["trial"] == 1
    for trial in range(1, 6):
        see(url, "anna", trial)
        post_answer(url, "anna", trial, "right")
    _, results, broken = study.analyse(folder, draws=10)
    assert results["ours"].trials == 4 and results["ours"].participants == 1 and broken == 1


def test_an_answer_that_cannot_be_written_can_be_sent_again(server, tmp_path, monkeypatch, capsys):
    call(server.url, "api/session", {"participant": "anna"})

    def fail(*args):
        raise OSError("the disk is full")

    body = {"participant": "anna", "trial": 0, "choice": "left", "shown_ms": [1, 1], "response_ms": 1}
    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", fail)
        assert fetch(server.url, "api/answer", body)[0] == 503
    assert "the disk is full" in capsys.readouterr().out
    assert call(server.url, "api/state?participant=anna")["trial"] == 0
    assert call(server.url, "api/answer", body)["trial"] == 1


def test_a_journal_with_lines_missing_is_refused(server, tmp_path):
    folder = tmp_path / "study"
    take_part(server.url, folder, "anna", fooled=())
    lines = (folder / journal.NAME).read_text().splitlines(keepends=True)
    for missing in (0, 2):
        (folder / journal.NAME).write_text("".join(lines[:missing] + lines[missing + 1 :]))
        with pytest.raises(InputError, match="answers.jsonl was altered: what came before answer"):
            read_sessions(folder)
    (folder / journal.NAME).unlink()
    with pytest.raises(InputError, match="answers.jsonl is missing"):
        study.analyse(folder)


def test_connections_stay_open(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    for _ in range(3):
        connection.request("GET", "/api/study")
        reply = connection.getresponse()
        assert json.loads(reply.read())["trials"] == 4 and reply.version == 11
        used = connection.sock.getsockname()
    assert connection.sock.getsockname() == used
    connection.close()


def test_a_connection_that_outlives_its_server_writes_nothing(tmp_path):
    make_noise_study(tmp_path / "study")
    server = Server(tmp_path / "study", 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    statuses = []
    for name in ("anna", "ben"):
        body, headers = json.dumps({"participant": name}), {"Content-Type": "application/json"}
        connection.request("POST", "/api/session", body, headers)
        reply = connection.getresponse()
        reply.read()
        statuses.append(reply.status)
        if name == "anna":
            server.shutdown()
            server.server_close()
    connection.close()
    assert statuses == [200, 503]
    assert [record["participant"] for record in journal.read(tmp_path / "study").records] == ["anna"]


# Analysis.


@pytest.mark.parametrize("preset", ["pix2pix", "cyclegan"])
def test_the_rate_is_the_one_that_was_clicked(tmp_path, served, preset, capsys):
    folder = tmp_path / "study"
    protocol = study.PRESETS[preset]._replace(practice=2, trials=4, size=16, seconds=0.05, pause=0.0)
    make_noise_study(folder, protocol, names=("a", "b"))
    url = served(folder).url
    clicked, rng = {"a": [], "b": []}, random.Random(0)
    for i in range(6):
        call(url, "api/session", {"participant": f"p{i}"})
        algorithm = read_sessions(folder)[0][f"p{i}"].algorithm
        fooled = set(rng.sample(range(6), 3)) if algorithm == "a" else {0, 1}
        take_part(url, folder, f"p{i}", fooled)
        clicked[algorithm].append(len(fooled - {0, 1}))  # the practice does not count
    call(url, "api/session", {"participant": "gone"})
    file = tmp_path / "results.json"
    command.run(["analyse", "--study", str(folder), "--json", str(file)])
    results = json.loads(file.read_text())["algorithms"]
    assert sum(clicked["a"]) > 0
    for name in ("a", "b"):
        assert results[name]["fooled"] == sum(clicked[name]) and results[name]["trials"] == 12
        assert results[name]["rate"] == sum(clicked[name]) / 12 and results[name]["participants"] == 3
    assert (results["b"]["mean"], results["b"]["sd"]) == (0, 0)
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("a "))
    assert row.split()[1] == f"{sum(clicked['a']) / 12:.1%}" and row.split()[-2:] == ["3", "12"]
    assert "Unfinished sessions: 1, not counted" in out
    assert ("18.9%" if preset == "pix2pix" else "26.8%") in out


def test_unfinished_sessions_count_only_where_asked(server, tmp_path):
    folder = tmp_path / "study"
    take_part(server.url, folder, "anna", fooled={2, 3, 4})
    call(server.url, "api/session", {"participant": "ben"})
    trials = read_sessions(folder)[0]["ben"].trials
    for number in range(3):
        see(server.url, "ben", number)
        post_answer(server.url, "ben", number, trials[number].fake)
    call(server.url, "api/session", {"participant": "cleo"})
    left_out = study.analyse(folder, draws=100)[1]["ours"]
    assert (left_out.rate, left_out.participants, left_out.trials, left_out.incomplete) == (0.75, 1, 4, 2)
    counted = study.analyse(folder, draws=100, include_incomplete=True)[1]["ours"]
    assert (counted.rate, counted.participants, counted.trials, counted.incomplete) == (0.6, 2, 5, 2)


def judged(folder):
    """Return what is told of the study's one algorithm."""
    return study.analyse(folder, draws=10)[1]["ours"]


def test_badly_timed_answers_are_told(server, tmp_path):
    call(server.url, "api/session", {"participant": "anna"})
    for trial in range(6):
        for _ in range(2 if trial in (0, 3) else 1):
            see(server.url, "anna", trial)
        long = {1: 63, 4: 63, 5: 600}.get(trial, 62)
        post_answer(server.url, "anna", trial, "left", shown=(51, long))
    found = judged(tmp_path / "study")  # 3, seen twice, and 4, seen a little too long; practice does not count
    assert (found.badly_timed, found.not_counted, found.trials) == (2, {"too_long": 1}, 3)


# Analysis: what no page sends.


def test_only_answers_to_images_that_were_seen_count(server, tmp_path, capsys, monkeypatch):
    now = [1000.0]  # a clock that stands still on a busy machine
    monkeypatch.setattr(serving, "time", SimpleNamespace(time=time.time, monotonic=lambda: now[0]))
    call(server.url, "api/session", {"participant": "anna"})
    url, shown = server.url, (50.0, 50.0)
    trials = read_sessions(tmp_path / "study")[0]["anna"].trials
    for trial in range(6):
        if trial == 3:
            fetch(url, "image?participant=anna&trial=3&side=left")  # and not the right one
        elif trial != 2:
            see(url, "anna", trial, wait=0)
        now[0] += 0 if trial == 4 else WAIT
        post_answer(url, "anna", trial, trials[trial].fake, shown)
    found = judged(tmp_path / "study")
    assert found.not_counted == {"not_sent": 2, "too_fast": 1}
    assert (found.rate, found.trials, found.participants) == (0, 1, 1)
    command.run(["analyse", "--study", str(tmp_path / "study")])
    out = capsys.readouterr().out
    assert "Answers to images that were not sent, not counted: 2." in out
    assert "Answers that came before both images can have been shown, not counted: 1." in out


def test_claims_of_a_page_that_cannot_be_do_not_count(server, tmp_path):
    """Shown for too short, or for longer than the server's own clock has run."""
    call(server.url, "api/session", {"participant": "anna"})
    for trial, (shown, response) in enumerate([((50, 50), 1)] * 3 + [((10, 50), 1), ((50, 50), 1e8), ((50, 0), 1)]):
        see(server.url, "anna", trial)
        body = {"participant": "anna", "trial": trial, "choice": "left", "shown_ms": shown, "response_ms": response}
        call(server.url, "api/answer", body)
    found = judged(tmp_path / "study")
    assert found.not_counted == {"impossible": 1, "too_short": 2} and found.trials == 1


def test_answers_out_of_turn_are_told_and_do_not_count(server, tmp_path, capsys):
    take_part(server.url, tmp_path / "study", "anna", fooled={2})
    before = judged(tmp_path / "study")
    body = {"participant": "anna", "choice": "left", "shown_ms": [50, 50], "response_ms": 1}
    for change in ({"trial": 9}, {"trial": 10**4_000}, {"trial": 0, "shown_ms": [1, float("nan")]}, {"trial": -1}):
        assert fetch(server.url, "api/answer", body | change)[0] in (400, 409)
    for trial in range(6):
        for choice in ("left", "right"):
            call(server.url, "api/answer", body | {"trial": trial, "choice": choice})
    found = judged(tmp_path / "study")
    assert found._replace(forged={}) == before and found.forged == {"refused": 4 + 6}
    command.run(["analyse", "--study", str(tmp_path / "study")])
    assert "0 second answers to a trial, 10 invalid or out-of-order answers; not counted" in capsys.readouterr().out


def test_what_is_written_down_of_nonsense_is_bounded(server, tmp_path):
    call(server.url, "api/session", {"participant": "anna"})
    for _ in range(80):
        assert fetch(server.url, "api/answer", {"participant": "anna"})[0] == 400
    assert len(journal.read(tmp_path / "study").records) == 1 + 50


def edited(folder, change):
    """Change the answers in a journal by hand."""
    records = journal.read(folder).records
    lines = [json.dumps(change(record)) for record in records]
    (folder / journal.NAME).write_text("".join(line + "\n" for line in lines))


FORGED = {
    "in the future": ({"time": "2999-01-01T00:00:00Z"}, "impossible"),
    "before the session": ({"time": "1999-01-01T00:00:00Z"}, "impossible"),
    "no time": ({"time": None}, "impossible"),
    "time of no zone": ({"time": "2026-01-01T00:00:00"}, "impossible"),
    "not a number": ({"shown_ms": [float("nan"), 50]}, "impossible"),
    "negative": ({"response_ms": -1}, "impossible"),
    "infinite": ({"elapsed_ms": float("inf")}, "impossible"),
    "text": ({"shown_ms": "50"}, "impossible"),
    "huge": ({"response_ms": 10**400}, "impossible"),
    "choice": ({"choice": ["left"]}, "impossible"),
    "never sent": ({"elapsed_ms": None}, "not_sent"),
    "at once": ({"elapsed_ms": 3}, "too_fast"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_line_of_the_journal_does_not_count(server, tmp_path, name):
    folder, (change, fault) = tmp_path / "study", FORGED[name]
    take_part(server.url, folder, "anna", fooled={2, 4})
    edited(folder, lambda record: record | (change if record.get("trial") == 4 and "choice" in record else {}))
    found = judged(folder)
    assert found.not_counted == {fault: 1} and (found.fooled, found.trials) == (1, 3)


@pytest.mark.parametrize("trial", [4, 99, -1, "4", None, 4.0, True, [4]])
def test_a_line_too_many_in_the_journal_does_not_count(server, tmp_path, trial):
    folder = tmp_path / "study"
    take_part(server.url, folder, "anna", fooled={2, 4})
    honest = judged(folder)
    record = next(record for record in journal.read(folder).records if record.get("trial") == 4)
    journal.append(folder, record | {"kind": "answer", "trial": trial, "choice": "left"})
    assert judged(folder) == honest._replace(forged={"duplicate": 1})


def test_a_journal_of_an_older_version_is_read_and_gone_on_with(tmp_path, served):
    """Its sessions have no secret: who enters first has it. Its answers do not say when their images were sent."""
    folder = tmp_path / "study"
    made = make_noise_study(folder)
    trials = made.draw("ours", 0)
    records = [{
        "kind": "session", "participant": "Anna", "algorithm": "ours", "time": "2026-01-01T10:00:00Z",
        "trials": [trial._asdict() for trial in trials],
    }]  # fmt: skip
    for number in range(5):
        records.append({
            "kind": "answer", "participant": "Anna", "trial": number, "choice": trials[number].fake,
            "shown_ms": [50.0, 50.0 if number != 3 else 500.0], "response_ms": 1.0, "views": 1,
            "time": f"2026-01-01T10:00:{10 + number}Z",
        })  # fmt: skip
    (folder / journal.NAME).write_text("".join(json.dumps(record) + "\n" for record in records))
    url = served(folder).url
    state = call(url, "api/session", {"participant": "anna"})
    assert state["trial"] == 5 and len(state["secret"]) == 32
    see(url, "anna", 5)
    assert post_answer(url, "anna", 5, trials[5].fake)["finished"]
    found = judged(folder)
    assert (found.trials, found.fooled, found.not_counted, found.badly_timed) == (3, 0, {"too_long": 1}, 0)


# Serving: a session belongs to who holds its secret.


def test_a_session_needs_its_secret(server, tmp_path):
    begun = call(server.url, "api/session", {"participant": "Anna"})
    see(server.url, "anna", 0)
    body = {"participant": "anna", "trial": 0, "choice": "left", "shown_ms": [50, 50], "response_ms": 1}
    before = (tmp_path / "study" / journal.NAME).read_bytes()
    for secret in ("", "x", begun["secret"][:-1], begun["secret"] + "x", "\u00e9".encode().decode("latin-1")):
        headers = {"X-Study-Secret": secret}
        for path, given in [
            ("api/session", {"participant": "ANNA"}),
            ("api/state?participant=anna", None),
            ("image?participant=anna&trial=0&side=left", None),
            ("api/answer", body),
            ("api/answer", body | {"trial": 5}),
        ]:
            assert fetch(server.url, path, given, headers)[0] == 403
    assert (tmp_path / "study" / journal.NAME).read_bytes() == before
    assert begun["secret"].encode() not in before
    assert "secret" not in call(server.url, "api/session", {"participant": "anna"})
    assert call(server.url, "api/answer", body)["trial"] == 1


def test_a_secret_is_told_again_until_it_is_used_and_outlives_the_server(tmp_path, served):
    make_noise_study(tmp_path / "study")
    server = served(tmp_path / "study")
    told = [call(server.url, "api/session", {"participant": "anna"})["secret"] for _ in range(3)]
    assert len({*told}) == 1
    see(server.url, "anna", 0, wait=0)
    assert fetch(server.url, "api/session", {"participant": "anna"}, {"X-Study-Secret": ""})[0] == 403
    server.shutdown()
    server.server_close()
    again = served(tmp_path / "study")
    carry_secrets(server.url, again.url)
    time.sleep(WAIT)
    post_answer(again.url, "anna", 0, "left")
    (answer,) = read_sessions(tmp_path / "study")[0]["anna"].answers
    assert answer["views"] == 0 and 1000 * WAIT <= answer["elapsed_ms"] < 60_000  # of images that the other has sent


def test_a_study_without_answers(tmp_path, capsys):
    make_noise_study(tmp_path / "study")
    command.run(["analyse", "--study", str(tmp_path / "study")])
    out = capsys.readouterr().out
    assert re.search(r"ours +- +- +0 +0", out)


def sd_of_two_levels(fooled, trials):
    """The bootstrap's own limit for equal numbers of trials: spread of participants, and of the trials of each."""
    p = np.asarray(fooled) / trials
    return np.sqrt((p.var() + (p * (1 - p)).mean() / trials) / len(p))


@pytest.mark.parametrize(
    "fooled",
    [
        [20] * 50,  # p = 0.5 and no spread of participants: only the trials of each
        [0, 40] * 10,  # no spread of trials: only the participants
        [3, 8, 1, 20, 14, 9, 0, 40, 7, 11],
        [12],
    ],
)
def test_bootstrap_has_the_closed_form(fooled):
    rates = bootstrap(fooled, [40] * len(fooled), draws=10_000, seed=1)
    sd = sd_of_two_levels(fooled, 40)
    assert rates.shape == (10_000,) and rates.min() >= 0 and rates.max() <= 1
    assert abs(rates.mean() - np.mean(fooled) / 40) < 5 * sd / 100  # of 10,000 draws
    assert rates.std() == pytest.approx(sd, rel=0.05)


def test_bootstrap_of_all_the_same_has_no_spread():
    for fooled, rate in ((0, 0.0), (40, 1.0)):
        assert set(bootstrap([fooled] * 5, [40] * 5, draws=100, seed=0)) == {rate}


def test_bootstrap_equals_resampling_answer_by_answer():
    """Against the plain way, with unequal numbers of trials."""
    answers = [[1, 0, 0, 1], [0] * 9 + [1], [1, 1, 0], [0, 1, 0, 0, 1, 1, 1]]
    rng = random.Random(0)
    plain = []
    for _ in range(10_000):
        drawn = [rng.choices(own, k=len(own)) for own in rng.choices(answers, k=len(answers))]
        plain.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    fast = bootstrap([sum(own) for own in answers], [len(own) for own in answers], draws=10_000, seed=0)
    assert fast.mean() == pytest.approx(np.mean(plain), abs=5 * np.std(plain) * np.sqrt(2) / 100)
    assert fast.std() == pytest.approx(np.std(plain), rel=0.05)
    assert np.quantile(fast, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(plain, [0.1, 0.5, 0.9]), abs=0.02)


def test_bootstrap_is_reproducible():
    draws = [bootstrap([3, 5], [10, 12], draws=2_500, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: text.replace('"algorithms": {', '"algorithms": 5, "x": {'),
        lambda text: text.replace('"real": {', '"real": 5, "x": {'),
        lambda text: "\udcff" + text,
        lambda text: re.sub(r'"trials": \d+', '"trials": "x"', text),
        lambda text: re.sub(r'"trials": \d+', '"trials": 1000000', text),
        lambda text: re.sub(r'"trials": \d+', '"trials": 1000', text),
    ],
)
def test_a_study_that_is_damaged_is_one_sentence(tmp_path, change):
    make_noise_study(tmp_path / "study")
    path = tmp_path / "study" / "study.json"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_bytes(changed.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="study.json is damaged"):
        Server(tmp_path / "study", 0)
    with pytest.raises(InputError, match="study.json is damaged"):
        study.analyse(tmp_path / "study")


def test_a_journal_cannot_name_files_outside_its_study(tmp_path):
    """A study may be a stranger's, too."""
    make_noise_study(tmp_path / "study")
    (tmp_path / "private.png").write_bytes(b"mine")
    trials = [{"left": "../../private", "right": "../../private", "fake": "left"}]
    record = {"kind": "session", "participant": "eve", "algorithm": "noise", "time": "", "trials": trials}
    (tmp_path / "study" / "answers.jsonl").write_text(json.dumps(record) + "\n")
    found, broken = read_sessions(tmp_path / "study")
    assert found == {} and broken == 1
