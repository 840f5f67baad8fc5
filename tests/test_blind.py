"""Blind sheets: what stands on the left is what the key says, and preferences are counted by it."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import blind
from p2p_jax import Translator
from p2p_jax.evaluation.predictions import as_picture, predict


def test_preferences_are_counted_by_the_key():
    rows = [{"left": "first"}, {"left": "second"}, {"left": "first"}, {"left": "second"}]
    assert blind.count(rows, "lr R=") == {"first": 2, "second": 1, "neither": 1, "share_of_second": 0.375}
    for chosen in ("LRL", "LRLX"):
        with pytest.raises(SystemExit, match="4 rows"):
            blind.count(rows, chosen)


def translations(run):
    translator = Translator.from_workdir(run, batch_size=1)
    return {one.name: as_picture(translator, one.output, one.input) for one in predict(translator, "val")}


@pytest.mark.slow
def test_sheets_show_what_the_key_says(pix2pix_run, cyclegan_run, tmp_path):
    given = Namespace(data_dir=None, split="val", count=5, seed=3, trust=[], output=tmp_path / "sheets")
    earlier = shutil.copytree(pix2pix_run, tmp_path / "earlier")
    shutil.rmtree(earlier / "checkpoints" / "4")
    blind.make(Namespace(first=[str(pix2pix_run)], second=[str(earlier)] * 2, **vars(given)))
    key = json.loads((given.output / "key.json").read_text())
    assert [len(key["rows"]), key["seed"]] == [5, 3]
    assert {row["left"] for row in key["rows"]} == {"first", "second"}
    outputs = {"first": translations(pix2pix_run), "second": translations(earlier)}
    seen = np.asarray(Image.open(given.output / "sheet_1.png"))
    side = outputs["first"][key["rows"][0]["name"]].shape[0]
    scale = -(-blind.SIDE // side)
    for i, row in enumerate(key["rows"]):
        block = seen.shape[1] // blind.COLUMNS, seen.shape[0] // blind.ROWS
        top = block[1] * (i // blind.COLUMNS) + blind.LINE
        right = "second" if row["left"] == "first" else "first"
        for j, group in enumerate((row["left"], right), 1):
            left = block[0] * (i % blind.COLUMNS) + j * (scale * side + blind.GAP)
            pixels = seen[top : top + scale * side : scale, left : left + scale * side : scale]
            np.testing.assert_array_equal(pixels, outputs[group][row["name"]])
    with pytest.raises(SystemExit, match="other data"):
        blind.make(Namespace(first=[str(pix2pix_run)], second=[str(cyclegan_run)], **vars(given)))
