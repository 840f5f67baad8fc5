"""What the exported page does with pictures, in a real browser, against the library's own functions."""

import json
from pathlib import Path

import numpy as np
import pytest

import p2p_jax
from p2p_jax.images import palettes
from p2p_jax.images.domains import Domain
from p2p_jax.images.resize import resize
from p2p_jax.inference import values
from p2p_jax.inference.sizes import Sizes
from p2p_jax.interop.web import page
from support.browser import chromium
from support.images import noise
from support.web_pages import served

pytestmark = pytest.mark.slow

WHOLE = {"low": (0.0,) * 3, "high": (255.0,) * 3}
PALETTE = palettes.CITYSCAPES  # which has colours of no class
RUN = """
const [code, given, done] = arguments;
const take = ({data, shape: [height, width, channels], kind}) =>
    ({data: (kind === "f" ? Float32Array : Uint8Array).from(data), height, width, channels});
import("./pictures.js").then((module) => {
  const found = new Function("m", "p", "given", "take", `return ${code}`)(module, take(given.picture), given, take);
  done([Array.from(found.data), found.height, found.width, found.channels]);
}).catch((error) => done(String(error)));
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with (
        served(Path(p2p_jax.__file__).parent / "interop" / "web") as server,
        chromium(tmp_path_factory.mktemp("web")) as driver,
    ):
        driver.get(f"http://127.0.0.1:{server.server_port}/app.css")  # a page without scripts and without a policy
        yield driver


def sent(array):
    return {"data": array.ravel().tolist(), "shape": array.shape, "kind": array.dtype.kind}


def run(driver, code, picture, **given):
    """Compute an expression of the module `m` and the picture `p`."""
    found = driver.execute_async_script(RUN, code, {"picture": sent(picture), **given})
    assert not isinstance(found, str), found
    numbers, *shape = found
    return np.array(numbers).reshape(shape)


@pytest.mark.parametrize("size", [(30, 17), (61, 90), (9, 130), (1, 1)])
def test_resized_as_training_does(driver, size):
    image = noise(41, 64, 3)
    for nearest in (False, True):
        found = run(driver, f"m.resize(p, {size[1]}, {size[0]}, {json.dumps(nearest)})", image)
        np.testing.assert_array_equal(found, resize(image, size, nearest=nearest))


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((41, 64, 3), Sizes(16, (16, 16), 32)),
        ((3, 5, 1), Sizes(32, (32, 32), 32)),  # reflected again and again
        ((1, 7, 3), Sizes(4, (4, 4), 4)),
        ((8, 8, 3), Sizes(8, (8, 12), 1)),
    ],
)
def test_padded_as_the_translator_does(driver, shape, sizes):
    image = noise(*shape, dtype=np.float32)
    code = "m.pad(p, ...m.paddedSize(p.height, p.width, given.sizes))"
    found = run(driver, code, image, sizes={"steps": sizes.steps, "smallest": sizes.smallest})
    np.testing.assert_array_equal(found, sizes.pad(image))
    cut = run(driver, f"m.cut(p, {shape[0]}, {shape[1]})", sizes.pad(image))
    np.testing.assert_array_equal(cut, image)


DOMAINS = {
    "bytes": Domain("uint8", 3, **WHOLE),
    "gray": Domain("uint8", 1, (0.0,), (255.0,)),
    "range": Domain("uint8", 3, (0.0, 10.0, 0.0), (100.0, 200.0, 255.0)),
    "labels": Domain("labels", len(PALETTE.colors), palette=PALETTE),
    "numbers": Domain("labels", 4),
    "colours": Domain("label_colors", 3, **WHOLE, palette=PALETTE),
    "l": Domain("lab_l", 1, (0.0,), (100.0,)),
    "ab": Domain("lab_ab", 2, (-110.0,) * 2, (110.0,) * 2),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_pictures_mean_to_networks_what_they_mean_in_python(driver, name):
    domain = DOMAINS[name]
    if name in ("l", "ab"):
        pytest.importorskip("skimage")
    image, told = noise(24, 32, 3), page.describe(domain)
    image[:8] = np.array([*PALETTE.colors, *PALETTE.void])[noise(8, 32, low=0, high=len(PALETTE.colors) + 10)]
    given = image
    if name == "numbers":  # which are drawn in grays
        given = noise(24, 32, 1, low=0, high=4)
        image = np.array(told["colors"], np.uint8)[given[..., 0]]
    found = run(driver, "m.encode(m.prepared(p, given.domain), given.domain)", image, domain=told)
    expected = values.encode(given, domain)
    expected = domain.encode(expected) if expected.dtype == np.uint8 else expected
    np.testing.assert_allclose(found, expected, atol=1e-4 if name in ("l", "ab") else 1e-6)


@pytest.mark.parametrize("name", DOMAINS)
def test_what_networks_give_is_the_picture_that_it_is_in_python(driver, name):
    domain = DOMAINS[name]
    output = noise(24, 32, domain.channels, dtype=np.float32, low=-1.2, high=1.2)
    given = noise(24, 32, 3)
    if name in ("l", "ab"):
        pytest.importorskip("skimage")
        other = DOMAINS["ab" if name == "l" else "l"]
        expected = values.recombined(domain.decode(output), other.values(given), other, domain)
    elif domain.kind == "labels":
        colors = np.array(page.describe(domain)["colors"])
        expected = colors[domain.decode(output)[..., 0]]
    else:
        expected = domain.decode(output)
    code = "m.decode(p, given.domain, {...take(given.other), isLab: true})"
    found = run(driver, code, output, domain=page.describe(domain), other=sent(given))
    apart = np.abs(found - expected.astype(int))
    assert apart.max() <= (1 if name in ("l", "ab") else 0), apart.max()
    assert (apart > 0).mean() < 0.02
