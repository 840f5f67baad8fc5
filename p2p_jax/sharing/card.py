"""The card of a model on a hub: its README, written from the description in the model file."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TAGS = ("p2p_jax", "image-to-image", "jax", "flax", "gan")
# The licences that the hub knows; others need a name, and a link or a text with it.
# fmt: off
LICENCES = frozenset((
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "bsl-1.0", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5",
    "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc0-1.0", "creativeml-openrail-m", "ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl",
    "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by",
    "ofl-1.1", "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql", "unlicense", "unknown", "wtfpl",
    "zlib",
))
# fmt: on
_FEW = 50  # images, below which a measurement says little


def write_card(
    about: Mapping[str, Any], name: str, filename: str, digest: str, megabytes: float, pictures: Sequence[str] = ()
) -> str:
    """Return the text of a card, in Markdown with what a hub reads at its head.

    Args:
      about: the description in the model file, see ``model_file.SUBJECTS``; with a licence.
      name: of the repository, "user/name".
      filename: of the model file in it.
      digest: of the file.
      megabytes: its size.
      pictures: files of the repository that are shown.
    """
    model = about["model"]
    objective = str(model.get("objective", "")).rpartition(":")[2]
    ways = [f"`{way}`" for way in model["directions"]]
    sides = ("input", "output") if model.get("direction") in (None, *model["directions"]) else ("output", "input")
    given = about["domains"].get(sides[0])
    dtype = str(given.get("dtype", "")) if isinstance(given, Mapping) else ""
    lines = [
        *_front_matter(about["licence"]["name"], [*_TAGS, objective] if objective.isidentifier() else list(_TAGS)),
        "",
        f"# {_text(name.partition('/')[2])}",
        "",
        f"Image-to-image translation, trained with {_code(objective)} of [p2p_jax]"
        f"(https://github.com/p2p-jax/p2p-jax): direction {' and '.join(ways)}, from {_domain(about, sides[0])} to "
        f"{_domain(about, sides[1])}{'' if len(ways) == 1 else ', and back'}.",
        "",
        "## Use",
        "",
        "```bash",
        "pip install 'p2p_jax[hub] @ git+https://github.com/p2p-jax/p2p-jax'",
        "```",
        "```python",
        "from p2p_jax import Translator",
        "",
        f'translator = Translator.from_pretrained("{name}")',
        f"translation = translator(image)  # {dtype if dtype.isalnum() else ''} [H, W, C], or several: [N, H, W, C]",
        "```",
        "",
        *_pictures(pictures),
        "## Training data",
        "",
        *_data(about),
        "",
        "## Measured",
        "",
        *_metrics(about["metrics"].get("found", [])),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in _limits(about)),
        "",
        "## The file",
        "",
        f"{_code(filename)}, {megabytes:.1f} MB: {int(model.get('num_parameters', 0)):,} weights in "
        f"{_code(model.get('dtype', 'float32'))}, {_weights(model)} after step {model['step']:,}. It is data "
        f"(safetensors); opening it runs no code. SHA-256 of its contents: {_code(digest)}.",
    ]
    return "\n".join(lines) + "\n"


def _front_matter(licence: str, tags: Sequence[str]) -> list[str]:
    known = licence.lower() in LICENCES
    named = [f"license: {json.dumps(licence.lower())}"] if known else ["license: other"]
    named += [] if known else [f"license_name: {json.dumps(licence)}"]
    listed = [f"- {json.dumps(tag)}" for tag in tags]
    return ["---", *named, "library_name: p2p_jax", "pipeline_tag: image-to-image", "tags:", *listed, "---"]


def _domain(about: Mapping[str, Any], side: str) -> str:
    found = about["domains"].get(side)
    found = found if isinstance(found, Mapping) else {}
    kind, channels = found.get("kind", "?"), found.get("channels", "?")
    if kind == "labels":
        return f"maps of {_text(channels)} labels"
    if kind == "uint8":
        return "pictures" if channels == 3 else f"pictures of {_text(channels)} channels"
    return f"images of the kind {_code(kind)} with {_text(channels)} channels"


def _pictures(pictures: Sequence[str]) -> Iterator[str]:
    if pictures:
        yield from ("## Samples", "")
        yield from (f"![sample]({picture})" for picture in pictures)
        yield ""


def _data(about: Mapping[str, Any]) -> Iterator[str]:
    data = about["data"]
    counts = data.get("images")
    counts = counts if isinstance(counts, Mapping) else {}
    yield f"- source: {_code(data.get('source', 'unknown'))}"
    if counts:
        yield "- images: " + ", ".join(f"{_text(_number(count))} of {_code(split)}" for split, count in counts.items())
    elif data.get("num_train"):
        yield f"- training images: {_text(_number(data['num_train']))}"
    else:
        yield "- the number of images is not known"
    yield "- the licence of the images is not known to the library: check their source"


def _metrics(found: Sequence[Any]) -> Iterator[str]:
    rows = [row for told in found if isinstance(told, Mapping) for row in _rows(told)]
    if not rows:
        yield "No measurements of these weights are known."
        return
    yield from ("| metric | value | between images | images (N) | of | measured by |", "|---|---|---|---|---|---|")
    yield from rows
    yield ""
    yield "Values come from validation during training or from `p2p-jax evaluate`, with these weights in float32."


def _rows(told: Mapping[str, Any]) -> Iterator[str]:
    count, split, by = told.get("num_images"), told.get("split", ""), told.get("by", "")
    ends = [_text(_number(count)) or "not known", _code(split), f"{_text(by)}, {_text(told.get('seen', ''))}"]
    ends[1] += f", {_text(told['direction'])}" if told.get("direction") else ""
    metrics, sets = told.get("metrics"), told.get("set_metrics")
    for name, value in (metrics if isinstance(metrics, Mapping) else {}).items():
        value = value if isinstance(value, Mapping) else {}
        yield _row([_code(name), _text(_number(value.get("mean"))), _text(_number(value.get("std"))), *ends])
    for name, parts in (sets if isinstance(sets, Mapping) else {}).items():
        for part, value in (parts if isinstance(parts, Mapping) else {}).items():
            yield _row([f"{_code(name)} {_text(part)}", _text(_number(value)), "", *ends])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _limits(about: Mapping[str, Any]) -> Iterator[str]:
    model, data, config = about["model"], about["data"], about["config"]
    crop = data.get("crop")
    if isinstance(crop, list) and len(crop) == 2:
        yield f"Trained on images of {_text(crop[1])}x{_text(crop[0])} pixels (width x height); takes other sizes too."
    yield "It works on the kind of images that it was trained on; results on others are meaningless."
    steps = config.get("num_steps")
    if isinstance(steps, int) and model["step"] < steps:
        yield f"Training was planned for {steps:,} steps; these weights are from step {model['step']:,}."
    found = [told for told in about["metrics"].get("found", []) if isinstance(told, Mapping)]
    counts = [told["num_images"] for told in found if isinstance(told.get("num_images"), int)]
    if counts and max(counts) < _FEW:
        yield f"It was measured on at most {max(counts)} images, too few to say much about others."
    if not found:
        yield "Its quality was not measured."
    if (config.get("inference") or {}).get("norm") == "batch":
        yield "Norm layers use the statistics of the image itself: tiles of an image do not give the same as the whole."
    yield "The file holds no discriminators and no optimizer state: resume training from the run's directory."


def _weights(model: Mapping[str, Any]) -> str:
    return "the average of the generators" if model["weights"] == "average" else "the generators as they were"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _text(value: Any) -> str:
    """Return text of a file with its markup escaped; the file may be a stranger's."""
    plain = "".join(x if x.isprintable() else " " for x in str(value))[:200]
    return re.sub(r"([\\`*_{}\[\]<>#|!~])", r"\\\1", plain)


def _code(value: Any) -> str:
    plain = "".join(x if x.isprintable() and x not in "`|" else " " for x in str(value))[:200].strip()
    return f"`{plain or '?'}`"
