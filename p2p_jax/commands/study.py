"""Ask people which image is fake: make a perceptual study, serve it on this machine, analyse the answers.

    python -m p2p_jax study make --output STUDY --runs runs/facades runs/other
    python -m p2p_jax study serve --study STUDY
    python -m p2p_jax study analyse --study STUDY

Each participant judges one algorithm in one session: 10 practice pairs and 40 that count, as in the papers.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_jax.commands.command import Parser
from p2p_jax.errors import InputError

if TYPE_CHECKING:
    from p2p_jax.evaluation.study import Protocol, Result

_OPTIONS = ("practice", "trials", "seconds", "pause", "size", "pairing")
# Percent of trials on which Turkers took the fake for real, on Google Maps (Isola et al. 2017, Table 4, L1+cGAN; Zhu et
# al. 2017, Table 1).
_PUBLISHED = {
    "fake": "pix2pix: map to aerial photo 18.9% ± 2.5%, aerial photo to map 6.1% ± 1.3%",
    "real": "CycleGAN: map to aerial photo 26.8% ± 2.8%, aerial photo to map 23.2% ± 3.4%",
}


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("study", __doc__, computes=False, opens_run=True)
    commands = made.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)

    make = commands.add_parser("make", allow_abbrev=False, help="build a study from runs or folders")
    make.add_argument("--output", required=True, help="directory to make; must not exist")
    make.add_argument("--runs", nargs="+", default=[], metavar="[NAME=]RUN", help="workdirs of trained runs")
    make.add_argument("--split", help="split of the runs' data; the validation split by default")
    make.add_argument("--data_dir", help="folder of the data set, if it is no longer where the runs' configs say")
    make.add_argument("--checkpoint", default="latest", help="latest, best or a step (%(default)s)")
    make.add_argument("--direction", help="AtoB or BtoA, for runs with both directions (as the run says)")
    make.add_argument("--real", metavar="FOLDER", help="real images, instead of --runs")
    make.add_argument(
        "--fake", action="append", default=[], metavar="NAME=FOLDER", help="images of one algorithm; may be repeated"
    )
    make.add_argument(
        "--preset", choices=("pix2pix", "cyclegan"), default="pix2pix",
        help="pix2pix asks which was fake, cyclegan which was real (%(default)s)",
    )  # fmt: skip
    make.add_argument("--practice", type=int, help="trials with feedback that do not count (10)")
    make.add_argument("--trials", type=int, help="trials that count (40)")
    make.add_argument("--seconds", type=float, help="how long each image is shown (1)")
    make.add_argument("--pause", type=float, help="seconds of blank screen before each image (0.5)")
    make.add_argument("--size", type=int, help="side of the images in pixels (384)")
    make.add_argument(
        "--pairing", choices=("different", "same"),
        help="show a fake with the real image of another example, or of the same one (different)",
    )  # fmt: skip
    make.add_argument("--seed", type=int, help="seed of image names and sessions (random by default)")

    made.add_trust(make)

    serve = commands.add_parser("serve", allow_abbrev=False, help="run a study on the loopback address")
    serve.add_argument("--study", required=True, help="directory that make wrote")
    serve.add_argument("--port", type=int, default=8000, help="0 chooses a free one (%(default)s)")

    analyse = commands.add_parser("analyse", allow_abbrev=False, help="print the fooling rates")
    analyse.add_argument("--study", required=True, help="directory that make wrote")
    analyse.add_argument("--draws", type=int, default=10_000, help="draws of the bootstrap (%(default)s)")
    analyse.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (%(default)s)")
    analyse.add_argument("--include_incomplete", action="store_true", help="also count unfinished sessions")
    analyse.add_argument("--json", metavar="FILE", help="also write the results to this file")
    return made


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(lambda args: {"make": _make, "serve": _serve, "analyse": _analyse}[args.command](args), argv)


def _make(args: argparse.Namespace) -> None:
    from p2p_jax.evaluation import study
    from p2p_jax.process.settings import prepare_process

    prepare_process()

    given = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    protocol = study.PRESETS[args.preset]._replace(**given).check()
    if bool(args.runs) == bool(args.real or args.fake) or bool(args.real) != bool(args.fake):
        raise InputError("give either --runs RUN ..., or --real FOLDER and --fake NAME=FOLDER")
    if args.runs:
        algorithms = study.from_runs(args.runs, args.split, args.checkpoint, args.direction, args.data_dir, args.trust)
    else:
        algorithms = study.from_folders(args.real, args.fake)
    design = study.make(args.output, algorithms, protocol, args.seed)
    for name, kept in design.algorithms.items():
        print(f"{name}: {len(kept['fake'])} fakes, {len(kept['real'])} real images")
    print(
        f"{args.output} is ready; the paper had about {protocol.participants} participants per algorithm. Next: "
        f"python -m p2p_jax study serve --study {args.output}"
    )


def _serve(args: argparse.Namespace) -> None:
    from p2p_jax.evaluation.study import serve

    serve(args.study, args.port)


def _analyse(args: argparse.Namespace) -> None:
    from p2p_jax.evaluation.study import analyse
    from p2p_jax.storage.writing import write_text

    protocol, results, broken = analyse(
        args.study, draws=args.draws, seed=args.seed, include_incomplete=args.include_incomplete
    )
    for line in _report(protocol, results, args.draws, args.include_incomplete):
        print(line)
    if broken:
        print(f"Cut-off lines of answers.jsonl, not counted: {broken}.")
    if args.json:
        record = {
            "study": Path(args.study).resolve().name,
            "protocol": protocol._asdict(),
            "draws": args.draws,
            "seed": args.seed,
            "include_incomplete": args.include_incomplete,
            "algorithms": {name: result._asdict() for name, result in results.items()},
        }
        write_text(Path(args.json), json.dumps(record, indent=1) + "\n")


def _report(protocol: "Protocol", results: "dict[str, Result]", draws: int, include_incomplete: bool) -> list[str]:
    """Return the lines of the table, and the remarks below it."""
    from p2p_jax.evaluation.study.judging import FAULTS

    width = max(len("algorithm"), *map(len, results))
    lines = [
        f"Fakes taken for real; bootstrap mean and standard deviation over {draws:,} draws of participants and trials",
        f"{'algorithm':<{width}}  {'rate':>7}  {'bootstrap':>15}  {'participants':>12}  {'trials':>7}",
    ]
    for name, result in results.items():
        rate, spread = "-", "-"
        if result.rate is not None and result.mean is not None and result.sd is not None:
            rate, spread = f"{result.rate:.1%}", f"{result.mean:.1%} ± {result.sd:.1%}"
        lines.append(f"{name:<{width}}  {rate:>7}  {spread:>15}  {result.participants:>12,}  {result.trials:>7,}")
    incomplete = sum(result.incomplete for result in results.values())
    if incomplete:
        mend = "counted so far" if include_incomplete else "not counted (--include_incomplete counts them)"
        lines.append(f"Unfinished sessions: {incomplete}, {mend}.")
    for fault, told in FAULTS.items():
        if count := sum(result.not_counted.get(fault, 0) for result in results.values()):
            lines.append(f"Answers {told}, not counted: {count}.")
    forged = {kind: sum(result.forged.get(kind, 0) for result in results.values()) for kind in ("duplicate", "refused")}
    if any(forged.values()):
        lines.append(
            f"Not sent by the study's page: {forged['duplicate']} second answers to a trial, "
            f"{forged['refused']} invalid or out-of-order answers; not counted."
        )
    badly_timed = sum(result.badly_timed for result in results.values())
    if badly_timed:
        lines.append(f"Counted answers after an image was shown too long, or again after a reload: {badly_timed}.")
    lines.append(f"Published, for other people and images: {_PUBLISHED[protocol.question]}.")
    return lines
