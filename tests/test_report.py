import base64
import csv
import hashlib
import html
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p_jax.errors import InputError
from p2p_jax.evaluation import pages, report, report_tables
from p2p_jax.evaluation.report import choose_rows, data_uri, read_panels, write_report

HOSTILE = """<img src=x onerror=alert(1)>&"'</script><script>alert(2)</script><!-- \u2028\u00e9"""
COLUMNS = "step,train/gen/l1,train/disc/real,train/disc/fake,eval/l1\n"
L1 = [0.3, 0.1, 0.4, 0.2]


def example(count=4, **changes):
    """Return results and images of an evaluation; the images are flat but for noise, so that PNG is the smaller."""
    rng = np.random.RandomState(0)
    rows = [{"name": f"{i}.png", "l1": (L1 * count)[i], "psnr": 10.0 + i, "strange": i % 2} for i in range(count)]
    results = {
        "run": "facades",
        "step": 6000,
        "checkpoint": "latest",
        "direction": "BtoA",
        "split": "val",
        "num_images": count,
        "paired": True,
        "norm": "batch",
        "dropout": True,
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"p2p_jax": "0.1.0"},
        "config": {"best_metric": "l1", "data": {"direction": "BtoA", "source": "toy_facades"}},
        "metrics": {name: {"mean": 0.25, "std": 0.111803, "count": count} for name in ("l1", "psnr", "strange")},
        "set_metrics": {},
        "images": rows,
    }
    columns = ("input", "output", "target")
    images = [{name: rng.randint(0, 256, (8, 12, 3), dtype=np.uint8) for name in columns} for _ in range(count)]
    return results | changes, images


def written(tmp_path, results, images, history=None, **kwargs):
    """Return the page, and the data embedded in it."""
    write_report(tmp_path / "report.html", results, images, history, **kwargs)
    page = (tmp_path / "report.html").read_text(encoding="ascii")
    blocks = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(blocks) == 1
    return page, json.loads(blocks[0])


def decoded(uri):
    kind, _, code = uri.partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))


def test_what_was_evaluated_is_in_the_page(tmp_path):
    results, images = example()
    page, data = written(tmp_path, results, images)
    assert data["results"] == results
    assert data["better"] == {"l1": "lower", "psnr": "higher", "strange": None}
    assert data["metric"] == "l1"
    for text in ("<h1>facades</h1>", "<dd>step 6,000<small>latest</small>", "<dd>BtoA</dd>", "4 images of val"):
        assert text in page
    for text in ("toy_facades, with targets", "<dd>batch<small>", "<dd>on</dd>", "2026-01-02 03:04:05 UTC"):
        assert text in page
    assert '<p class="mean">0.2500 <small>&plusmn; 0.1118 between the 4 images</small></p>' in page
    assert "<span>0.1000</span><span>median 0.2500</span><span>0.4000</span>" in page
    assert page.count('<rect x="') == 4 + 4 + 2  # each value in a bin of its own, "strange" has two
    config = re.search(r'<pre id="config"[^>]*>(.*?)</pre>', page, re.DOTALL).group(1)
    assert json.loads(html.unescape(config)) == results["config"]
    assert "Checkpoint id" not in page and "Parameters" not in page
    changes = {"checkpoint_id": "0123abcd", "num_parameters": 54413955, "dropout": False, "norm": "running"}
    page, _ = written(tmp_path, results | changes, images)
    assert "<dd>0123abcd</dd>" in page and "54,413,955" in page
    assert "<dd>off</dd>" in page and "<dd>running<small>running statistics of training</small>" in page


@pytest.mark.parametrize(("best", "first"), [("l1", "mae_units"), ("psnr", "psnr"), ("gone", "l1")])
def test_images_with_units_are_ranked_by_their_error_in_these(tmp_path, best, first):
    results, images = example()
    results["config"]["best_metric"] = best
    results["metrics"]["mae_units"] = {"mean": 5.0, "std": 1.0, "count": 4}
    for i, row in enumerate(results["images"]):
        row["mae_units"] = float(i)
    assert written(tmp_path, results, images)[1]["metric"] == first


