"""Compares trained runs: their options and costs, and their results on the same held-out images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2p_jax.config import flat
from p2p_jax.config.stored import Trust
from p2p_jax.data import Split, load_split
from p2p_jax.data.elsewhere import with_data_dir
from p2p_jax.data.identity import same_contents
from p2p_jax.data.splits import split_meant
from p2p_jax.data.spread import evenly
from p2p_jax.errors import InputError
from p2p_jax.evaluation import budgets, comparison_page, finished_table, results, seen
from p2p_jax.evaluation.gallery import data_uri
from p2p_jax.evaluation.predictions import translations
from p2p_jax.evaluation.protocol import knowing
from p2p_jax.evaluation.scoring import score, shown
from p2p_jax.evaluation.series import changed
from p2p_jax.inference import Translator
from p2p_jax.inference.run import Run, open_run
from p2p_jax.reporting import say
from p2p_jax.storage.lock import locked
from p2p_jax.storage.writing import write_text
from p2p_jax.training import metrics_file
from p2p_jax.training.cost import measure

FILES = ("table.json", "table.md", "comparison.html")
"""Files that are written."""
_PLACES = ("data.dir", "data.dir_a", "data.dir_b", "data.train_split")  # may differ if the images are the same


def compare_runs(
    workdirs: Sequence[str | Path],
    output: str | Path,
    *,
    checkpoint: str | int = "latest",
    split: str | None = None,
    data_dir: str | None = None,
    num_images: int = 12,
    trust: Trust = (),
) -> dict[str, Any]:
    """Compare runs as they are, finished or stopped; nothing is trained, and no run is changed.

    Args:
      workdirs: directories of two or more runs, with equal data, direction and size.
      output: folder for ``table.md``, ``table.json`` and ``comparison.html``; made if missing.
      checkpoint: checkpoint of each run: "latest", "best" by its own ``best_metric``, or a step.
      split: split to compare on; by default the ``data.val_split`` that all share.
      data_dir: the folder of the data set, if it is no longer where the runs' configs say.
      num_images: largest number of images on the page, spread evenly over the split; metrics use all images.
      trust: code outside the library that the configs may name, "module:name".

    Returns:
      The content of ``table.json``.

    Raises:
      InputError: a directory is not a run, or the runs' data cannot be compared: names two runs and the option that
        differs.
    """
    folders, output = [Path(workdir) for workdir in workdirs], Path(output)
    if num_images < 1:
        raise InputError(f"num_images={num_images}: must be at least 1")
    names = names_of(folders)
    _refuse_output(output, folders)
    runs = {}
    for name, folder in zip(names, folders, strict=True):
        run = open_run(folder, checkpoint, trust=trust)
        runs[name] = run._replace(config=with_data_dir(run.config, data_dir, run.config_file))
    split = _common_split(runs, split)
    splits = _opened(runs, split, moved=data_dir is not None)
    first = next(iter(splits.values()))
    chosen = evenly(range(len(first.names[0])), num_images)
    with locked(output, "output"):
        rows, pictures = [], {}
        for name, run in runs.items():
            say(f"{name}: step {run.step:,} over {max(map(len, first.names)):,} images of {split}")
            row, pictures[name] = _measured(run, str(checkpoint), split, splits[name], chosen)
            rows.append({"name": name} | row | _differences(runs[names[0]], run))
        data = next(iter(runs.values())).config.data
        told = {
            "data": {
                "source": data.source,
                "dir": data.dir,
                "split": split,
                "num_images": max(map(len, first.names)),
                "seen": seen.in_evaluation(first, data),
            },
            "size": [data.crop_size, data.crop_width or data.crop_size],
            "runs": rows,
        }
        write_text(output / FILES[0], json.dumps(told, indent=2) + "\n")
        write_text(output / FILES[1], finished_table.markdown(told))
        comparison_page.write_runs(output / FILES[2], told, pictures)
    return told


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return short names of runs: the last folders of their paths, as few as distinguish them.

    Raises:
      InputError: there are fewer than two, or one occurs twice.
    """
    places = [folder.resolve() for folder in folders]
    twice = [folder for i, folder in enumerate(folders) if places[i] in places[:i]]
    if twice:
        raise InputError(f"{twice[0]} is given twice: name two different runs")
    if len(folders) < 2:
        raise InputError("name two runs or more: use the verb evaluate for one")
    for count in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-count:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names


