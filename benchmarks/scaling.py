"""An estimate, on paper, of training on many chips: compute, all-reduce, input, and weak-scaling efficiency.

    python -m benchmarks.scaling [--share 0.2] [--link_share 0.6]

Nothing is measured; everything assumed stands in this file. A step takes the least time that the cost model
(``benchmarks.cost``) allows, divided by the share of it that is reached, plus the exchange between the chips, none of
which is taken to hide behind arithmetic. Every chip keeps its batch, so that the images of a step grow with the chips.
"""

import argparse
import math
from typing import NamedTuple

from benchmarks import cost
from benchmarks.experiments import make_config

CHIPS = (8, 64, 512)
POOL_SLOTS = 50  # of CycleGAN's history; one a chip where there are more chips
LATENCY = 10e-6  # seconds for one of the 2 log2(n) turns of a collective operation
COLLECTIVES = 6  # a step: two players' gradients, statistics, metrics, two pools
STREAM = 145  # pairs a second that one CPU core decodes and augments uncached (benchmarks.stream)


class Machine(NamedTuple):
    """A kind of cluster.

    Attributes:
      kind: the chip's name in ``cost.PEAKS``.
      dtype: of the computation; gradients are float32.
      chips_a_host: how many a host feeds.
      links: {at most so many chips: bytes a second that each can send}, by the makers' data sheets.
    """

    kind: str
    dtype: str
    chips_a_host: int
    links: dict[int, float]


MACHINES = {
    # NVLink: 900 GB/s in both directions together. Between hosts of 8 each GPU has an InfiniBand card of 400 Gbit/s,
    # and NCCL sends every eighth of the data through another of them: 400 GB/s.
    "H200": Machine("NVIDIA H200", "float32", 8, {8: 450e9, 512: 400e9}),
    # 4,800 Gbit/s over the six ICI links of a chip, both directions together; a pod has 8,960 chips.
    "TPU v5p": Machine("TPU v5", "bfloat16", 4, {512: 300e9}),
}


class Estimate(NamedTuple):
    """One row of the table; seconds, bytes a chip and step, pairs a second and host."""

    compute: float
    gradient_bytes: float
    pool_bytes: float
    exchange: float
    efficiency: float
    pairs: float
    cores: int


def estimate(machine: Machine, objective: str, batch: int, chips: int, share: float, link_share: float) -> Estimate:
    """Estimate a step.

    Args:
      machine: the cluster.
      objective: "pix2pix" or "cyclegan" (with identity loss and pool), 256x256 at the published widths.
      batch: images, or couples, a chip.
      chips: their number.
      share: of the cost model's speed that a step reaches.
      link_share: of the links' speed that a collective operation reaches.
    """
    config = make_config(objective, 256, batch, dtype=machine.dtype)
    compute = cost.roofline(config, cost.PEAKS[machine.kind]) / share
    gradients = 2 * (chips - 1) / chips * 4 * cost.count_parameters(config)
    slots = max(POOL_SLOTS, chips) // chips * chips if objective == "cyclegan" else 0
    pools = (chips - 1) / chips * 2 * slots * 256 * 256 * 3 * (2 if machine.dtype == "bfloat16" else 4)
    link = next(speed for most, speed in sorted(machine.links.items()) if chips <= most)
    exchange = (gradients + pools) / (link * link_share) + COLLECTIVES * 2 * math.log2(chips) * LATENCY
    pairs = min(machine.chips_a_host, chips) * batch / (compute + exchange)
    return Estimate(
        compute, gradients, pools, exchange, compute / (compute + exchange), pairs, math.ceil(pairs / STREAM)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.2, help="of the cost model's speed that a step reaches")
    parser.add_argument("--link_share", type=float, default=0.6, help="of the links' speed that is reached")
    args = parser.parse_args()
    print(
        "| machine | a chip | chips | compute | gradients | pools | exchange | efficiency | images/s | fed to a host |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, machine in MACHINES.items():
        for objective, batch in (("pix2pix", 1), ("pix2pix", 16), ("cyclegan", 1)):
            for chips in CHIPS:
                row = estimate(machine, objective, batch, chips, args.share, args.link_share)
                cells = [name, f"{objective}, batch {batch}", f"{chips}", f"{1e3 * row.compute:.1f} ms"]
                cells += [f"{row.gradient_bytes / 1e6:.0f} MB", f"{row.pool_bytes / 1e6:.0f} MB"]
                cells += [f"{1e3 * row.exchange:.1f} ms", f"{row.efficiency:.2f}"]
                cells += [f"{chips * batch / (row.compute + row.exchange):,.0f}"]
                print(f"| {' | '.join(cells)} | {row.pairs:,.0f} pairs/s: {row.cores} cores |")


if __name__ == "__main__":
    main()
