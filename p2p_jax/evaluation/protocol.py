"""The evaluation of a run: its metrics and images, whole or in parts, and its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from p2p_jax.config import stored, with_facts
from p2p_jax.config.stored import Trust
from p2p_jax.data import Split, load_split
from p2p_jax.data.elsewhere import with_data_dir
from p2p_jax.data.splits import as_split, split_meant
from p2p_jax.errors import InputError
from p2p_jax.evaluation import parts, set_metrics
from p2p_jax.evaluation.gallery import Gallery
from p2p_jax.evaluation.kept_pictures import Scratch
from p2p_jax.evaluation.passing import Passing, refuse_parts
from p2p_jax.evaluation.results import identify, tell, write
from p2p_jax.evaluation.scoring import score
from p2p_jax.images.domains import of_config
from p2p_jax.inference import Translator
from p2p_jax.inference.run import Run, open_run
from p2p_jax.objectives import make_objective
from p2p_jax.reporting import say
from p2p_jax.storage.lock import locked

_TURN = 600.0  # seconds to wait for another evaluation to write its results


def evaluate(
    workdir: str | Path,
    *,
    split: str | None = None,
    metrics: Sequence[str] | None = None,
    checkpoint: str | int = "latest",
    direction: str | None = None,
    norm: str | None = None,
    dropout: bool | None = None,
    data_dir: str | None = None,
    segmenter: str | None = None,
    palette: str | None = None,
    label_ids: str | Path | None = None,
    inception: str | Path | None = None,
    features: str | None = None,
    output: str | Path | None = None,
    data: Any = None,
    whole: bool = True,
    tile: int | None = None,
    shard: str | None = None,
    merge: bool = False,
    trust: Trust = (),
    raw: bool = False,
) -> dict[str, Any]:
    """Evaluate a run on every image of a split.

    Memory does not grow with the number of images. With `shard`, several processes can each compute a part; merged, the
    parts equal the result of one process.

    Args:
      workdir: directory of the run, or its model file.
      split: such as "test"; by default the config's ``data.val_split``.
      metrics: some of ``METRICS``; by default "histogram" if scikit-image is installed, and "fcn" if a `segmenter` is
        given.
      checkpoint: "latest", "best" or a step.
      direction: "AtoB" or "BtoA", for the metrics of whole sets; see ``Translator.from_workdir``.
      norm: "batch" or "running"; by default as stored.
      dropout: keep the noise of training; by default as stored.
      data_dir: the folder of the data set, if it is no longer where the config says.
      segmenter: for "fcn": "module:name" of a function ``uint8 [N, H, W, 3] -> int labels [N, H, W]``, or a directory
        made by ``python -m p2p_jax segmenter``.
      palette: for "fcn" and "labels": the colours of the label maps, see ``palettes.find_palette``; by default the
        segmenter's, or detected.
      label_ids: for "fcn" and "labels": class numbers instead of colours, see ``GroundTruth``; numbers that are not a
        class are not scored.
      inception: for "fid" and "distances": a file with Inception's weights, if they cannot be downloaded.
      features: for "distances": "inception", "segmenter:FOLDER" or "module:name"; by default those of the run's
        validation (``config.distances``).
      data: images instead of those of the config's data set, for a run trained on data that was given to ``train``: a
        ``Source`` (``from_arrays(a, b)``), ``Unpaired``, ``Split``, or the validation set of a ``Data``.
      whole: evaluate whole images if training uses crops; False: the centre crop of each image, as in validation during
        training.
      tile: translate whole images with a longer side in tiles, see ``Translator.from_workdir``.
      output: a folder for ``results.json``, ``images.csv`` and ``report.html``, and for temporary files. Without it
        these are in the system's temporary folder.
      shard: such as "2/8": evaluate every eighth image, from the second on, and write only a part of the results, into
        ``output/parts``.
      merge: merge the parts in ``output/parts``. All other arguments must equal those of the parts.
      trust: code outside the library that the run's config may name, "module:name"; see ``Translator.from_workdir``.
      raw: use the generators as they were after the step, if the run has an average of them.

    Returns:
      The content of ``results.json``: ``metrics`` (mean, standard deviation and count of every per-image metric, and
      the count of infinite values, which are not in the mean),
      ``set_metrics`` (of all images together), ``images`` (a row per image), and what was evaluated. In pairs whose
      outputs are uint16, int16 or floats there are also ``mae_units``, ``rmse_units`` and ``bias_units``, errors in
      their own units, also by channel (``mae_units_1``) where channels have different ranges.
      With `shard`, the facts of the evaluation, the rows of its ``images``, and the file of the ``part``.

    Raises:
      InputError: the run, split or metric does not exist, something for a metric is missing, or parts do not fit
        together.
    """
    if output is not None and not Path(output).is_dir() and Path(output).exists():
        raise InputError(f"output={output} is a file; name a folder")
    part = None if shard is None else parts.read_shard(shard)
    if part and merge:
        raise InputError(f"shard={shard} makes a part, and `merge` merges all parts: give one of them")
    if output is None and (part or merge):
        raise InputError("`shard` and `merge` need `output`, the folder of the parts")
    run = open_run(workdir, checkpoint, norm, dropout, trust=trust, raw=raw)
    if data is None:
        run = run._replace(config=with_data_dir(run.config, data_dir, run.config_file))
    split = (split or "given") if data is not None else split_meant(run.config.data, split)
    if not split:
        raise InputError(f"{workdir} was trained without validation: name the split to evaluate with `split`")
    translator = Translator(run, direction=direction, tile=tile)
    places = part.places if part else (0, 1)
    if data is None:
        opened = load_split(run.config, split, whole=whole, shard=places)
        _compare_images(run, split, opened)
    else:
        opened = as_split(data, run.config, paired=len(translator.directions) == 1, whole=whole, shard=places)
    run, as_trained = knowing(run, opened), run
    if run is not as_trained:
        translator = Translator(run, direction=direction, tile=tile)
    if features is None and "distances" in (metrics or ()):
        stored.tell_places(run.config, run.config_file, "distances")
    asked, judge = set_metrics.prepare(
        opened,
        of_config(run.config.data),
        metrics=metrics,
        forward=translator.direction == run.config.data.direction,
        segmenter=segmenter,
        palette=palette,
        label_ids=label_ids,
        **set_metrics.features_of(run.config, features, inception),
    )

    if part or merge:
        refuse_parts(asked, metrics)
    num_rows = max(map(len, opened.names))
    if part and part.total > num_rows:
        raise InputError(f"shard={part}: there are {num_rows} images, so use at most {num_rows} parts")

    identity = identify(run, translator, checkpoint, split, opened)
    weights = None if inception is None else Path(inception)
    if output is None:
        with Scratch(None) as scratch:
            passing = Passing(asked, judge, weights, scratch) if asked else None
            rows = score(run, translator, opened, passing, None)
            return tell(identity, run.config, rows, asked, passing.results() if passing else {})
    folder, gallery = Path(output), Gallery(num_rows)
    common = parts.identity_of(identity, opened, asked, tile=tile, label_ids=label_ids, **_named(judge, segmenter))
    with Scratch(folder) as scratch:
        passing = Passing(asked, judge, weights, scratch) if asked else None
        if merge:
            rows = parts.merge(folder, common, num_rows, gallery, passing, scratch.folder)
        else:
            rows = score(run, translator, opened, passing, gallery)
        if part:
            path = parts.write(folder, part, common, rows, gallery, passing, scratch.folder)
            return identity | {"shard": str(part), "part": str(path), "images": rows}
        found = tell(identity, run.config, rows, asked, passing.results() if passing else {})
        with locked(folder, "output", wait=_TURN):  # keep the files of two evaluations apart
            write(folder, found, gallery, Path(workdir) / "metrics.csv")
    return found


def knowing(run: Run, opened: Split) -> Run:
    """Return a run that handles unknown values in a split, even if its training images had none."""
    if not any(opened.nodata.values()):
        return run
    config = with_facts(run.config, opened.nodata)
    return run._replace(config=config, objective=make_objective(config))


def _named(judge: set_metrics.Judge, segmenter: str | None) -> dict[str, Any]:
    """Return the identity of a segmenter and of the palette of labels."""
    palettes = [truth.palette for truth in (judge.inputs, judge.targets) if truth is not None]
    looked_at = judge.features
    return {
        "features": None if looked_at is None else " ".join([looked_at.name, looked_at.digest]).strip(),
        "segmenter": getattr(judge.segmenter, "digest", segmenter if judge.segmenter is not None else None),
        "palette": [[list(palette.names), palette.colors.tolist()] for palette in palettes],
    }


def _compare_images(run: Run, split: str, opened: Split) -> None:
    """Print a note if the images of a split differ from those at training."""
    whole = run.facts.get("fingerprint", "")
    begun = dict(zip((run.config.data.train_split, run.config.data.val_split), whole.split("-"), strict=False))
    if split in begun and begun[split] not in ("", opened.fingerprint):
        say(f"note: the images of {split} have changed since the run was trained")
