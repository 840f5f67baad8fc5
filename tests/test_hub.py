"""The hub: what is pushed is what is pulled, the card tells what the run knows, and a token is never told."""

import json
import re
import traceback

import numpy as np
import pytest
from PIL import Image

from p2p_jax import Translator
from p2p_jax.commands import push as push_command
from p2p_jax.errors import InputError
from p2p_jax.interop import pack, push_to_hub
from p2p_jax.objectives import make_objective
from p2p_jax.sharing import hub as hub_of_ours
from p2p_jax.sharing.card import write_card
from support.configs import small_config, small_cyclegan_config
from support.hub import TOKEN, pretend, running
from support.networks import draw_state
from support.processes import run_python
from support.runs import blank_state, run_command, write_run

pytest.importorskip("huggingface_hub")
IMAGE = np.random.default_rng(5).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)


def make_run(folder, config):
    """Make a run of whose images nothing but the number is known."""
    run = write_run(folder / "horses", config, draw_state(blank_state(make_objective(config), config)), step=3)
    facts = {"num_train": 1067, "images": {"val": {"count": 120, "contents": "x"}}}
    (run / "facts.json").write_text(json.dumps(facts))
    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A pix2pix; read it only."""
    return make_run(tmp_path_factory.mktemp("runs"), small_config(data__dir="/home/somebody/horses"))


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory):
    """A CycleGAN; read it only."""
    return make_run(tmp_path_factory.mktemp("runs"), small_cyclegan_config(data__dir="/home/somebody/horses"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Run a hub, with an empty cache and no token on this machine."""
    with running() as found:
        pretend(monkeypatch, found, tmp_path / "cache")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


@pytest.mark.slow
def test_what_is_pushed_is_what_is_pulled(both_ways, hub):
    pushed = push_to_hub(both_ways, "user/horses", licence="cc-by-4.0", token=TOKEN)
    assert pushed.files == ("model.safetensors", "README.md")
    assert pushed.address == f"{hub.endpoint}/user/horses"
    assert not hub.repositories["user/horses"].private
    ours, theirs = Translator.from_workdir(both_ways), Translator.from_pretrained("user/horses")
    np.testing.assert_array_equal(theirs(IMAGE), ours(IMAGE))
    assert theirs.checkpoint_id == ours.checkpoint_id
    assert theirs.directions == ("AtoB", "BtoA")
    first = hub.repositories["user/horses"].commits[-1][0]
    push_to_hub(both_ways, "user/horses", licence="mit", direction="BtoA", token=TOKEN)  # over what is there
    assert Translator.from_pretrained("user/horses").directions == ("BtoA",)
    assert Translator.from_pretrained("user/horses", first).directions == ("AtoB", "BtoA")


@pytest.mark.slow
def test_the_token_goes_to_the_hub_alone(run_folder, hub, monkeypatch, tmp_path):
    push_to_hub(run_folder, "user/horses", licence="mit", private=True, token=TOKEN)
    assert hub.repositories["user/horses"].private
    assert Translator.from_pretrained("user/horses", token=TOKEN).step == 3
    to_hub = [x for x in hub.requests if x.host == "127.0.0.1"]
    to_store = [x for x in hub.requests if x.host == "localhost"]
    assert {x.authorization for x in to_hub if "user/horses" in x.path} == {f"Bearer {TOKEN}"}
    assert {x.method for x in to_store} == {"PUT", "GET"}
    assert {x.authorization for x in to_store} == {None}
    assert not any(TOKEN in x.path or TOKEN.encode() in x.body for x in hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "another"))
    with pytest.raises(InputError, match="no repository user/horses .* or it is private: to read it, log in"):
        Translator.from_pretrained("user/horses")


@pytest.mark.slow
def test_nothing_private_is_put_where_all_can_read_it(run_folder, hub):
    push_to_hub(run_folder, "user/horses", licence="mit", token=TOKEN)
    with pytest.raises(InputError, match="is public"):
        push_to_hub(run_folder, "user/horses", licence="mit", private=True, token=TOKEN)
    assert len(hub.repositories["user/horses"].commits) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 501])
