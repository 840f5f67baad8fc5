"""FID and KID between two folders of images, computed by torch-fidelity with its Inception network."""

from pathlib import Path
from typing import Any

from PIL import Image

from p2p_jax.distances import inception
from p2p_jax.distances.inception import FULL_RANK
from p2p_jax.distances.kernel import LARGEST, SEED, SUBSETS
from p2p_jax.errors import InputError


def check(weights: str | Path | None = None) -> None:
    """Check that FID and KID can be computed, and download the weights if necessary, before any long work.

    Args:
      weights: as for ``fid_kid``.

    Raises:
      InputError: torch-fidelity or the weights are not available.
    """
    inception.load(weights)


def fid_kid(fakes: Path, reals: Path, *, weights: str | Path | None = None) -> dict[str, Any]:
    """Measure the distance of the distribution of generated images from that of real ones.

    FID (Heusel et al. 2017) is the Frechet distance between Gaussians fitted to the features of Inception v3 (the
    network of 2015-12-05, last pooling). KID (Binkowski et al. 2018) is the unbiased squared maximum mean discrepancy
    of the same features under the cubic kernel ``(x.y / 2048 + 1) ** 3``, over 100 subsets of at most 1,000 images,
    the same at every call. Runs on a CUDA device if PyTorch finds one.

    Args:
      fakes: folder with the generated images, PNG files all of one size; subfolders are searched.
      reals: folder with the real images, as many as you like, of the same size as the generated ones.
      weights: the network's weights, torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth`` (the same as
        pytorch-fid's ``pt_inception-2015-12-05-6726825d.pth``); by default torch-fidelity downloads them once.

    Returns:
      ``{"fid", "kid_mean", "kid_std", "count_fake", "count_real"}`` and, if a set has fewer than 2,048 images,
      ``"note"``: the effect on the values.

    Raises:
      InputError: torch-fidelity or the weights are not available, or a folder holds fewer than 2 images or images of
        different sizes.
    """
    torch_fidelity = inception.import_torch_fidelity()
    counts = _count_images(fakes, reals)
    check(weights)
    import torch

    subset = min(*counts, LARGEST)
    metrics = torch_fidelity.calculate_metrics(
        input1=str(fakes),
        input2=str(reals),
        cuda=torch.cuda.is_available(),
        fid=True,
        kid=True,
        kid_subsets=SUBSETS,
        kid_subset_size=subset,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        rng_seed=SEED,
        feature_extractor_weights_path=None if weights is None else str(weights),
        samples_find_deep=True,
        samples_find_ext="png",
        samples_ext_lossy="",
        save_cpu_ram=True,  # no reading processes: forking one that runs JAX can deadlock
        verbose=False,
    )
    result = {
        "fid": metrics[torch_fidelity.KEY_METRIC_FID],
        "kid_mean": metrics[torch_fidelity.KEY_METRIC_KID_MEAN],
        "kid_std": metrics[torch_fidelity.KEY_METRIC_KID_STD],
        "count_fake": counts[0],
        "count_real": counts[1],
    }
    return result | _note(counts, subset)


def _count_images(*folders: Path) -> tuple[int, ...]:
    """Count the PNG files of each folder and check that all have one size, without decoding them."""
    sizes: dict[tuple[int, int], Path] = {}
    counts = []
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png")
        if len(files) < 2:
            raise InputError(f"{folder} holds {len(files)} PNG files; FID and KID need at least 2, better thousands")
        for file in files:
            try:
                with Image.open(file) as image:
                    sizes.setdefault(image.size, file)
            except OSError as error:
                raise InputError(f"{file} is not a readable PNG file ({error}); write it again or remove it") from error
        counts.append(len(files))
    if len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        raise InputError(
            f"{first} has {a[0]}x{a[1]} pixels and {second} {b[0]}x{b[1]}; image size affects FID and "
            "KID: resize all images to one size"
        )
    return tuple(counts)


def _note(counts: tuple[int, ...], subset: int) -> dict[str, str]:
    """Return the effect of small sets on the values; "" if both are large enough."""
    if min(counts) >= FULL_RANK:
        return {}
    note = (
        f"fewer than {FULL_RANK:,} images ({counts[0]:,} generated, {counts[1]:,} real): the covariances behind FID "
        "are singular and FID is biased upwards; compare KID, and FID only at the same numbers of images"
    )
    if subset == max(counts):
        note += f"; each of KID's subsets holds all {subset:,} images, so kid_std is 0 and has no meaning"
    return {"note": note}
