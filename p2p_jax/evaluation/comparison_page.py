"""The page of a comparison: its table, and below it the same images for every config or run."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from p2p_jax.evaluation import comparison_table, finished_table, pages
from p2p_jax.storage.writing import write_text

_GIVEN = ("input", "target")


def write(path: Path, told: Mapping[str, Any], pictures: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Write the page in one step.

    Args:
      path: the HTML file.
      told: the report of ``comparison_table.report``.
      pictures: "NAME/seed_SEED" -> for each image its "name" and, as data URIs, "input", "output" and "target"; the
        same images for all.
    """
    data, names = told["data"], [row["name"] for row in told["configs"]]
    seeds = [seed for seed in told["seeds"] if any(f"{name}/seed_{seed}" in pictures for name in names)]
    by_name = {
        name: {seed: pictures[run] for seed in seeds if (run := f"{name}/seed_{seed}") in pictures} for name in names
    }
    options = "".join(f"<option>{seed}</option>" for seed in seeds)
    page = _page(
        told["configs"],
        comparison_table.cells(told),
        comparison_table.notes(told),
        told["size"][1],
        note=_note(data, list(pictures.values()), "translated by the last checkpoint of each run"),
        tools=f'<label>Seed <select id="seed">{options}</select></label>',
        pictures=_pictures(by_name) if pictures else "",
        alike="nothing but the steps",
    )
    write_text(path, page)


def write_runs(path: Path, told: Mapping[str, Any], pictures: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Write the page of finished runs in one step.

    Args:
      path: the HTML file.
      told: the report of ``finished_runs.compare_runs``.
      pictures: name of the run -> for each image its "name", data URIs "input", "output" and "target", and, if a metric
        is known for it, the "value" to write below the output; the same images for all.
    """
    page = _page(
        told["runs"],
        finished_table.cells(told),
        finished_table.notes(told),
        told["size"][1],
        note=_note(told["data"], list(pictures.values()), "translated by the checkpoint in the table"),
        tools="",
        pictures=_pictures({name: {None: images} for name, images in pictures.items()}),
        alike="no option",
    )
    write_text(path, page)


def _page(
    rows: Sequence[Mapping[str, Any]],
    cells: Sequence[Sequence[str]],
    notes: Sequence[str],
    width: int,
    *,
    note: str,
    tools: str,
    pictures: str,
    alike: str,
) -> str:
    names = [row["name"] for row in rows]
    apart = "".join(f"<dt>{escape(row['name'])}</dt><dd>{_options(row, names[0], alike)}</dd>" for row in rows[1:])
    return pages.fill(
        "comparison.html",
        ["report.css", "comparison.css"],
        ["comparison.js"],
        title=escape(" and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"),
        table=_table(cells),
        notes="".join(f"<li>{escape(note)}</li>" for note in notes),
        pictures_note=escape(note),
        tools=tools,
        side=str(min(max(width, 128), 512)),
        pictures=pictures,
        differences=f'<dl class="method">{apart}</dl>' if apart else "<p>There is one config.</p>",
    )


def _note(data: Mapping[str, Any], found: Sequence[Sequence[Mapping[str, str]]], translated: str) -> str:
    if not found:
        return "No run is done yet."
    note = f"{len(found[0])} of the {data['num_images']:,} images of {data['split']}, evenly spread, {translated}."
    if any(_given(images) != _given(found[0]) for images in found):
        note += " Inputs differ between runs, such as noise drawn from the seed: those of the first run are shown."
    return note


def _given(images: Sequence[Mapping[str, str]]) -> list[list[str | None]]:
    return [[image.get(key) for key in ("name", *_GIVEN)] for image in images]


def _table(cells: Sequence[Sequence[str]]) -> str:
    head, *rows = ([escape(text) for text in line] for line in cells)
    top = "".join(f'<th scope="col">{text}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{text}</td>" for text in others)}</tr>'
        for name, *others in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _pictures(by_name: Mapping[str, Mapping[int | None, Sequence[Mapping[str, str]]]]) -> str:
    """Return a row for every image: the input, and the outputs of each config or run, by seed.

    Args:
      by_name: name -> seed, or None for a single run -> images.
    """
    first = next(images for runs in by_name.values() for images in runs.values())
    given = [key for key in _GIVEN if key in first[0]]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("", *given, *by_name))
    rows = []
    for i, image in enumerate(first):
        cells = [_img(image[key], f"{key} of {image['name']}") for key in given]
        for name, runs in by_name.items():
            outputs = (
                _output(images[i], f"{image['name']} by {name}", seed)
                for seed, images in runs.items()
                if i < len(images)
            )
            cells.append("".join(outputs))
        columns = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(image["name"])}</th>{columns}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _output(image: Mapping[str, str], alt: str, seed: int | None) -> str:
    below = f"<small>{escape(image['value'])}</small>" if "value" in image else ""
    return _img(image["output"], alt if seed is None else f"{alt}, seed {seed}", seed) + below


def _img(uri: str, alt: str, seed: int | None = None) -> str:
    of_seed = "" if seed is None else f' data-seed="{seed}"'
    text = escape(alt)
    return f'<img src="{escape(uri)}" alt="{text}" title="{text}"{of_seed} draggable="false">'


def _options(row: Mapping[str, Any], first: str, alike: str) -> str:
    theirs = row.get("differs_from", {})  # of runs; configs have none
    options = [
        f"<code>{escape(f'{key}={value}')}</code>"
        + (f" ({escape(f'{first}: {theirs[key]}')})" if key in theirs else "")
        for key, value in row["differs"].items()
    ]
    return "<br>".join(options) or alike