def test_no_answer_of_a_hub_brings_a_token_to_light(status, run_folder, hub, capsys):
    hub.answer = status  # and its text repeats the headers that it got
    calls = (
        lambda: push_to_hub(run_folder, "user/horses", licence="mit", token=TOKEN),
        lambda: Translator.from_pretrained("user/horses", token=TOKEN),
    )
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        told = "".join(traceback.format_exception(caught.value)) + str(capsys.readouterr())
        assert caught.value.__cause__ is None and caught.value.__context__ is None
        assert TOKEN not in told and "Bearer" not in told
        assert f"127.0.0.1:{hub.port}" in str(caught.value) and "\n" not in str(caught.value)
    assert TOKEN in str([x.authorization for x in hub.requests])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"name": "user/absent"}, "no repository user/absent on .*, or it is private"),
        ({"name": "user/horses", "revision": "v9"}, "has no revision v9"),
        ({"name": "user/horses", "filename": "other.safetensors"}, "has no file other.safetensors"),
        ({"name": "user/notes"}, "has no file model.safetensors"),
        ({"name": "user/web"}, "first 8 are not the length of a header"),
        ({"name": "horses"}, "write it as user/name"),
        ({"name": "a/b/c"}, "write it as user/name"),
        ({"name": "user/bad name"}, "not a valid repository name"),
        ({"name": "../.."}, "write it as user/name"),
    ],
)
def test_what_cannot_be_pulled_is_one_sentence(asked, told, run_folder, hub):
    push_to_hub(run_folder, "user/horses", licence="mit", token=TOKEN)
    for name, files in {
        "user/notes": {"README.md": b"x"},
        "user/web": {"model.safetensors": b"<!doctype html>"},
    }.items():
        hub.repositories[name] = type(hub.repositories["user/horses"])(private=False)
        hub.repositories[name].add(files)
    with pytest.raises(InputError, match=told):
        Translator.from_pretrained(**asked)


@pytest.mark.slow
def test_who_may_not_write_is_told_so(run_folder, hub):
    with pytest.raises(InputError, match="does not know you.*hf auth login.*HF_TOKEN"):
        push_to_hub(run_folder, "user/horses", licence="mit")
    with pytest.raises(InputError, match="does not let you write other/horses"):
        push_to_hub(run_folder, "other/horses", licence="mit", token=TOKEN)
    assert not hub.repositories


@pytest.mark.slow
def test_offline_is_one_sentence_and_what_was_fetched_still_opens(run_folder, hub, monkeypatch, tmp_path):
    push_to_hub(run_folder, "user/horses", licence="mit", token=TOKEN)
    there = Translator.from_pretrained("user/horses").checkpoint_id
    with running() as gone:
        pretend(monkeypatch, gone, tmp_path / "cache")
    with pytest.raises(InputError, match=f"127.0.0.1:{gone.port} cannot be reached, and user/other was not fetched"):
        Translator.from_pretrained("user/other")
    with pytest.raises(InputError, match="cannot be reached, and nothing was written: is this machine online"):
        push_to_hub(run_folder, "user/horses", licence="mit", token=TOKEN)
    assert Translator.from_pretrained("user/horses").checkpoint_id == there


@pytest.mark.slow
def test_a_licence_has_no_default(run_folder, hub, tmp_path):
    with pytest.raises(InputError, match="`licence` is missing: .* only you can choose it"):
        push_to_hub(run_folder, "user/horses", token=TOKEN)
    assert not hub.requests
    said = pack(run_folder, tmp_path / "said.safetensors", licence="my own")
    push_to_hub(said.path, "user/horses", token=TOKEN)
    card = hub.repositories["user/horses"].commits[-1][1]["README.md"].decode()
    assert 'license: other\nlicense_name: "my own"\n' in card


@pytest.mark.slow
def test_pictures_go_along_only_if_named_and_without_what_is_in_them(run_folder, hub, tmp_path):
    (run_folder / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (4, 3), "red").save(run_folder / "samples" / "3.png")
    place = tmp_path / "garden.jpg"
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "at home, 52.5N 13.4E", 6  # a description; to be turned by a quarter
    Image.new("RGB", (4, 3), "blue").save(place, exif=exif)
    assert b"at home" in place.read_bytes()
    pushed = push_to_hub(run_folder, "user/horses", licence="mit", pictures=[place], token=TOKEN)
    assert pushed.files == ("model.safetensors", "README.md", "samples/1.png")
    assert "![sample](samples/1.png)" in pushed.card
    sent = hub.repositories["user/horses"].commits[-1][1]["samples/1.png"]
    assert b"at home" not in sent and b"garden" not in sent
    (tmp_path / "sent.png").write_bytes(sent)
    with Image.open(tmp_path / "sent.png") as picture:
        assert picture.size == (3, 4)
    plain = push_to_hub(run_folder, "user/plain", licence="mit", token=TOKEN)
    assert plain.files == ("model.safetensors", "README.md") and "![" not in plain.card
    with pytest.raises(InputError, match="cannot be read as a picture"):
        push_to_hub(run_folder, "user/horses", licence="mit", pictures=[run_folder / "facts.json"], token=TOKEN)