def test_pictures_are_those_given(tmp_path):
    results, images = example()
    _, data = written(tmp_path, results, images)
    assert [one["row"] for one in data["shown"]] == [0, 1, 2, 3]
    for one, given in zip(data["shown"], images, strict=True):
        for column, image in given.items():
            picture = data["pictures"][one["cells"][column]]
            kind, pixels = decoded(picture["uri"])
            assert kind == "data:image/png"
            np.testing.assert_array_equal(pixels, image)
            assert (picture["width"], picture["height"]) == (12, 8)
    assert data["columns"] == ["input", "output", "target"] and data["compare"] == ["output", "target"]


def test_a_picture_is_embedded_once(tmp_path):
    results, images = example()
    images[2]["input"] = images[0]["input"].copy()
    page, data = written(tmp_path, results, images)
    assert len(data["pictures"]) == 11 == page.count("data:image/png;base64,")
    assert data["shown"][2]["cells"]["input"] == data["shown"][0]["cells"]["input"]


def test_photographs_are_jpeg_and_flat_pictures_lossless():
    y, x = np.mgrid[:96, :96]
    rng = np.random.RandomState(0)
    photo = np.stack([128 + 60 * np.sin(x / 17), 128 + 60 * np.cos(y / 13), x + y], -1) + rng.normal(0, 4, (96, 96, 3))
    photo = photo.clip(0, 255).astype(np.uint8)
    kind, pixels = decoded(data_uri(photo))
    assert kind == "data:image/jpeg"
    assert 0 < np.abs(pixels.astype(int) - photo).mean() < 4
    labels = np.kron(rng.randint(0, 256, (6, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    kind, pixels = decoded(data_uri(labels))
    assert kind == "data:image/png"
    np.testing.assert_array_equal(pixels, labels)
    kind, pixels = decoded(data_uri(photo[:16, :16, :1]))
    assert kind == "data:image/png"
    np.testing.assert_array_equal(pixels, photo[:16, :16, 0])
    for wrong in (photo[..., :2], photo[0], photo.astype(np.float32)):
        with pytest.raises(ValueError, match="uint8"):
            data_uri(wrong)


def test_names_cannot_leave_their_place(tmp_path):
    results, images = example(run=HOSTILE, split=HOSTILE, set_metrics={HOSTILE: {HOSTILE: 1.0, "note": HOSTILE}})
    results["images"][1]["name"] = HOSTILE
    results["config"] = {HOSTILE: HOSTILE}
    for row in results["images"]:
        row[HOSTILE] = 0.5
    results["metrics"][HOSTILE] = {"mean": 0.5, "std": 0.0, "count": 4}
    images = [{HOSTILE: one["input"]} for one in images]
    page, data = written(tmp_path, results, images)
    assert data["results"] == results
    assert data["columns"] == [HOSTILE]
    assert page.count("<script") == 2 == page.count("</script>")
    assert "<img" not in page and "<!--" not in page
    assert page.count(html.escape(HOSTILE).encode("ascii", "xmlcharrefreplace").decode()) >= 6


def test_page_needs_no_network_and_runs_only_its_own_code(tmp_path):
    page, _ = written(tmp_path, *example())
    assert set(re.findall(r"""https?://[^"' ]*""", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"""(?:src|href)="(?!#|data:)""", page) and "@import" not in page and "url(" not in page
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        code = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_more_images_than_fit_are_sampled_and_the_page_says_so(tmp_path):
    count = 100
    rows = [{"name": str(i), "l1": float((i * 37) % count), "psnr": float(i)} for i in range(count)]
    results, images = example(count, images=rows)
    results["metrics"] = {name: {"mean": 49.5, "std": 1.0, "count": count} for name in ("l1", "psnr")}
    page, data = written(tmp_path, results, images, max_images=40)
    chosen = [one["row"] for one in data["shown"]]
    assert len(chosen) == len(set(chosen)) == 40 and chosen == sorted(chosen)
    by_l1 = sorted(range(count), key=lambda i: rows[i]["l1"])
    assert {*by_l1[:6], *by_l1[-6:], *range(6), *range(94, 100)} <= set(chosen)
    assert max(np.diff(chosen)) <= 8  # 76 others, 16 or 17 of them evenly
    assert "holds the pictures of 40 of the 100 images" in page
    assert data["results"]["images"] == rows
    assert len(data["pictures"]) == 3 * 40
    page, data = written(tmp_path, results, images)
    assert len(data["shown"]) == count and "holds the pictures of" not in page


def test_choice_of_rows():
    rows = [{"l1": value} for value in (5.0, None, 1.0, math.nan, 9.0, 1.0, 7.0)]
    assert choose_rows(rows, ["l1"], 7) == [0, 1, 2, 3, 4, 5, 6]
    assert choose_rows(rows, ["l1"], 2) == [2, 4]  # the lowest, the first of equals; the highest
    assert choose_rows(rows, ["l1"], 4) == [2, 4, 5, 6]
    assert choose_rows(rows, ["l1"], 6) == [0, 1, 2, 4, 5, 6]  # all five values, and the first of the two without
    assert choose_rows(rows, [], 3) == [0, 3, 6]


def test_what_is_not_finite_is_not_a_number_on_the_page(tmp_path):
    results, images = example(set_metrics={"fid": {"value": np.float32("nan"), "kid": math.inf}})
    results["images"][0]["l1"], results["images"][1]["psnr"] = math.nan, math.inf
    results["images"][2]["l1"] = None
    results["metrics"]["l1"] = {"mean": math.nan, "std": None, "count": np.int64(4)}
    page, data = written(tmp_path, results, images)
    assert [row["l1"] for row in data["results"]["images"]] == [None, 0.1, None, 0.2]
    assert data["results"]["images"][1]["psnr"] is None
    assert data["results"]["metrics"]["l1"] == {"mean": None, "std": None, "count": 4}
    assert data["results"]["set_metrics"]["fid"] == {"value": None, "kid": None}
    assert '<p class="mean">n/a <small>&plusmn; n/a between the 4 images' in page
    assert "<span>0.1000</span><span>median 0.1500</span><span>0.2000</span>" in page
    assert page.count("<td>n/a</td>") == 2


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    results, images = example()
    path = tmp_path / "new" / "report.html"
    write_report(path, results, images, None)
    before = path.read_bytes()

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_report(path, results | {"run": "other"}, images, None)
    assert path.read_bytes() == before


def test_pictures_must_belong_to_the_rows(tmp_path):
    results, images = example()
    with pytest.raises(ValueError, match="4 rows of results but pictures of 3"):
        write_report(tmp_path / "report.html", results, images[:3], None)
    assert not list(tmp_path.iterdir())


def test_curves_are_grouped_by_metric(tmp_path):
    history = tmp_path / "metrics.csv"
    history.write_text(COLUMNS + "100,0.5,1.5,0.25,\n200,nan,1.0,0.5,0.125\n300,0.25,inf,0.75,0.0625\n400,0.1")
    panels, averaged = read_panels(history)
    assert averaged == 1
    assert panels == [
        {"title": "l1", "series": [{"name": "eval/l1", "points": [[200, 0.125], [300, 0.0625]]}]},
        {"title": "gen/l1", "series": [{"name": "train/gen/l1", "points": [[100, 0.5], [200, None], [300, 0.25]]}]},
        {
            "title": "disc",
            "series": [
                {"name": "train/disc/real", "points": [[100, 1.5], [200, 1.0], [300, None]]},
                {"name": "train/disc/fake", "points": [[100, 0.25], [200, 0.5], [300, 0.75]]},
            ],
        },
    ]
    page, data = written(tmp_path, *example(), history)
    assert data["panels"] == panels and data["steps"] == [100, 300]
    assert "Each point is the mean" not in page


def test_seconds_and_epochs_have_no_chart(tmp_path):
    history = tmp_path / "metrics.csv"
    history.write_text("step,run/seconds,run/epoch,run/images_per_s\n100,1.5,0.5,8\n200,3.0,1.0,9\n")
    series = [{"name": "run/images_per_s", "points": [[100, 8.0], [200, 9.0]]}]
    assert read_panels(history)[0] == [{"title": "run/images_per_s", "series": series}]


def test_domains_share_a_chart_and_long_curves_are_averaged(tmp_path):
    history = tmp_path / "metrics.csv"
    with open(history, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train/gen/gan_ab", "train/gen/gan_ba", "eval/cycle_a", "eval/cycle"])
        writer.writerows([i, i, 2 * i, "", i if i == 7 else ""] for i in range(1, 2502))
    panels, averaged = read_panels(history)
    assert averaged == 3
    assert [(panel["title"], [one["name"] for one in panel["series"]]) for panel in panels] == [
        ("cycle", ["eval/cycle"]),
        ("gen/gan", ["train/gen/gan_ab", "train/gen/gan_ba"]),
    ]
    points = panels[1]["series"][1]["points"]
    assert points[:2] == [[3, 4.0], [6, 10.0]] and points[-1] == [2501, 5001.0] and len(points) == 834
    assert panels[0]["series"][0]["points"] == [[7, 7.0]]
    page, _ = written(tmp_path, *example(), history)
    assert "Each point is the mean of up to 3 logged values" in page


def test_distances_of_copies_are_lines_beside_those_of_outputs(tmp_path):
    names = ["eval/kid", "eval/kid_std", "eval/raw_kid", "eval/fid", "eval/copy_kid", "eval/copy_fid", "eval/copy_l1"]
    (tmp_path / "metrics.csv").write_text(f"step,{','.join(names)}\n1,1,2,3,4,5,6,7\n")
    panels, _ = read_panels(tmp_path / "metrics.csv")
    assert [(panel["title"], [one["name"] for one in panel["series"]]) for panel in panels] == [
        ("kid", ["eval/kid", "eval/raw_kid", "eval/copy_kid"]),
        ("kid_std", ["eval/kid_std"]),
        ("fid", ["eval/fid", "eval/copy_fid"]),
        ("copy_l1", ["eval/copy_l1"]),
    ]


def test_a_file_that_is_no_history_is_named(tmp_path):
    for text in ("a,b\n1,2\n", "step,train/x\n1,high\n"):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(InputError, match="metrics.csv is not a table of metrics"):
            read_panels(tmp_path / "metrics.csv")
    with pytest.raises(InputError, match="missing.csv"):
        read_panels(tmp_path / "missing.csv")


def test_which_direction_is_better():
    lower = ("l1", "cycle", "cycle_a", "identity_b", "fid", "kid_mean")
    higher = ("psnr", "ssim", "pixel_accuracy", "class_iou", "histogram intersection", "FCN score [own FCN-8s, seed 0]")
    assert {report_tables.better(name) for name in lower} == {"lower"}
    assert {report_tables.better(name) for name in higher} == {"higher"}
    assert report_tables.better("sharpness") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "0.2500"),
        (121.34, "121.3"),
        (1234.0, "1234"),
        (54413955, "54,413,955"),
        (12345.6, "12,346"),
        (True, "yes"),
    ]
    + [(2e-05, "2.000e-05"), (0.0, "0.000"), (np.float32(0.5), "0.5000"), (np.inf, "n/a"), (None, "n/a"), ("x", "x")],
)
def test_numbers_as_text(value, text):
    assert report_tables.text_of(value) == text


def test_metrics_of_the_set_are_tables(tmp_path):
    score = {"pixel_accuracy": 0.75, "class_iou": 0.5, "per_class_iou": {"wall": 0.9, "door": None}}
    real = {"pixel_accuracy": 0.9375, "class_iou": 0.875, "per_class_iou": {"wall": 0.95, "door": 0.8}}
    sets = {
        "FCN score [own FCN-8s, seed 0]": score | {"real photographs": real | {"note": "the ceiling"}, "count": 4},
        "FID and KID": {"fid": 120.5, "kid_mean": 0.0625, "note": "fewer than 2,048 images"},
        "sharpness": 0.5,
    }
    page, _ = written(tmp_path, *example(set_metrics=sets))
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page.replace("<wbr>", ""))
    rows = {name: re.findall("<td>(.*?)</td>", cells) for name, cells in rows}
    assert rows == {
        "pixel_accuracy": ["0.7500", "0.9375"],
        "class_iou": ["0.5000", "0.8750"],
        "count": ["4", ""],
        "wall": ["0.9000", "0.9500"],
        "door": ["n/a", "0.8000"],
        "fid": ["120.5"],
        "kid_mean": ["0.06250"],
        "value": ["0.5000"],
    }
    heads = re.findall(r'<th scope="col">(.*?)</th>', page)
    assert heads == ["generated", "real photographs", "iou", "real photographs: iou"]
    assert "<summary>Per class</summary>" in page and "<p>real photographs: the ceiling</p>" in page
    assert "<p>fewer than 2,048 images</p>" in page
    told = re.findall(r"<dt>([^<]*)</dt><dd>", page[page.index('class="method"') :])
    assert told == [
        "Images",
        "Mean",
        "l1",
        "psnr",
        *list(sets)[:1],
        "pixel_accuracy",
        "class_iou",
        "fid",
        "kid_mean",
    ] + ["Pictures"]


@pytest.mark.parametrize(
    ("columns", "direction", "compare", "strip"),
    [
        (["input", "output", "target"], "BtoA", ["output", "target"], ["input", "output", "target"]),
        (["input", "output"], "BtoA", ["input", "output"], ["input", "output"]),
        (["real A", "fake B", "rec A", "real B", "fake A", "rec B"], "BtoA", ["real A", "fake B"], None),
        (["real A", "fake B", "rec A", "real B", "fake A", "rec B"], "AtoB", ["real B", "fake A"], None),
        (["x"], "AtoB", ["x", "x"], ["x"]),
    ],
)
def test_what_the_sliders_compare(tmp_path, columns, direction, compare, strip):
    """The config's own direction is BtoA: that is the way from the config's domain A to its B."""
    results, images = example(direction=direction)
    images = [{name: one["input"] for name in columns} for one in images]
    _, data = written(tmp_path, results, images)
    assert data["compare"] == compare
    assert data["strip"] == (strip or [*compare, "rec " + compare[0][-1]])


def test_an_evaluation_without_per_image_metrics_or_images(tmp_path):
    results, images = example(metrics={}, set_metrics={"fid": 61.5})
    results["images"] = [{"name": row["name"]} for row in results["images"]]
    page, data = written(tmp_path, results, images)
    assert data["metric"] is None and data["better"] == {} and "<td>61.50</td>" in page
    page, data = written(tmp_path, results | {"images": []}, [])
    assert data["shown"] == [] == data["columns"]


def test_templates_are_ascii():
    names = [path.name for path in Path(report.__file__).parent.iterdir() if path.suffix in (".html", ".css", ".js")]
    assert set(names) >= {"report.html", "report.css", "report_curves.js", "report.js", "comparison.html"}
    folder = pages.files("p2p_jax.evaluation")
    for file in (pages.files("p2p_jax").joinpath("look.css"), *map(folder.joinpath, names)):
        text = file.read_bytes().decode()
        assert text.isascii() and "\r" not in text  # else the hashes of the policy would not fit
