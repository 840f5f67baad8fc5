"""The floors of the house: imports point down only, and importing the library does not import TensorFlow."""

import ast
from pathlib import Path

import p2p_jax
from support.processes import run_python

PACKAGE = Path(p2p_jax.__file__).parent
FLOORS = [
    {"errors", "reporting"},
    {"storage"},
    {"images", "process"},
    {"config"},
    {"nets"},
    {"data", "distances", "published", "objectives"},
    {"cluster"},
    {"training"},
    {"sharing"},
    {"inference"},
    {"evaluation", "interop", "testing"},
    {"demo"},
    {"commands", "notebook"},
    {"main", "__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports_of(path):
    """Return every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [alias.name for alias in node.names if alias.name != "__version__"]
            yield from [f"p2p_jax.{name}" for name in names] if node.module == "p2p_jax" else [node.module]


def rooms():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "__init__":
            yield parts[0], path


def test_every_room_has_a_floor():
    assert {room for room, _ in rooms()} == set(FLOOR)


def test_imports_point_down():
    seen = 0
    for room, path in rooms():
        for module in imports_of(path):
            if module.startswith("p2p_jax."):
                target = module.split(".")[1]
                assert target != "configs", f"{path} imports a config"
                seen += target != room
                assert target == room or FLOOR[target] < FLOOR[room], f"{path} imports {module}, which is not below it"
    assert seen > 20


def test_tensorflow_and_jax_stay_in_their_rooms():
    users = {"tensorflow": set(), "jax": set()}
    for _, path in rooms():
        for module in imports_of(path):
            users.setdefault(module.split(".")[0], set()).add(str(path.relative_to(PACKAGE).with_suffix("")))
    assert {path.rpartition("/")[0] for path in users["tensorflow"]} == {"data/stream"}
    assert {path for path in users["jax"] if path.startswith("data/")} == {"data/on_device"}
    assert not any(path.startswith("data/") for package in ("flax", "optax") for path in users[package])


def test_objectives_do_not_know_each_other():
    names = {p.stem for p in (PACKAGE / "objectives").glob("*.py")} - {
        "__init__",
        "adversary",
        "averaging",
        "base",
        "diff_augment",
        "losses",
        "making",
        "metrics",
        "optim",
        "patch_nce",
        "pool",
        "precision",
        "terms",
        "unknown",
    }
    for name in names:
        found = {m.split(".")[-1] for m in imports_of(PACKAGE / "objectives" / f"{name}.py")}
        assert not found & (names - {name})
    assert names == {"pix2pix", "cyclegan", "cut"}


def test_import_is_light():
    code = "import p2p_jax, sys; print([m for m in ('tensorflow', 'tensorflow_datasets', 'torch') if m in sys.modules])"
    assert run_python(code).strip() == "[]"


EXCUSED = {"data/toy/facades.py": "one drawing, told from the roof to the pavement"}


def test_long_files_have_a_reason():
    long = {str(p.relative_to(PACKAGE)): n for _, p in rooms() if (n := len(p.read_text().splitlines())) > 300}
    assert long.keys() == EXCUSED.keys()
