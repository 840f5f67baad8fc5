"""What KID and FID cost: seconds of the formulas, and images a second of the features.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.distances [--rounds 3] [--counts 100,1000] [--features inception]

Seconds are those of the processor, with one thread of one core, whatever else runs there. "reals" is what is done once
a start for the real images, "an evaluation" what each one takes. Features of the formulas are noise; those of
`--features` are of noise pictures, and "inception" without its file of weights has random ones.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from p2p_jax.distances import Features, Reals, find_features, inception
from p2p_jax.distances.frechet import frechet, moments
from p2p_jax.distances.kernel import KernelDistance

_PICTURES = 64


def _seconds(work: Callable[[], object], rounds: int) -> str:
    found = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return f"{statistics.median(found):.3g} s ({min(found):.3g} to {max(found):.3g})"


def _formulas(count: int, width: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    fakes, reals = (rng.uniform(0, 1, (count, width)).astype(np.float32) for _ in range(2))
    known, kernel = moments(reals), KernelDistance(reals, count)
    distances = Reals(reals)
    distances.distances(fakes)
    for name, work in {
        "FID, reals": lambda: moments(reals),
        "FID, an evaluation": lambda: frechet(moments(fakes), known),
        "KID, reals": lambda: KernelDistance(reals, count),
        "KID, an evaluation": lambda: kernel(fakes),
        "both, an evaluation": lambda: distances.distances(fakes),
    }.items():
        print(f"N {count:,}, D {width:,}: {name}: {_seconds(work, rounds)}", flush=True)


def _random_inception() -> Features:
    """Return Inception with weights of chance, for where there is no file of them."""
    from unittest import mock

    import torch

    package = inception.import_torch_fidelity()
    module = __import__(package.FeatureExtractorInceptionV3.__module__, fromlist=["x"])
    with (
        mock.patch.object(module, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(torch.nn.Module, "load_state_dict", lambda *_, **__: None),
    ):
        network = package.FeatureExtractorInceptionV3("random", [str(inception.FULL_RANK)])
    return Features("inception", inception.as_function(network))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", default="100,1000,5000", help="numbers of images")
    parser.add_argument("--width", type=int, default=2048, help="number of features")
    parser.add_argument("--features", help="as config.distances.features")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures")
    args = parser.parse_args()
    for count in filter(None, args.counts.split(",")):
        _formulas(int(count), args.width, args.rounds)
    if args.features:
        features = _random_inception() if args.features == "inception" else find_features(args.features)
        pictures = np.random.default_rng(0).integers(0, 256, (_PICTURES, args.size, args.size, 3), np.uint8)
        features(pictures[:8])  # compiles
        started = time.process_time()
        features(pictures)
        rate = _PICTURES / (time.process_time() - started)
        print(f"{features.name}, {args.size} pixels, D {features.width:,}: {rate:.3g} images/s")


if __name__ == "__main__":
    main()
