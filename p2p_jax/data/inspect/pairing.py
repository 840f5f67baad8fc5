"""Which groups of files make pairs, the likeliest first."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from p2p_jax.data.inspect import words
from p2p_jax.data.inspect.groups import File, Group, Parts

_OF_ALL = 0.8  # share of all files in pairs, where no word says which side they are
_ENOUGH = 0.9  # share of the files of a group that have a partner in the other
_SAMPLE = 8


class Match(NamedTuple):
    """Two groups whose files make pairs.

    Attributes:
      a: the group of A.
      b: the group of B.
      keys: of the pairs.
      score: how likely they are intended.
      is_likely: words say which is A and which is B.
      is_doubtful: the only sign of pairs is that some files of two folders have the same names.
    """

    a: Group
    b: Group
    keys: frozenset[Parts]
    score: float
    is_likely: bool
    is_doubtful: bool = False

    @property
    def pairs(self) -> list[tuple[File, File]]:
        """The files of A and B that belong together, in order."""
        return [(self.a.files[key], self.b.files[key]) for key in sorted(self.keys)]

    @property
    def lonely(self) -> int:
        """How many files of either group have no partner."""
        return len(self.a.files.keys() ^ self.b.files.keys())


def find(groups: Sequence[Group], count: int) -> list[Match]:
    """Return all groups that make pairs, the likeliest first; there may be several with the same pairs.

    Args:
      groups: of ``groups.divide``.
      count: of all files.
    """
    found = [match for i, j in _that_share_keys(groups) if (match := _match(groups[i], groups[j], count))]
    found = _derived_behind(found)
    return sorted(found, key=lambda match: (match.is_doubtful, -match.score))


def forms(found: Sequence[Match]) -> list[list[Match]]:
    """Return the matches that have the same pairs together, in the order of the first of each."""
    together: dict[frozenset[frozenset[Parts]], list[Match]] = {}
    for match in found:
        same = frozenset(frozenset((a.parts, b.parts)) for a, b in match.pairs)
        whole = next((other for other in together if same <= other), same)
        together.setdefault(whole, [])
        if whole == same:
            together[whole].append(match)
    return list(together.values())


def _match(one: Group, other: Group, count: int) -> Match | None:
    keys = frozenset(one.files.keys() & other.files.keys())
    if len(keys) < 2 or _differ_by_number(one, other):
        return None
    a, b = sorted((one, other), key=lambda group: (words.role(group.text), group.text, group.folders, group.suffix))
    lettered = words.are_a_and_b(a.text, b.text)
    likely = lettered or words.role(b.text) > words.role(a.text)
    if (a.prefix or b.prefix) and not lettered and words.role(b.prefix) <= words.role(a.prefix):
        return None  # a_1 and b_1 may be anything
    if (a.rest or b.rest) and not (likely or words.role(b.suffix)):
        return None
    sizes = [len(keys) for keys in _in_splits_of_both(one, other)]
    share = len(keys) / max(*((min(sizes),) if likely else sizes), 1)
    if share < _ENOUGH or not _are_disjoint(one, other):
        return None
    plain = sum(not x.suffix and not x.prefix for x in (a, b))
    doubtful = not likely and 2 * len(keys) < _OF_ALL * count
    if doubtful and (plain < 2 or "*" in (*a.folders, *b.folders)):
        return None
    odd = words.words_of_b(a.text) > 0 and not words.words_of_a(a.text)  # two kinds of B make pairs as well
    options = 0.02 * (a.folders != b.folders) - 0.03 * (a.rest or b.rest) - 0.01 * bool(a.prefix or b.prefix)
    named = 0.01 * likely + 0.05 * words.rank(b.text) - 0.01 * words.words_of_a(b.text) - 0.1 * odd
    length = 1e-5 * len(a.suffix + b.suffix + a.prefix + b.prefix) + 1e-5 * (len(a.folders) + len(b.folders))
    score = len(keys) * share * (1 + options + named + 0.0003 * plain - length)
    return Match(a, b, keys, score, likely, doubtful)


def _are_disjoint(one: Group, other: Group) -> bool:
    return {file.parts for file in one.files.values()}.isdisjoint(file.parts for file in other.files.values())


def _that_share_keys(groups: Sequence[Group]) -> list[tuple[int, int]]:
    """Return the numbers of groups that may make pairs, by a few files of either."""
    holding: dict[Parts, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        for key in group.files:
            holding[key].append(i)
    found: set[tuple[int, int]] = set()
    for i, group in enumerate(groups):
        few = list(group.files)[:: max(len(group.files) // _SAMPLE, 1)]
        shared = Counter(j for key in few for j in holding[key])
        # Splits that one side lacks do not count against it, so a part is enough.
        found.update((min(i, j), max(i, j)) for j, times in shared.items() if j != i and 4 * times >= len(few))
    return sorted(found)


def _in_splits_of_both(one: Group, other: Group) -> list[list[Parts]]:
    """Return the keys of two groups, without those of splits that one of them lacks: of a test set without answers."""
    splits = [{key[0] for key in group.files} for group in (one, other)]
    lacking: Collection[str] = splits[0] ^ splits[1] if splits[0] & splits[1] else ()
    return [[key for key in group.files if key[0] not in lacking] for group in (one, other)]


def _differ_by_number(one: Group, other: Group) -> bool:
    """Return whether groups differ only in a number: frames and scenes do, the sides of pairs do not."""
    return differ_by_number(*("/".join((*x.folders, x.prefix, x.suffix, "rest" * x.rest)) for x in (one, other)))


def differ_by_number(one: str, other: str) -> bool:
    """Return whether two names differ only in a number."""
    return re.sub(r"\d+", "0", one.lower()) == re.sub(r"\d+", "0", other.lower())


def _derived_behind(found: Sequence[Match]) -> list[Match]:
    """Put what is made of another side behind it: ``x_depth_mask`` says where ``x_depth`` is known."""
    texts = {"/".join((*match.b.folders, match.b.prefix + match.b.suffix)) for match in found if match.is_likely}

    def is_derived(match: Match) -> bool:
        own = "/".join((*match.b.folders, match.b.prefix + match.b.suffix))
        return any(own != text and text and own.startswith(text) and own[len(text)] in "_-." for text in texts)

    return [match._replace(score=match.score * 0.97) if is_derived(match) else match for match in found]
