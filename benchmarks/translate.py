"""Throughput of translation beside that of the bare network at the same batch size.

    python -m benchmarks.translate [--size 64] [--batch 8] [--images 1000] [--network unet|resnet] [--repeats 5]

The bare network is the compiled generator on one batch that already lies on the device, as often as there are images.
``Translator`` gets the images as one uint8 array; the command's own path reads and writes a folder of PNGs or JPEGs.
They take turns; the figure to trust is the ratio of each to the bare network's throughput: the median over rounds.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from p2p_jax import Translator, load_config, train
from p2p_jax.config import complete
from p2p_jax.inference import files
from p2p_jax.objectives import make_networks


def _config(args):
    config = load_config("facades" if args.network == "unet" else "horse2zebra")
    config.data.source = "toy_facades" if args.network == "unet" else "toy_unpaired"
    config.data.load_size = config.data.crop_size = args.size
    if args.network == "unet":
        config.generator.num_downs = min(8, args.size.bit_length() - 1)
    config.num_steps = 1
    config.data.val_split = ""
    return complete(config)


def _bare(config, images):
    """Return a function that runs the network alone over as many images as there are."""
    gen = make_networks(config)("generator", out_channels=3)
    x = jnp.asarray(images, jnp.float32) / 127.5 - 1
    rng = jax.random.key(0)
    variables = gen.init(rng, x[:1], train=False)

    @jax.jit
    def forward(variables, x):
        output, _ = gen.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": rng})
        return output

    def run(count):
        for _ in range(-(-count // len(images))):
            output = forward(variables, x)
        output.block_until_ready()

    return run


def _translate_folder(translator, jobs):
    with tempfile.TemporaryDirectory() as folder:
        files.translate_files(translator, [job._replace(target=Path(folder) / job.target.name) for job in jobs])


def _timed(function, *args):
    started = time.perf_counter()
    function(*args)
    return time.perf_counter() - started


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--network", choices=["unet", "resnet"], default="unet")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    config = _config(args)
    smooth = np.random.RandomState(0).randint(0, 256, (args.images, 8, 8, 3), np.uint8)
    images = np.stack([np.asarray(Image.fromarray(x).resize((args.size, args.size))) for x in smooth])
    bare = _bare(config, images[: args.batch])
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run")
        translator = Translator.from_workdir(Path(folder) / "run", batch_size=args.batch)
        jobs = {}
        for kind in ("png", "jpg"):
            jobs[kind] = [files.Job(Path(folder) / f"{i}.{kind}", Path(f"{i}.{kind}")) for i in range(args.images)]
            for job, image in zip(jobs[kind], images, strict=True):
                Image.fromarray(image).save(job.source)
        ways = {
            "bare network": lambda: bare(args.images),
            "Translator on an array": lambda: translator(images),
            "folder of PNGs": lambda: _translate_folder(translator, jobs["png"]),
            "folder of JPEGs": lambda: _translate_folder(translator, jobs["jpg"]),
        }
        bare(args.batch)  # compiles
        translator(images[: args.batch])
        times = [{name: _timed(way) for name, way in ways.items()} for _ in range(args.repeats)]
    print(
        f"{args.network} {args.size}x{args.size}, batch {args.batch}, {args.images} images, "
        f"{jax.devices()[0].device_kind}"
    )
    results = {}
    for name in ways:
        seconds = [t[name] for t in times]
        ratios = np.percentile([t["bare network"] / t[name] for t in times], [50, 25, 75])
        results[name] = {"images_per_s": args.images / float(np.median(seconds)), "of_bare": ratios.tolist()}
        print(
            f"  {name}: {results[name]['images_per_s']:.4g} images/s, {ratios[0]:.3f} of the bare network's throughput "
            f"(quartiles {ratios[1]:.3f} to {ratios[2]:.3f})"
        )
    if args.json:
        args.json.write_text(json.dumps({"options": {**vars(args), "json": None}, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
