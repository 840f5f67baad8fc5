"""How every process of the tests starts: simulated devices, and programs that compile quickly and are kept.

It sets variables that JAX reads when it starts, so import it first; processes that tests start inherit them.
"""

import functools
import gc
import importlib.metadata
import os
import zlib
from pathlib import Path

_JAXLIB = importlib.metadata.version("jaxlib")
# Tests compile much and compute little: optimisation passes that cost more than they gain here are left out.
CHEAP_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
)
if tuple(map(int, _JAXLIB.split(".")[:3])) < (0, 11, 1):  # which has no other emitters any more
    CHEAP_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
_LIMIT = 2 * 2**30  # bytes of programs on disk
_CHECKED = ".checked"  # a file as old as the last look for damaged programs


def xla_flags(devices: int | str) -> str:
    """Return ``XLA_FLAGS`` for so many simulated devices."""
    return f"--xla_force_host_platform_device_count={devices} {CHEAP_COMPILATION}"


os.environ["XLA_FLAGS"] = xla_flags(os.environ.get("P2P_JAX_TEST_DEVICES", "2"))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

from p2p_jax.data.toy import facades
from p2p_jax.nets import convolution
from p2p_jax.process import cache_folder


def _programs_folder() -> Path:
    """Return where programs are kept: one folder for each version, set of flags and kind of processor."""
    flags = f"{zlib.crc32(CHEAP_COMPILATION.encode()):08x}"
    return cache_folder.directory() / "tests" / f"jaxlib-{_JAXLIB}-{flags}-{cache_folder.processor()}"


if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_programs_folder())
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes many objects that are no garbage: Python's own thresholds would spend a sixth of the time on the search.
gc.set_threshold(200_000, 20, 100)

# Products over patches and Winograd's way are for wide layers; in these narrow ones they only take longer to compile.
# Tests of them ask for the fixture ``fast_convolutions``.
choose_fast_convolutions = convolution.detours
convolution.detours = lambda steps: False


# Tests train on the toy facades hundreds of times, so a process draws each house once. Tests of drawing use this one.
draw_facade = facades.render
facades.render = functools.lru_cache(maxsize=4096)(facades.render)


def leave_home() -> None:
    """Let libraries and browsers keep their settings and caches, such as lists of fonts, beside the programs."""
    folder = _programs_folder().parent / "home"
    places = {"XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "IPYTHONDIR": "ipython", "KERAS_HOME": "keras"}
    for variable, name in places.items():
        os.environ[variable] = str(folder / name)


def tidy_programs() -> list[str]:
    """Delete kept programs that are damaged, and those unused for longest; return the names of the damaged ones.

    A process that is killed while it writes leaves half a file, which JAX neither reads nor replaces. A folder that the
    user has named is left alone.
    """
    folder = _programs_folder()
    if os.environ["JAX_COMPILATION_CACHE_DIR"] != str(folder):
        return []
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp = folder / _CHECKED
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    stamp.touch()
    damaged = [path for path in folder.glob("*-cache") if path.stat().st_mtime >= since and _is_damaged(path)]
    for path in damaged:
        path.unlink(missing_ok=True)
    cache_folder.remove_oldest(folder.parent, _LIMIT)
    return [path.name for path in damaged]


def _is_damaged(path: Path) -> bool:
    from jax._src.compilation_cache import decompress_executable

    try:
        decompress_executable(path.read_bytes())
    except Exception:  # of whichever library compressed it
        return True
    return False
