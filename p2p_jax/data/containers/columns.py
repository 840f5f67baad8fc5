"""Which columns of a table, or entries of a record, are the images of A and B."""

from collections.abc import Sequence

from p2p_jax.data.containers.contents import PHOTOS, UNPAIRED, halves_of
from p2p_jax.errors import InputError


def choose(images: Sequence[str], columns: Sequence[str], named: str, layout: str, where: str) -> tuple[str, ...]:
    """Return the columns of A and B, or the one with the images that are cut in half or that A is computed from.

    Args:
      images: the columns that hold images, as far as that is known.
      columns: all of them.
      named: ``config.data.columns``.
      layout: of ``contents.LAYOUTS``.
      where: what has these columns, for messages.

    Raises:
      InputError: a column that is named is not there, or it is not clear which to use.
    """
    wanted = {PHOTOS: (1,), UNPAIRED: (2,), "": (2, 1)}.get(layout, (1,) if halves_of(layout) else (2,))
    there = f"{where} has the columns {', '.join(columns)}" if columns else f"{where} has no columns"
    if named:
        chosen = tuple(name.strip() for name in named.split(","))
        if missing := [name for name in chosen if name not in columns]:
            raise InputError(f"config.data.columns={named}: there is no column {missing[0]!r}; {there}")
        if len(chosen) not in wanted or len(set(chosen)) != len(chosen):
            raise InputError(f"config.data.columns={named} names {len(chosen)} columns; name {_told(wanted)} ({there})")
        return chosen
    if len(images) in wanted:
        return _in_order(images)
    found = f"{len(images)} of them hold images" + (f" ({', '.join(images)})" if images else "")
    example = ",".join((images or columns or ("a", "b"))[: wanted[0]])
    raise InputError(
        f"{there}; {found}: name {_told(wanted)} with config.data.columns, such as --config.data.columns={example}"
    )


def describe(chosen: Sequence[str]) -> str:
    """Say which columns are which."""
    return f"A is {chosen[0]} and B is {chosen[1]}" if len(chosen) == 2 else f"images are {chosen[0]}"


def _told(wanted: tuple[int, ...]) -> str:
    if wanted == (1,):
        return "the one with the images"
    return "two, A and B" + (", or one with the images that A is computed from" if 1 in wanted else "")


def _in_order(images: Sequence[str]) -> tuple[str, ...]:
    """Return columns in their order, but A before B where their names differ only in that."""
    if len(images) == 2 and images[0][:-1] == images[1][:-1] and images[0][-1:].lower() > images[1][-1:].lower():
        return images[1], images[0]
    return tuple(images)
