"""ONNX: a translation for ONNX Runtime and every other program that reads it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import lax

from p2p_jax.errors import InputError
from p2p_jax.interop.exportable import Exportable
from p2p_jax.interop.flattening import flatten

OPSET, IR_VERSION = 17, 8  # of 2022: enough operators, and older readers can open it
INPUT, OUTPUT = "images", "translated"


def require(format: str = "onnx") -> None:
    """Check that the required packages are installed.

    Args:
      format: the requested format, for messages.

    Raises:
      InputError: a package is missing.
    """
    try:
        import jax2onnx  # noqa: F401
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"format={format} needs jax2onnx, onnx and onnxruntime ({error}): pip install 'p2p_jax[export]'"
        ) from error


def write(exportable: Exportable, path: Path) -> None:
    """Write a translation, with its metadata as JSON in the file's metadata.

    Raises:
      InputError: it uses operations that jax2onnx cannot convert.
    """
    import jax2onnx
    import onnx

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it logs every value with an inferred type
    flat, step = flatten(exportable.__call__, exportable.images), exportable.sizes.multiple

    def function(images: jax.Array) -> jax.Array:
        if not exportable.is_fixed and step > 1:
            # Sizes inside are multiples of h and w; jax2onnx finds these if an array has them as sides.
            lax.slice(images, (0,) * 4, images.shape, (1, step, step, 1))
        return flat(images)

    try:
        model = jax2onnx.to_onnx(
            function, [exportable.images], opset=OPSET, input_names=[INPUT], output_names=[OUTPUT], model_name="p2p_jax"
        )
    except Exception as error:  # of any kind: it fails on unknown operations
        raise _refused("jax2onnx cannot convert this network", error) from error
    model.ir_version = IR_VERSION
    told = {k: v if isinstance(v, str) else json.dumps(v) for k, v in exportable.metadata.items()}
    onnx.helper.set_model_props(model, told)
    path.write_bytes(model.SerializeToString())


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a written translation as a function that ONNX Runtime computes, on the CPU.

    Raises:
      InputError: it is not a valid model.
    """
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(str(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # both have many types of errors
        raise _refused("jax2onnx made an invalid model of this network", error) from error
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def _refused(what: str, error: Exception) -> InputError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return InputError(f"format=onnx: {what} ({reason}); format=stablehlo works for every network that JAX can trace")
