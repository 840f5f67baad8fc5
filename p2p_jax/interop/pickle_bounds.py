"""Checks pickles before PyTorch reads them, and refuses those that would take far too much time or memory.

PyTorch does not run code in a pickle, but the operations that it does run (encoding texts, copying dicts, hashing
keys) can be repeated many times on the same large object.
"""

import pickletools
from typing import IO, Any, NamedTuple

_MOST_BYTES = 4 * 2**20  # of one pickle; the state dict of the largest network has 0.1 MB
_MOST_INSTRUCTIONS = 500_000
_MOST_IN_TUPLE = 10_000  # nested objects in a tuple: hashing it visits all of them
_MOST_COPIES = 64  # of dicts and the like; a state dict makes two
_COPYING = {"OrderedDict", "Counter", "set", "encode", "bytearray"}
_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # the first pickle in PyTorch's files
_LEGACY = 5  # pickles before the numbers in the container before PyTorch 1.6


class TooMuchError(ValueError):
    """A pickle that is too long, or that grows when it is read."""


class _Object(NamedTuple):
    """What is known of an object: the number of objects in a tuple, and the name of a function or of its creator."""

    size: int = 1
    name: str = ""


def check(stream: IO[bytes], count: int = 1) -> None:
    """Go through the instructions of consecutive pickles, without running them.

    Raises:
      TooMuchError: a pickle is too long, or would take too long to read.
      ValueError: the data is not a pickle, or is cut off.
    """
    for _ in range(count):
        try:
            _check_one(stream)
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError("a pickle whose instructions do not fit together") from error


def check_legacy(stream: IO[bytes]) -> None:
    """Check the pickles of PyTorch's container before 1.6, or the one of another program, like ``check``."""
    start = stream.tell()
    is_torch = stream.read(len(_MAGIC)) == _MAGIC
    stream.seek(start)
    check(stream, _LEGACY if is_torch else 1)


def _check_one(stream: IO[bytes]) -> None:
    start, copies, stack = stream.tell(), 0, list[_Object | None]()  # None is a mark
    memo: dict[Any, _Object | None] = {}
    for number, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        if stream.tell() - start > _MOST_BYTES or number > _MOST_INSTRUCTIONS:
            raise TooMuchError(f"a pickle of more than {_MOST_BYTES:,} bytes, or {_MOST_INSTRUCTIONS:,} instructions")
        name = instruction.name
        if name == "MARK":
            stack.append(None)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            del stack[len(stack) - len(instruction.stack_before) :]
            stack.append(_Object(name=str(argument).rpartition(" ")[2]))
        else:
            taken = _take(stack, [kind.name for kind in instruction.stack_before])
            size = 1 + sum(x.size for x in taken) if "TUPLE" in name else 1
            if size > _MOST_IN_TUPLE:
                raise TooMuchError(f"tuples of more than {_MOST_IN_TUPLE:,} objects")
            made_by = taken[0].name if name in ("REDUCE", "BUILD") else ""
            copies += made_by in _COPYING and (name == "BUILD" or taken[1].size > 1)
            if copies > _MOST_COPIES:
                raise TooMuchError(f"more than {_MOST_COPIES} copies of dicts or texts")
            stack.extend(_Object(size, made_by) for _ in instruction.stack_after)


def _take(stack: list[_Object | None], kinds: list[str]) -> list[_Object]:
    """Take the objects that an instruction uses from a stack: a given number, or all down to a mark."""
    above = list[_Object]()
    if "mark" in kinds:
        while (top := stack.pop()) is not None:
            above.append(top)
        kinds = kinds[: kinds.index("mark")]
    below = [stack.pop() for _ in kinds][::-1]
    return [x or _Object() for x in below] + above[::-1]
