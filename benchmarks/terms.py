"""Time a training step with each of the terms beyond the papers beside the published step.

    python -m benchmarks.terms [--objective pix2pix|cyclegan] [--size 256] [--width 64] [--batch 1] [--rounds 10]
        [--terms "hinge;R1"] [--json FILE]

All steps are compiled in one process and take turns, so that the ratio of a round is of the same minute. Beside each
ratio stand the multiply-adds of a step, counted in its trace, as a ratio too.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import turns
from benchmarks.experiments import OBJECTIVES, make_config

INSTANCE: dict[str, Any] = {"discriminator.norm": "instance"}
TERMS: dict[str, dict[str, Any]] = {
    "published": {},
    "hinge": {"loss.gan": "hinge"},
    "relativistic": {"loss.gan": "relativistic"},
    "discriminator with instance norm": INSTANCE,
    "R1": {"loss.r1_gamma": 1.0, **INSTANCE},
    "R1 + R2": {"loss.r1_gamma": 1.0, "loss.r2_gamma": 1.0, **INSTANCE},
    "R1 + R2, every 16th step": {"loss.r1_gamma": 1.0, "loss.r2_gamma": 1.0, "loss.penalty_every": 16, **INSTANCE},
    "zero-centred penalty": {"loss.lambda_gp": 1.0, **INSTANCE},
    "translation": {"loss.diff_augment": "translation"},
    "translation, cutout": {"loss.diff_augment": "translation,cutout"},
    "color": {"loss.diff_augment": "color"},
    "EMA": {"ema.decay": 0.999},
    "spectral norm": {"discriminator.spectral_norm": True, "discriminator.norm": "none"},
    "clipping": {"gradients.clip": "global_norm"},
    "accumulation of 2": {"gradients.accumulate": 2},
}


def config_of(args: argparse.Namespace, term: str):
    """Return the experiment with a term."""
    from p2p_jax.config import complete_experiment

    config = make_config(args.objective, args.size, args.batch, width=args.width).to_dict()
    for option, value in TERMS[term].items():
        section, key = option.split(".")
        config[section] = {**config[section], key: value}
    return complete_experiment(config)


def measure(args: argparse.Namespace) -> dict:
    """Return the ratios to the published step, of seconds and of multiply-adds."""
    import jax

    from benchmarks.train_step import jax_step
    from p2p_jax.process import freed_memory
    from p2p_jax.training import cost

    freed_memory.keep_freed_memory()
    names = ["published", *(name for name in args.terms if name != "published")]
    configs = {name: config_of(args, name) for name in names}
    steps = {name: jax_step(config) for name, config in configs.items()}
    # A lazy term falls into few steps: as many are timed as make one period.
    lengths = {name: config.loss.penalty_every for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(args.rounds + 2):  # two rounds compile and warm up
        for name, (dispatch, wait) in steps.items():
            start = time.perf_counter()
            for _ in range(lengths[name]):
                dispatch()
            wait()
            if i > 1:
                seconds[name].append((time.perf_counter() - start) / lengths[name])
    multiply_adds = {name: cost.measure(config).step for name, config in configs.items()}
    published = np.array(seconds["published"])
    return {
        "options": {name: value for name, value in vars(args).items() if name != "json"},
        "device": jax.devices()[0].device_kind,
        "published": {"seconds": turns.spread(published), "gmac": multiply_adds["published"] / 1e9},
        "ratios": {
            name: {
                "seconds": turns.spread(np.array(found) / published),
                "gmac": multiply_adds[name] / multiply_adds["published"],
            }
            for name, found in seconds.items()
            if name != "published"
        },
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objective", choices=OBJECTIVES, default="pix2pix")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--width", type=int, default=64, help="channels of the first layer of every network")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10, help="two more warm up")
    parser.add_argument("--terms", default="all", help="names with semicolons, or all")
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    args = parser.parse_args()
    args.terms = list(TERMS) if args.terms == "all" else [name.strip() for name in args.terms.split(";")]
    if unknown := set(args.terms) - set(TERMS):
        parser.error(f"--terms: there is no {', '.join(sorted(unknown))}; choose of {'; '.join(TERMS)}")
    result = measure(args)
    published = result["published"]
    print(
        f"{args.objective} {args.size}x{args.size}, width {args.width}, batch {args.batch} on {result['device']}: "
        f"{1e3 * published['seconds']['median']:.1f} ms, {published['gmac']:.2f} GMAC a step"
    )
    for name, found in result["ratios"].items():
        print(f"  {name:34} time {turns.told(found['seconds'])}, arithmetic {found['gmac']:.2f}")
    turns.report(result, args.json)


if __name__ == "__main__":
    main()
