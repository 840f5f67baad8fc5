"""Write a trained run as a file for other programs, checked against the run.

    python -m p2p_jax export runs/facades --format onnx --output facades.onnx

"onnx" runs in ONNX Runtime and many other programs; "stablehlo" needs only JAX and flatbuffers (FILE.json next to it
holds the metadata); "torch" loads in the PyTorch release of pix2pix and CycleGAN (--output FILE.pth for the generator,
or a folder for all networks). The first two take images [B, H, W, C], float32 in [-1, 1] (with --pixels the run's own
values, such as bytes), of any batch size and, if the network allows, of any multiple of its sizes. They leave out the
noise of dropout.

    python -m p2p_jax export runs/facades --format web --output page

"web" is a folder for any web server, such as python3 -m http.server: a page where visitors draw or drop images and
see them translated, in their own browsers. It needs the npm package onnxruntime-web: npm install onnxruntime-web here,
or name its folder with --runtime.
"""

import argparse
import shlex
from pathlib import Path

from p2p_jax.commands.command import Parser, told_weights
from p2p_jax.errors import InputError

_OF_WEB = ("weights", "runtime", "data_dir", "split", "palette", "title")


def parser() -> Parser:
    """Return the argument parser of the command."""
    made = Parser("export", __doc__, opens_run=True)
    add = made.add_argument
    made.add_place("workdir", "model", metavar="RUN", help="directory of the trained run, or its model file")
    add("--format", required=True, choices=["onnx", "stablehlo", "torch", "web"], help="format of the file")
    add("--output", required=True, type=Path, help="file to write, or folder for web; an existing one is replaced")
    add("--checkpoint", default="latest", help="latest (default), best or a step")
    add("--direction", choices=["AtoB", "BtoA"], help="for CycleGAN, in the words of the training folders")
    add("--norm", choices=["batch", "running"], help="statistics of the image itself or of training; as stored")
    add("--pixels", action="store_true", help="take and return the values of the run's images, such as 0 to 255")
    add("--tolerance", type=float, help="largest allowed difference from the run, on the scale of [-1, 1] (1e-4)")
    web = made.add_argument_group("for --format web")
    web.add_argument("--weights", choices=["float32", "float16", "int8"], help="how weights are stored (float16)")
    web.add_argument("--runtime", type=Path, help="the npm package onnxruntime-web, its folder or .tgz")
    web.add_argument("--data_dir", help="folder of the data set, if it is no longer where the run's config says")
    web.add_argument("--split", help="split to compare translations on, such as test; the validation split by default")
    web.add_argument("--palette", help="colours to draw with, as for evaluate; the run's labels by default")
    web.add_argument("--title", help="title of the page; the run's name by default")
    made.add_raw()
    made.add_trust()
    return made


def _export(args: argparse.Namespace) -> None:
    if args.format == "web":
        _export_web(args)
        return
    if given := [f"--{name}" for name in _OF_WEB if getattr(args, name) is not None]:
        raise InputError(f"{', '.join(given)}: only for --format web")
    if args.format == "torch":
        _export_torch(args)
        return
    from p2p_jax.interop.exporting import export

    print(f"{args.workdir}: exporting and checking ...", flush=True)
    found = export(
        args.workdir,
        args.format,
        args.output,
        args.checkpoint,
        args.direction,
        args.norm,
        pixels=args.pixels,
        tolerance=1e-4 if args.tolerance is None else args.tolerance,
        trust=args.trust,
        raw=args.raw,
    )
    told, (height, width) = found.metadata, found.sizes[0]
    for note in found.notes:
        print(f"note: {note}")
    kinds = f"{told['input']['dtype']} to {told['output']['dtype']}" if args.pixels else "float32 in [-1, 1]"
    step = f"step {told['step']:,}{told_weights(told['weights'], args.raw)}"
    print(f"{found.path}: {step}, {told['direction']}, norm {told['norm']}, {found.megabytes:.1f} MB")
    print(f"images [{', '.join(map(str, found.images))}], {kinds}")
    sizes = ", ".join(f"{h}x{w}" for h, w in found.sizes)
    levels = "" if found.difference.values is None else f", {found.difference.values:g} in values"
    print(f"checked at {sizes}, batches of 1 and 2: largest difference {found.difference.largest:.1e}{levels}")
    print(
        f"{height}x{width} on the CPU: {found.seconds * 1e3:.1f} ms an image, in JAX {found.jax_seconds * 1e3:.1f} ms"
    )


def _export_torch(args: argparse.Namespace) -> None:
    from p2p_jax.inference.run import open_run
    from p2p_jax.interop.torch_release import write_torch

    if args.pixels or args.norm:
        raise InputError("--pixels and --norm are only for onnx and stablehlo; a PyTorch file holds only weights")
    run = open_run(args.workdir, args.checkpoint, trust=args.trust, raw=args.raw)
    for written in write_torch(run, args.output, args.direction):
        print(f"{written.path}: {written.options}")
        for note in written.notes:
            print(f"note: {note}")


def _export_web(args: argparse.Namespace) -> None:
    from p2p_jax.interop.web.exporting import export_web

    if args.pixels or args.tolerance is not None:
        raise InputError("--pixels and --tolerance are only for onnx and stablehlo; a page may differ by 2 grey levels")
    print(f"{args.workdir}: exporting and checking ...", flush=True)
    found = export_web(
        args.workdir,
        args.output,
        args.checkpoint,
        args.direction,
        args.norm,
        weights=args.weights or "float16",
        runtime_path=args.runtime,
        data_dir=args.data_dir,
        split=args.split,
        palette=args.palette,
        title=args.title,
        trust=args.trust,
        raw=args.raw,
    )
    for note in found.notes:
        print(f"note: {note}")
    for way in found.ways:
        stored = f", {way.share:.0%} of the weights in {args.weights or 'float16'}"
        print(
            f"{way.direction}: {way.megabytes:.1f} MB{stored}; differs from the run by at most "
            f"{way.difference.largest:.2f} grey levels, {way.difference.mean:.3f} on average, on {found.compared_on}"
        )
        height, width = found.size
        print(f"{height}x{width} on the CPU, outside a browser: {way.seconds * 1e3:.1f} ms an image")
    print(f"{found.folder}: {found.megabytes:.1f} MB with ONNX Runtime Web {found.runtime}; open it with")
    print(f"    python3 -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(found.folder))}")


def run(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser().do(_export, argv)
