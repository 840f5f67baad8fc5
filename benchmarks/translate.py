"""Throughput of translation beside the bare network, and beside PyTorch.

    python -m benchmarks.translate [--network unet|resnet] [--size 256] [--batch 8] [--images 16] [--twins eager]

Each way translates the same images. The bare network is the compiled generator on one batch that already lies on the
device; ``Translator`` gets uint8 arrays, one image at a time and in batches; the command's own path reads and writes a
folder of PNGs or JPEGs. PyTorch gets uint8 arrays too: one at a time under the image's own statistics and with dropout,
as the PyTorch release does, which is the same work; and in batches under ``eval()``, as people do who hurry. They take
turns; the figures to trust are ratios, medians over rounds. Random weights of the published shapes, float32.
"""

import argparse
import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import turns
from benchmarks.experiments import make_config

OBJECTIVES = {"unet": "pix2pix", "resnet": "cyclegan"}
TWINS = ("eager", "best")
ONE, SAME = "one at a time", "PyTorch eager, one at a time"


def smooth_images(count: int, size: int) -> np.ndarray:
    """Return images [count, size, size, 3] uint8."""
    from PIL import Image

    small = np.random.RandomState(0).randint(0, 256, (count, 8, 8, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((size, size))) for x in small])


def write_run(config, workdir: Path) -> None:
    """Write what training would leave after its first step, but for the training."""
    import jax

    from p2p_jax.config import resolve, to_json
    from p2p_jax.config.options import image_shapes
    from p2p_jax.storage.writing import write_text
    from p2p_jax.training.saving import Checkpoints

    batch = {name: np.zeros((1, *shape), np.float32) for name, shape in image_shapes(config.data).items()}
    state = jax.jit(resolve(config.objective)(config).init)(jax.random.key(0), batch)
    checkpoints = Checkpoints(workdir, config)
    checkpoints.save(1, state, None)
    checkpoints.close()
    write_text(workdir / "config.json", to_json(config))


def _bare(config, images):
    """Return a function that runs only the network over as many images as it is told."""
    import jax
    import jax.numpy as jnp

    from p2p_jax.objectives import make_networks

    gen = make_networks(config)("generator", out_channels=3)
    x, rng = jnp.asarray(images, jnp.float32) / 127.5 - 1, jax.random.key(0)
    variables = jax.jit(functools.partial(gen.init, train=False))(rng, x[:1])

    @jax.jit
    def forward(variables, x):
        output, _ = gen.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": rng})
        return output

    def run(count):
        for _ in range(-(-count // len(images))):
            output = forward(variables, x)
        output.block_until_ready()

    return run


def _prepare_jax(args):
    import jax
    from PIL import Image

    from p2p_jax import Translator
    from p2p_jax.inference import files

    config = make_config(OBJECTIVES[args.network], args.size, width=args.width)
    images = smooth_images(args.images, args.size)
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_run(config, root / "run")
    one, several = (Translator.from_workdir(root / "run", batch_size=n) for n in (1, args.batch))
    jobs = {}
    for kind in ("png", "jpg"):
        jobs[kind] = [files.Job(root / f"{i}.{kind}", Path(f"{i}.{kind}")) for i in range(args.images)]
        for job, image in zip(jobs[kind], images, strict=True):
            Image.fromarray(image).save(job.source)

    def translate_folder(kind):
        with tempfile.TemporaryDirectory() as folder:
            found = [job._replace(target=Path(folder) / job.target) for job in jobs[kind]]
            files.translate_files(several, found)

    bare = {n: _bare(config, images[:n]) for n in {1, args.batch}}
    ways = {
        f"bare network, {ONE}": lambda: bare[1](args.images),
        f"bare network, batches of {args.batch}": lambda: bare[args.batch](args.images),
        f"Translator, {ONE}": lambda: [one(image) for image in images],
        f"Translator, batches of {args.batch}": lambda: several(images),
        "folder of PNGs": lambda: translate_folder("png"),
        "folder of JPEGs": lambda: translate_folder("jpg"),
    }
    device = jax.devices()[0]
    facts = {"platform": device.platform, "device": device.device_kind, "ways": list(ways)}
    return ways, facts


def _prepare_torch(args):
    from benchmarks import torch_steps

    device = torch_steps.find_device(args.platform)
    images = smooth_images(args.images, args.size)
    make = functools.partial(
        torch_steps.make_translator, OBJECTIVES[args.network], args.worker, args.size, device=device, width=args.width
    )
    one, several = make(), make(running=True)
    parts = [images[i : i + args.batch] for i in range(0, args.images, args.batch)]
    ways = {
        f"PyTorch {args.worker}, {ONE}": lambda: [one(image[None]) for image in images],
        f"PyTorch {args.worker}, batches of {args.batch} with eval()": lambda: [several(x) for x in parts],
    }
    return ways, {"ways": list(ways)}


def measure(args: argparse.Namespace) -> dict:
    """Run the workers and return what the benchmark reports."""
    given = ["benchmarks.translate", *(f"--{x}={getattr(args, x)}" for x in ("network", "size", "batch", "images"))]
    given += [f"--width={args.width}"]
    workers = {"jax": turns.Worker([*given, "--worker=jax"], turns.environment())}
    facts = workers["jax"].facts
    for twin in args.twins if facts else ():
        arguments = [*given, f"--worker={twin}", f"--platform={facts['platform']}"]
        workers[twin] = turns.Worker(arguments, turns.environment())
    ways = {way: (worker, way) for worker in workers.values() for way in worker.facts.get("ways", ())}
    answers = turns.take_turns(ways, args.repeats, warm_up=1)
    left_out = turns.end(workers)
    result = {
        "options": {name: value for name, value in vars(args).items() if name not in ("json", "worker", "platform")},
        "device": facts.get("device", "none"),
        "left_out": left_out,
        "ways": {},
    }
    for name, found in answers.items():
        seconds = turns.spread(answer["seconds"] for answer in found)
        result["ways"][name] = {"images_per_s": args.images / seconds["median"], "seconds": seconds}
        for kind, other in {"of_bare": f"bare network, batches of {args.batch}", "of_torch": SAME}.items():
            if other in answers:
                result["ways"][name][f"seconds_{kind}"] = turns.ratio(answers, name, other)
    return result


def tell(result: dict) -> None:
    """Print a result."""
    options = result["options"]
    print(f"{options['network']} {options['size']}x{options['size']}, {options['images']} images, {result['device']}")
    for name, way in result["ways"].items():
        print(f"  {name}: {way['images_per_s']:.4g} images/s")
        for kind, other in {"of_bare": "the bare network's in batches", "of_torch": f"that of {SAME}"}.items():
            if f"seconds_{kind}" in way:
                print(f"    time over {other}: {turns.told(way[f'seconds_{kind}'])}")
    for name, reason in result["left_out"].items():
        print(f"  {name} left out: {reason}")


def main() -> None:
    """Run the benchmark, or with ``--worker`` one process's side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=OBJECTIVES, default="unet")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=16, help="in a round")
    parser.add_argument("--width", type=int, default=64, help="channels of the network's first layer")
    parser.add_argument("--twins", default="eager", help=f"of {', '.join(TWINS)}, with commas; empty for only JAX")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; one more warms up")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=("jax", *TWINS), help=argparse.SUPPRESS)
    parser.add_argument("--platform", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.twins = [name for name in args.twins.split(",") if name]
    if args.worker:
        turns.serve(lambda: (_prepare_jax if args.worker == "jax" else _prepare_torch)(args))
        return
    result = measure(args)
    tell(result)
    turns.report(result, args.json)


if __name__ == "__main__":
    main()