@pytest.mark.slow
def test_the_command_pushes_in_the_name_of_the_environment(run_folder, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    status = run_command(push_command, run_folder, "user/horses", "--licence", "cc-by-4.0", "--dtype", "float16")
    out, err = capsys.readouterr()
    assert status == 0 and f"{hub.endpoint}/user/horses: model.safetensors, README.md" in out
    assert "float16" in out and TOKEN not in out + err
    assert run_command(push_command, run_folder, "user/horses").startswith("error: --licence is missing")
    hub.answer = 403
    told = run_command(push_command, run_folder, "user/horses", "--licence", "mit")
    assert told.startswith("error: 127.0.0.1") and TOKEN not in told + str(capsys.readouterr())


@pytest.mark.slow
def test_the_card_tells_what_the_run_knows(both_ways, hub):
    card = push_to_hub(both_ways, "user/horses", licence="CC-BY-NC-4.0", token=TOKEN).card
    head, _, rest = card.removeprefix("---\n").partition("---\n")
    assert head.splitlines() == [
        'license: "cc-by-nc-4.0"',
        "library_name: p2p_jax",
        "pipeline_tag: image-to-image",
        "tags:",
        *(f'- "{tag}"' for tag in ("p2p_jax", "image-to-image", "jax", "flax", "gan", "cyclegan")),
    ]
    assert "- images: 120 of `val`" in rest and "- source: `toy_unpaired`" in rest
    assert "somebody" not in card and str(both_ways.parent) not in card
    assert "Its quality was not measured." in rest and "these weights are from step 3" in rest
    code = re.search(r"```python\n(.*?)```", rest, re.DOTALL)[1]
    found = {"image": IMAGE[0]}
    exec(code, found)  # as it stands there, against the hub
    np.testing.assert_array_equal(found["translation"], Translator.from_workdir(both_ways)(IMAGE[0]))


def test_metrics_stand_in_the_card_with_their_number_and_strangers_words_are_no_markup():
    told = {"by": "evaluate", "split": "test", "num_images": 37, "seen": "whole images", "direction": "AtoB"}
    told |= {"metrics": {"psnr": {"mean": 21.4567, "std": 2.0}}, "set_metrics": {"FID": {"fid": 88.125}}}
    about = {
        "model": {"objective": "p2p_jax:pix2pix", "directions": ["AtoB"], "step": 10, "weights": "average"},
        "domains": {"input": {"kind": "labels", "channels": 12}, "output": {"kind": "uint8", "channels": 3}},
        "data": {"source": "`x`\n# <script>", "images": {"test": 37}},
        "licence": {"name": "mit"},
        "metrics": {"found": [told]},
        "config": {"num_steps": 10, "inference": {"norm": "batch"}},
    }
    card = write_card(about, "user/name", "model.safetensors", "ab" * 32, 23.1)
    assert "| `psnr` | 21.46 | 2 | 37 | `test`, AtoB | evaluate, whole images |" in card
    assert "| `FID` fid | 88.12 |  | 37 | `test`, AtoB | evaluate, whole images |" in card
    assert "It was measured on at most 37 images" in card and "maps of 12 labels" in card
    assert "- source: `x  # <script>`" in card and "\n# <" not in card  # in code marks
    assert "the average of the generators after step 10" in card
    about["model"] |= {"direction": "BtoA"}  # of the training, so that this is the way back
    told |= {"num_images": None}
    card = write_card(about, "user/name", "model.safetensors", "ab" * 32, 23.1)
    assert "direction `AtoB`, from pictures to maps of 12 labels" in card and "| 21.46 | 2 | not known | `test`" in card


def test_without_the_package_the_extra_is_named(monkeypatch, run_folder):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: Translator.from_pretrained("user/horses"),
        lambda: push_to_hub(run_folder, "user/horses", licence="mit"),
        lambda: hub_of_ours.fetch("user/horses"),
    ):
        with pytest.raises(InputError, match=r"pip install 'p2p_jax\[hub\]'"):
            call()


@pytest.mark.slow
def test_another_process_finds_the_hub_by_its_address(run_folder, hub, tmp_path, monkeypatch):
    push_to_hub(run_folder, "user/horses", licence="mit", private=True, token=TOKEN)
    code = "from p2p_jax import Translator; print(Translator.from_pretrained('user/horses').checkpoint_id)"
    for name, value in {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    assert run_python(code).split()[-1] == Translator.from_workdir(run_folder).checkpoint_id
