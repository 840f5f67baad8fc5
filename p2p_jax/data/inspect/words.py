"""What the names of folders and files say: splits, and the side of a pair."""

import functools
import re
from collections.abc import Iterator

TRAIN = ("training", "train", "trn", "tr")
"""How people call the split for training, in small letters; the longer before what it begins with."""
VAL = ("validation", "valid", "val", "dev", "testing", "test", "evaluation", "eval", "ts")
"""The same of what is kept apart, the likelier first."""
SPLIT = "{split}"
_SHORT = ("tr", "ts")  # which are splits only after small letters: imagesTr
_FOLLOWED = r"(?=annot|label|mask|image|img|gt)"
_WORDS = "|".join(sorted({*TRAIN, *VAL} - {*_SHORT}, key=len, reverse=True))
_WHOLE = re.compile(rf"(?:{_WORDS})(?:[_-]?(?:set|data))?\d*", re.IGNORECASE)
_INSIDE = re.compile(
    rf"(?<![A-Za-z])(?i:{_WORDS})(?:(?![A-Za-z])|{_FOLLOWED})"  # x_train_y, trainannot
    rf"|(?<![A-Za-z])(?:{_WORDS})(?=[A-Z])"  # trainA
    rf"|(?<![A-Z])(?:{_WORDS.title()})(?![a-z])"  # imagesTrain, TrainImages
    r"|(?<=[a-z])T[rs](?![A-Za-z])"  # imagesTr
)
_TOKENS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
# Of several that fit, what is more likely the one and the other of a pair.
_OFTEN_A = (
    "image", "img", "im", "photo", "picture", "jpeg", "input", "rgb", "color", "colour", "left", "source", "src",
    "noisy", "noise", "blur", "low", "sat", "satellite", "aerial", "hazy", "haze", "rain", "snow", "shadow", "lr", "lq",
    "degraded", "before", "cond",
)  # fmt: skip
_OFTEN_B = (
    "label", "class", "semantic", "manual", "mask", "truth", "gt", "seg", "segment", "anno", "parsing", "depth",
    "disparity", "normal", "target", "sharp", "hr", "hq", "clean", "norain", "derain", "nohaze", "map", "high",
    "clear", "free", "output", "after", "instance", "panoptic", "edge",
)  # fmt: skip


def find_split(name: str) -> tuple[str, str] | None:
    """Return a name with ``{split}`` in place of the name of a split, and that name; None if there is none."""
    if _WHOLE.fullmatch(name):
        return SPLIT, name
    found = _INSIDE.search(name)
    return (name[: found.start()] + SPLIT + name[found.end() :], found.group()) if found else None


def is_train(split: str) -> bool:
    """Return whether a split is called as those for training are."""
    return split.lower().startswith(TRAIN)


def is_val(split: str) -> bool:
    """Return whether a split is called as those that are kept apart are."""
    return split.lower().startswith(VAL)


def role(text: str) -> int:
    """Return how much more the words of a text are those of B than those of A."""
    return words_of_b(text) - words_of_a(text)


def words_of_a(text: str) -> int:
    """Return how many words of A a text has."""
    return sum(any(_holds(token, word) for token in _tokens(text)) for word in _OFTEN_A)


def words_of_b(text: str) -> int:
    """Return how many words of B a text has."""
    return sum(any(_holds(token, word) for token in _tokens(text)) for word in _OFTEN_B)


def are_a_and_b(one: str, other: str) -> bool:
    """Return whether two texts differ in nothing but that the one has an A where the other has a B."""
    return _tokens(one) - _tokens(other) == {"a"} and _tokens(other) - _tokens(one) == {"b"}


def rank(text: str) -> float:
    """Return how likely a text names B, by the first word that it has: of Cityscapes' maps, that of labelIds."""
    places = [i for i, word in enumerate(_OFTEN_B) if any(_holds(token, word) for token in _tokens(text))]
    return 1 - min(places) / len(_OFTEN_B) if places else 0.0


@functools.lru_cache(maxsize=1024)
def _tokens(text: str) -> frozenset[str]:
    return frozenset(token.lower() for token in _TOKENS.findall(text))


def _holds(token: str, word: str) -> bool:
    return (
        token in (word, word + "s") or (len(word) > 3 and token.startswith(word)) or (len(word) > 4 and word in token)
    )


def cuts(stem: str) -> Iterator[tuple[str, str]]:
    """Yield the beginnings and ends of a file's name that may say its side, each as ``(beginning, end)``.

    A cut is at a separator, or where letters and digits meet.
    """
    if not stem.isdecimal():
        yield "", stem  # scene1/input.png
    for i in range(1, len(stem)):
        before, after = stem[i - 1], stem[i]
        meet = before.isalnum() and after.isalnum() and before.isdecimal() != after.isdecimal()
        if after in "_-. " or (meet and before.isdecimal()):
            yield "", stem[i:]
        if before in "_-. " or (meet and after.isdecimal()):
            yield stem[:i], ""