def _refuse_output(output: Path, folders: Sequence[Path]) -> None:
    """Check that no run, and no comparison of another kind, is overwritten."""
    for folder in folders:
        if output.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"output={output} is inside the run {folder}: name another folder")
    if (output / "runs.csv").exists():
        raise InputError(f"output={output} holds a comparison of configs: name another folder")


def _common_split(runs: Mapping[str, Run], split: str | None) -> str:
    """Return the split to compare on, if the configs of all runs describe the same images."""
    (first, one), *others = runs.items()
    free = (*_PLACES, *(["data.val_split"] if split else []))
    for name, other in others:
        budgets.refuse_other_images(first, one.config, name, other.config, free)
    asked = split_meant(one.config.data, split)
    if not asked:
        raise InputError("the runs were trained without validation: name the split to compare on with `split`")
    return asked


def _opened(runs: Mapping[str, Run], split: str, *, moved: bool) -> dict[str, Split]:
    """Open the split of every run, if all have the same images."""
    splits = {name: load_split(run.config, split) for name, run in runs.items()}
    first = next(iter(splits))
    for name, opened in splits.items():
        alike = moved or _trained_alike(runs[first], runs[name], split)
        if opened.fingerprint != splits[first].fingerprint or not alike:
            places = " and ".join(f"{runs[run].config.data.dir} ({run})" for run in (first, name))
            raise InputError(
                f"{first} and {name} have different images of {split} and cannot be compared: those of {places}. If "
                "one folder holds the images of both, name it with `data_dir`"
            )
    return splits


def _trained_alike(one: Run, other: Run, split: str) -> bool:
    """Return whether two runs found the same images in a split, as far as both have checked them."""
    found = [run.facts.get("images", {}).get(split) for run in (one, other)]
    return None in found or same_contents(*(images["contents"] for images in found))


def _measured(
    run: Run, checkpoint: str, split: str, opened: Split, chosen: Sequence[int]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return the row of a run, and its pictures with the best metric of each."""
    run = knowing(run, opened)
    translator = Translator(run, batch_size=8)
    identity = results.identify(run, translator, checkpoint, split, opened)
    scored = results.tell(identity, run.config, score(run, translator, opened, None, None), [], {})
    pictures = []
    for place, prediction in zip(chosen, translations(translator, opened, chosen), strict=True):
        columns = {name: data_uri(image) for name, image in shown(translator, prediction).items()}
        value = scored["images"][place].get(run.config.best_metric)
        told = {} if value is None else {"value": f"{run.config.best_metric} {value:.4g}"}
        pictures.append({"name": prediction.name} | columns | told)
    history = run.workdir / "metrics.csv"
    evaluated = metrics_file.evaluations(history) if history.exists() else {}
    best = metrics_file.best(evaluated.get(run.config.best_metric, []), run.config.best_mode)
    return {
        "run": str(run.workdir),
        "objective": run.config.objective.removeprefix("p2p_jax:"),
        "step": run.step,
        "num_steps": run.config.num_steps,
        "weights": run.weights,
        "checkpoint_id": scored["checkpoint_id"],
        "parameters": scored["num_parameters"],
        **_spent(run),
        "init_from": run.config.init_from,
        "metrics": scored["metrics"],
        "described": scored["described"],
        "best_metric": run.config.best_metric,
        "best_mode": run.config.best_mode,
        "best": None if best is None else {"step": best[0], "value": best[1]},
    }, pictures


def _spent(run: Run) -> dict[str, Any]:
    """Return the multiply-adds of a run's steps so far, and their uncertainties."""
    try:
        cost = measure(changed(run.config, {"num_steps": max(run.step, 1)}))
    except InputError as error:
        return {"multiply_adds": None, "doubts": [f"multiply-adds are not known: {error}"]}
    return {"multiply_adds": run.step * cost.step, "doubts": list(cost.doubts)}


def _differences(first: Run, run: Run) -> dict[str, dict[str, Any]]:
    """Return the options of a run that differ from the first one's, its own values and the first one's."""
    ours, theirs = flat(first.config.to_dict()), flat(run.config.to_dict())
    differs = {key: value for key, value in theirs.items() if ours.get(key) != value and key not in _PLACES}
    return {"differs": differs, "differs_from": {key: ours.get(key) for key in differs}}
