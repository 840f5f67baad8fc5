"""Which side of pairs fits which side of a config, by the declared kinds and channels."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from p2p_jax.data.inspect.measures import StoredAs
from p2p_jax.images.domains import of_files
from p2p_jax.images.formats import Header

OTHER = {"AtoB": "BtoA", "BtoA": "AtoB"}


def stored_as(headers: Sequence[Header]) -> dict[StoredAs, int]:
    """Count how files store their images, the commonest first."""
    found = Counter(StoredAs(x.dtype, x.channels, x.palette, x.opacity) for x in headers)
    return dict(found.most_common())


def fitting_direction(data: ConfigDict, stored: Sequence[Mapping[StoredAs, int]]) -> str | None:
    """Return the other direction if only with it the sides are what a config declares.

    Args:
      data: reads ``direction``, ``input`` and ``output``.
      stored: of A and of B, how most files are stored.
    """
    if not all(stored):
        return None
    most = [max(counts, key=lambda form: counts[form]) for counts in stored]
    a, b = of_files(data)
    fits = most[0].fits(a) and most[1].fits(b)
    fits_the_other_way = most[0].fits(b) and most[1].fits(a)
    return OTHER[data.direction] if fits_the_other_way and not fits else None
