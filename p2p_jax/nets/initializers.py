"""How the kernels of convolutions begin."""

from collections.abc import Callable

import flax.linen as nn
import jax

from p2p_jax.errors import InputError

INITIALIZERS = ("normal", "xavier", "kaiming", "orthogonal")


def initializer(name: str, gain: float = 0.02, *, transposed: bool = False) -> Callable[..., jax.Array]:
    """Return the kernel initialiser of that name.

    Args:
      name: "normal": N(0, gain), the papers' choice. "xavier": Glorot normal times `gain`. "kaiming": He normal for
        ReLU, fan in (`gain` unused). "orthogonal": orthogonal matrix times `gain`.
      gain: standard deviation or factor, as above.
      transposed: the kernel is [kH, kW, out, in].

    Raises:
      InputError: unknown name.
    """
    fans = {"in_axis": -1, "out_axis": -2} if transposed else {"in_axis": -2, "out_axis": -1}

    def scaling(scale, mode):
        return nn.initializers.variance_scaling(scale, mode, "normal", **fans)

    choices = {
        "normal": lambda: nn.initializers.normal(gain),
        "xavier": lambda: scaling(gain**2, "fan_avg"),
        "kaiming": lambda: scaling(2.0, "fan_in"),
        "orthogonal": lambda: nn.initializers.orthogonal(gain, column_axis=fans["out_axis"]),
    }
    if name not in choices:
        raise InputError(f"unknown initialiser {name!r}: choose one of {', '.join(choices)}")
    return choices[name]()
