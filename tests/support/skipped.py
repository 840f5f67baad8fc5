"""Tests that are skipped for lack of a package, run again where it is installed.

With ``P2P_JAX_TEST_SKIPPED=FILE`` only the tests that FILE lists are run, all if it is not there. In the end it lists
those that were skipped, each with its reason. ``python tests/support/skipped.py FILE`` prints them and fails if one of
them still needs something that can be installed.
"""

import json
import os
import re
import sys
from pathlib import Path

VARIABLE = "P2P_JAX_TEST_SKIPPED"


class Skipped:
    """A plugin of pytest, in the process that the user starts and in each worker.

    Args:
      file: the list, read now.
    """

    def __init__(self, file: Path):
        self._file = file
        self._chosen = json.loads(file.read_text()) if file.exists() else None
        self._found: dict[str, str] = {}

    def pytest_ignore_collect(self, collection_path):
        if self._chosen is None or collection_path.is_dir():
            return None
        return collection_path.name not in {Path(_file_of(name)).name for name in self._chosen} or None

    def pytest_collection_modifyitems(self, config, items):
        if self._chosen is None:
            return
        chosen = {item: item.nodeid in self._chosen or _file_of(item.nodeid) in self._chosen for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not chosen[item]])
        items[:] = [item for item in items if chosen[item]]

    def pytest_collectreport(self, report):
        self._take(report)

    def pytest_runtest_logreport(self, report):
        self._take(report)

    def _take(self, report) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            *_, reason = report.longrepr
            self._found[report.nodeid] = reason.removeprefix("Skipped: ")

    def pytest_testnodedown(self, node):
        """Take what a worker has found."""
        self._found |= getattr(node, "workeroutput", {}).get("skipped", {})

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["skipped"] = self._found
        else:
            self._file.write_text(json.dumps(self._found, indent=1))


def register(config) -> None:
    """Add the plugin if it is asked for."""
    if file := os.environ.get(VARIABLE):
        config.pluginmanager.register(Skipped(Path(file)))


def needs(reason: str) -> bool:
    """Return whether a test was skipped for lack of something that can be installed."""
    return re.search("could not import|install", reason) is not None


def _file_of(name: str) -> str:
    return name.partition("::")[0]


if __name__ == "__main__":
    left = json.loads(Path(sys.argv[1]).read_text())
    for test, why in left.items():
        print(f"skipped everywhere: {test}: {why}")
    sys.exit(any(map(needs, left.values())))
