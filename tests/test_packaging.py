"""The wheel and the source archive hold what is needed and nothing else; the extras, the citation and the templates."""

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = {str(path.relative_to(ROOT)) for path in (ROOT / "p2p_jax").rglob("*.py")}
DATA = {
    str(path.relative_to(ROOT))
    for path in (ROOT / "p2p_jax").rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
}
CONFIGS = {path.name for path in (ROOT / "configs").glob("*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both out of a copy of what git knows of: a checkout holds runs and virtual environments."""
    pytest.importorskip("build", reason="pip install build")
    pytest.importorskip("setuptools", "77", reason="pip install 'setuptools>=77'")
    folder = tmp_path_factory.mktemp("build")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a checkout of git")
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "../dist", "."]
    made = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    return folder / "dist"


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_its_configs(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        about = {name.partition(".dist-info/")[2] for name in wheel.namelist()} - {""}
    assert names == CODE | DATA | {f"p2p_jax/configs/{name}" for name in CONFIGS}
    assert "p2p_jax/py.typed" in names and len(DATA) > 15
    assert about == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
    head = message_from_string(metadata)
    assert "Typing :: Typed" in head.get_all("Classifier")
    assert {line.partition(",")[0] for line in head.get_all("Project-URL")} >= {"Documentation", "Issues", "Source"}
    assert not re.search(r"\]\((?!https?:|#)", head.get_payload()), "a link that leads nowhere on an index"


@pytest.mark.slow
def test_the_source_archive_holds_what_the_documentation_mentions(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert CODE | DATA | {f"configs/{name}" for name in CONFIGS} <= names
    assert {"LICENSE", "README.md", "CITATION.cff", "examples/gcgan.py", "docs/images/quickstart.png"} <= names
    rooms = {name.partition("/")[0] for name in names if "/" in name}
    assert rooms == {"p2p_jax", "p2p_jax.egg-info", "configs", "docs", "examples", "notebooks"}
    assert not [name for name in names if name.endswith((".pyc", ".onnx", ".whl"))]


def test_messages_name_extras_that_there_are():
    """And what is printed works beside a wheel as beside a checkout: pip takes the name for what is installed."""
    try:
        known = set(importlib.metadata.metadata("p2p_jax").get_all("Provides-Extra"))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("p2p_jax is imported and not installed")
    text = "".join(path.read_text() for path in (ROOT / "p2p_jax").rglob("*.py"))
    text += "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    printed = set(re.findall(r"pip install[^\n`]*?(?:p2p_jax|\.)\[([\w,]+)\]", text))
    named = {extra for extras in printed for extra in extras.split(",")}
    assert {"data", "tb", "images", "cuda13", "wandb"} <= named
    setup = (ROOT / "setup.py").read_text()
    assert [extra for extra in sorted(named - known) if f'"{extra}": [' not in setup] == []


def test_the_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f'__version__ = "{found["version"]}"' in (ROOT / "p2p_jax" / "__init__.py").read_text()
    assert f'version="{found["version"]}"' in (ROOT / "setup.py").read_text()
    assert found["license"] == "MIT" and len(found["references"]) == 3


def test_issue_templates_ask_for_what_helps():
    yaml = pytest.importorskip("yaml")
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    asked = yaml.safe_load((folder / "problem.yml").read_text())["body"]
    assert [part["id"] for part in asked if part["type"] != "markdown"] == ["command", "output", "machine"]
    for path in folder.glob("*.yml"):
        for name in re.findall(r"blob/main/([\w/.]+)", path.read_text()):
            assert (ROOT / name).is_file(), name


def test_the_image_of_a_container_takes_extras_that_there_are():
    text = (ROOT / "Dockerfile").read_text()
    (extras,) = re.findall(r"'/src\[([\w,]+)\]'", text)
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": [' in setup for extra in extras.split(","))
    assert len([line for line in text.splitlines() if line and line[0] != "#"]) <= 10
