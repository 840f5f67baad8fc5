"""The page of a comparison: its table, and below it the same validation images through every config."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from p2p_jax.evaluation import comparison_table, pages
from p2p_jax.storage.writing import write_text

_GIVEN = ("input", "target")


def write(path: Path, told: Mapping[str, Any], pictures: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Write the page, in one step.

    Args:
      path: the HTML file.
      told: what ``comparison_table.report`` returns.
      pictures: "NAME/seed_SEED" -> for each image its "name" and, as data URIs, "input", "output" and "target"; the
        same images for all.
    """
    data, names = told["data"], [row["name"] for row in told["configs"]]
    seeds = [seed for seed in told["seeds"] if any(f"{name}/seed_{seed}" in pictures for name in names)]
    apart = "".join(f"<dt>{escape(row['name'])}</dt><dd>{_options(row['differs'])}</dd>" for row in told["configs"][1:])
    page = pages.fill(
        "comparison.html",
        ["report.css", "comparison.css"],
        ["comparison.js"],
        title=escape(" and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"),
        table=_table(comparison_table.cells(told)),
        notes="".join(f"<li>{escape(note)}</li>" for note in comparison_table.notes(told)),
        pictures_note=escape(_note(data, pictures)),
        seeds="".join(f"<option>{seed}</option>" for seed in seeds),
        side=str(min(max(told["size"][1], 128), 512)),
        pictures=_pictures(names, seeds, pictures),
        differences=f'<dl class="method">{apart}</dl>' if apart else "<p>There is one config.</p>",
    )
    write_text(path, page)


def _note(data: Mapping[str, Any], pictures: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    found = list(pictures.values())
    if not found:
        return "No run is done yet."
    note = f"{len(found[0])} of the {data['num_images']:,} images of {data['split']}, evenly over them, as the last "
    note += "checkpoint of each run translates them."
    if any(_given(images) != _given(found[0]) for images in found):
        note += " Not all runs were given the same, such as noise that the seed draws: what the first one got is shown."
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


def _pictures(names: Sequence[str], seeds: Sequence[int], pictures: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """Return a row for every image: what was given, and what each config makes of it, seed by seed."""
    if not pictures:
        return ""
    first = next(iter(pictures.values()))
    given = [key for key in _GIVEN if key in first[0]]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("", *given, *names))
    rows = []
    for i, image in enumerate(first):
        cells = [_img(image[key], f"{key} of {image['name']}") for key in given]
        for name in names:
            runs = {seed: pictures[run] for seed in seeds if (run := f"{name}/seed_{seed}") in pictures}
            outputs = (
                _img(found[i]["output"], f"{image['name']} by {name}, seed {seed}", seed)
                for seed, found in runs.items()
                if i < len(found)
            )
            cells.append("".join(outputs))
        columns = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(image["name"])}</th>{columns}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _img(uri: str, alt: str, seed: int | None = None) -> str:
    of_seed = "" if seed is None else f' data-seed="{seed}"'
    text = escape(alt)
    return f'<img src="{escape(uri)}" alt="{text}" title="{text}"{of_seed} draggable="false">'


def _options(differs: Mapping[str, Any]) -> str:
    options = "<br>".join(f"<code>{escape(f'{key}={value}')}</code>" for key, value in differs.items())
    return options or "nothing but the steps"
