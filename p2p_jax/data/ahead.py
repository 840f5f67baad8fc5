"""Things worked at in threads, a few ahead of what is taken, in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    most: int,
    size: Callable[[_Item], float] = lambda item: 0,
    limit: float = 0,
) -> Iterator[tuple[_Item, "Future[_Result]"]]:
    """Run a function over items in a pool, ahead of what is taken.

    Args:
      pool: of threads.
      function: of an item.
      items: in the order of the results.
      most: items that are worked at ahead of the one that is taken.
      size: of an item.
      limit: for the total size of the items in work; a single item may be larger.
    """
    running: deque[tuple[_Item, Future[_Result]]] = deque()
    for item in items:
        while running and (len(running) > most or sum(size(one) for one, _ in running) + size(item) > limit):
            yield running.popleft()
        running.append((item, pool.submit(function, item)))
    while running:
        yield running.popleft()
