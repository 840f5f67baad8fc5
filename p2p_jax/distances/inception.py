"""FID's Inception network, by torch-fidelity and with its file of weights."""

import pickle
import urllib.error
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from p2p_jax.errors import InputError

FULL_RANK = 2048
"""Features of the network's last pooling. With fewer images FID's covariances are singular."""


def load(weights: str | Path | None, option: str = "inception") -> Any:
    """Return the network, a module of PyTorch, downloading the weights if need be.

    Args:
      weights: torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth`` (the same as pytorch-fid's
        ``pt_inception-2015-12-05-6726825d.pth``); None: torch-fidelity downloads them once.
      option: where the file is named, for messages.

    Raises:
      InputError: torch-fidelity or the weights cannot be had.
    """
    torch_fidelity = import_torch_fidelity()
    import torch

    path = None if weights is None else str(weights)
    try:
        if path is not None:
            torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run code found in the file
        return torch_fidelity.FeatureExtractorInceptionV3(
            "inception-v3-compat", [str(FULL_RANK)], feature_extractor_weights_path=path, verbose=False
        )
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        cause = str(error.reason if isinstance(error, urllib.error.URLError) else error).strip().partition("\n")[0]
        if path is None:
            raise InputError(
                f"the Inception weights could not be downloaded ({cause}); fetch "
                "weights-inception-2015-12-05-6726825d.pth from torch-fidelity's releases on a machine with internet "
                f"and give it with {option}=FILE"
            ) from error
        raise InputError(
            f"{option}={path} does not hold the weights of FID's Inception network ({cause}); use "
            "weights-inception-2015-12-05-6726825d.pth from torch-fidelity's releases"
        ) from error


def as_function(network: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return ``uint8 [N, H, W, 3] -> float32 [N, 2048]``, on a CUDA device where PyTorch finds one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(device)

    def features(images):
        with torch.no_grad():
            given = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)
            return network(given)[0].cpu().numpy()

    return features


def import_torch_fidelity() -> ModuleType:
    """Import torch-fidelity.

    Raises:
      InputError: it cannot be imported.
    """
    try:
        import torch_fidelity
    except ImportError as error:
        raise InputError(
            f"FID and KID need torch-fidelity, but it cannot be imported ({error}): pip install 'p2p_jax[fid]'"
        ) from error
    except RuntimeError as error:  # how torchvision says that it was built for another PyTorch
        raise InputError(
            f"FID and KID need torch-fidelity, but importing it fails ({error}): torch and torchvision must be "
            "matching builds, both for CPU or both for one version of CUDA; reinstall them"
        ) from error
    return torch_fidelity
