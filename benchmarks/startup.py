"""Seconds from ``python -m p2p_jax.main`` to the end of the first training step, cold and with programs kept on disk.

    python -m benchmarks.startup [--config configs/quickstart.py] [--rounds 5] [--json FILE] [--config.OPTION=VALUE ...]

Every start is a process of its own in a fresh workdir; the first step has ended when its line is printed. "cold" starts
find an empty compilation cache, "warm" ones that of a start before. They alternate. Hooks in the process tell how long
imports, tracing and compiling took; they cost milliseconds. Where threads work side by side the parts overlap. The time
of the processor, of all threads together, is told beside: on a busy machine it is the steadier figure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import turns

# Runs the command as ``python -m`` does, and prints a line of JSON for everything that took time.
_BOOT = """
import importlib.machinery, json, runpy, sys, time
PACKAGES = {"jax", "flax", "optax", "orbax.checkpoint", "p2p_jax", "tensorflow", "tensorboardX", "torch"}
nested = [0.0]

def tell(part, seconds):
    print("#", json.dumps({"part": part, "seconds": seconds}), flush=True)

class Timed:
    def __init__(self, loader, name):
        self.loader, self.name = loader, name
    def __getattr__(self, name):
        return getattr(self.loader, name)
    def exec_module(self, module):
        start = time.perf_counter()
        nested.append(0.0)
        try:
            self.loader.exec_module(module)
        finally:
            whole, inner = time.perf_counter() - start, nested.pop()
            nested[-1] += whole
            tell("import " + self.name, whole - inner)
        if self.name == "jax":
            module.monitoring.register_event_duration_secs_listener(listen)

class Finder:
    def find_spec(name, path=None, target=None):
        if name not in PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            spec.loader = Timed(spec.loader, name)
        return spec

def listen(event, seconds, **facts):
    kind = {"jaxpr_trace_duration": "trace", "jaxpr_to_mlir_module_duration": "lower",
            "backend_compile_duration": "compile"}.get(event.rpartition("/")[2])
    if kind:
        tell(kind + " " + str(facts.get("fun_name", "")), seconds)

sys.meta_path.insert(0, Finder)
sys.argv[0] = "p2p_jax.main"
runpy.run_module("p2p_jax.main", run_name="__main__", alter_sys=True)
"""


def start(arguments: list[str], cache: Path) -> dict:
    """Start training once and end it after its first step.

    Returns:
      {"seconds": to the first step, "cpu_seconds": of all threads until then, "parts": {name: seconds}}.
    """
    environment = os.environ | {"P2P_JAX_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    parts: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _BOOT, *arguments, "--workdir", f"{folder}/run"]
        command += ["--config.num_steps=1", "--config.log_every=1"]
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            for line in process.stdout:
                now = time.perf_counter() - began
                if line.startswith("# "):
                    told = json.loads(line[2:])
                    parts[told["part"]] += told["seconds"]
                elif line.startswith("data:"):
                    parts["until the data are found"] = now
                elif line.startswith("compiling"):
                    parts["until compiling begins"] = now
                elif line.startswith("step 1"):
                    break
            else:
                raise SystemExit(f"the command ended with {process.wait()}")
            stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
    cpu = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")  # user and system, in ticks
    return {"seconds": now, "cpu_seconds": cpu, "parts": dict(parts)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    args, overrides = parser.parse_known_args()
    arguments = ["--config", args.config, *overrides]
    rounds = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as cache:
            rounds.append({name: start(arguments, Path(cache)) for name in ("cold", "warm")})
    summary = {}
    for name in ("cold", "warm"):
        found = [x[name] for x in rounds]
        summary[name] = {key: turns.spread(x[key] for x in found) for key in ("seconds", "cpu_seconds")}
        names = {part for x in found for part in x["parts"]}
        medians = {part: turns.spread(x["parts"].get(part, 0) for x in found)["median"] for part in names}
        summary[name]["parts"] = dict(sorted(medians.items(), key=lambda item: -item[1]))
        cpu = turns.told(summary[name]["cpu_seconds"])
        print(f"{name}: {turns.told(summary[name]['seconds'])} s to the end of the first step, {cpu} s of processor")
        for part, seconds in summary[name]["parts"].items():
            if seconds >= 0.1:
                print(f"  {seconds:6.2f} s  {part}")
    ratio = turns.spread(x["warm"]["seconds"] / x["cold"]["seconds"] for x in rounds)
    print(f"warm / cold: {turns.told(ratio)}")
    turns.report({"arguments": arguments, "rounds": args.rounds, "warm_of_cold": ratio, **summary}, args.json)


if __name__ == "__main__":
    main()
