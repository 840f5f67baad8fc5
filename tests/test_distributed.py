"""Several processes: they train like one, go on on other numbers of devices, and end together, with a sentence."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from PIL import Image

import p2p_jax.main
from p2p_jax.cluster import distributed, witness
from p2p_jax.errors import InputError
from p2p_jax.training import checkpoint
from support.configs import SGD, SMALL, SMALL_CYCLEGAN
from support.networks import PIXEL_GAN
from support.networks import TINY as TINY_GENERATOR
from support.processes import finish, processes
from support.runs import assert_rows_close

AGAIN = "start all processes again with the same command, on any number of hosts"
# A config file that also notes which images its process reads.
RECORDING = """
import jax, numpy as np
from p2p_jax.data.stream import pipeline
read = pipeline._train_batches

def noted(*args):
    for step, batch in enumerate(read(*args)):
        np.save(f"{FOLDER}/{step}_{jax.process_index()}_of_{jax.process_count()}.npy", batch["real_b"])
        yield batch

pipeline._train_batches = noted
"""


def write_config(path, options, record=None):
    options = {"distributed": False, "keep_checkpoints": 9, **options}
    text = f"FOLDER = {str(record)!r}" + RECORDING if record else ""
    path.write_text(
        f"from ml_collections import ConfigDict\n{text}\ndef get_config():\n    return ConfigDict({options!r})\n"
    )
    return path


def saved(workdir, step):
    """Return a saved state, read by this process, which has two devices."""
    shapes = checkpoint.saved_shapes(workdir, step)
    return checkpoint.restore_part(
        workdir, step, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)
    )


def parameters(workdir, step):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(saved(workdir, step)["params"])])


@pytest.mark.slow
def test_two_processes_train_like_one_and_one_goes_on_with_fewer_devices(tmp_path, capsys):
    rng, data, records = np.random.RandomState(0), tmp_path / "data", [tmp_path / "one_reads", tmp_path / "two_read"]
    for folder, count in ((data / "train", 9), (data / "val", 3), *((record, 0) for record in records)):
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = np.kron(rng.randint(0, 256, (6, 12, 3)), np.ones((3, 3, 1)))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    options = SMALL | {
        "objective": "support.networks:linear",
        "extra": {"noise": 0.0},  # every device draws its own: on other numbers of devices it would be another
        "data": {**SMALL["data"], "source": "side_by_side", "dir": str(data)},
        "optimizer": SGD,
        "distances": {"features": "support.features:colours"},
        "best_metric": "kid",
    }
    one, two = tmp_path / "one", tmp_path / "two"
    configs = [write_config(tmp_path / f"config{i}.py", options, records[i]) for i in range(2)]
    pair_arguments = ["--config", configs[1], "--workdir", two, "--config.num_steps=2", "--config.distributed=True"]
    with (
        processes(1, 4, "--config", configs[0], "--workdir", one) as alone,
        processes(2, 2, *pair_arguments) as pair,
    ):
        first, second = finish(pair)
        finish(alone)
    assert "processes: 2, with 4 devices together" in first[0]
    assert "step 2/2" in first[0]
    assert second[0] == ""
    assert "step 2  distances over 3 images" in first[0]

    start = parameters(one, 2)
    assert len(start) == 3 * 3 + 3
    np.testing.assert_allclose(parameters(two, 2), start, atol=1e-6)
    for step in range(2):
        shares = [np.load(records[1] / f"{step}_{i}_of_2.npy") for i in range(2)]
        assert [len(share) for share in shares] == [2, 2]
        np.testing.assert_array_equal(np.concatenate(shares), np.load(records[0] / f"{step}_0_of_1.npy"))
        assert len({image.tobytes() for share in shares for image in share}) == 4

    config = write_config(tmp_path / "config.py", options)
    p2p_jax.main.run(["--config", str(config), "--workdir", str(two)])  # with the two devices of this process
    assert "found a checkpoint of step 2" in capsys.readouterr().out
    assert_ended_alike(one, two)


def assert_ended_alike(one, two):
    np.testing.assert_allclose(parameters(two, 4), parameters(one, 4), atol=1e-6)
    assert np.abs(parameters(one, 4) - parameters(one, 2)).max() > 1e-4
    assert_rows_close(one, two, 4)


# The command on noise in memory, so that TensorFlow is not loaded, and with a shorter patience.
WITHOUT_TENSORFLOW = """
    import support, jax, p2p_jax.main, p2p_jax.training.start
    from support.runs import memory_data
    from p2p_jax.cluster import distributed

    def load(config, process_index, process_count):
        data, share = memory_data(config), config.batch_size // process_count

        def train(step):
            for batch in data.train(step):
                yield {k: v[process_index * share :][:share] for k, v in batch.items()}

        def validation(batch_size):
            return data.validation(batch_size) if process_index == 0 else iter(())

        return data._replace(train=train, validation=validation)

    p2p_jax.training.start.load = load
    distributed._SILENCE_LIMIT = 5
    p2p_jax.main.run()
"""


@pytest.mark.slow
def test_cyclegan_with_its_pool_goes_on_with_fewer_devices(tmp_path, monkeypatch):
    """In float64: in float32 rounding alone moves a network of so few pixels by 1e-3 within a step."""
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    options = {
        **SMALL_CYCLEGAN,
        "generator": TINY_GENERATOR,
        "discriminator": PIXEL_GAN,
        # The pool is not full in these steps: once it is, what is drawn of it depends on the number of devices.
        "loss": {"lambda_identity": 0.5, "pool_size": 50},
        "optimizer": SGD,
        "dtype": "float64",
        "param_dtype": "float64",
    }
    one, two = tmp_path / "one", tmp_path / "two"
    arguments, code = ["--config", write_config(tmp_path / "config.py", options), "--workdir"], WITHOUT_TENSORFLOW
    with (
        processes(1, 4, *arguments, one, code=code) as alone,
        processes(2, 2, *arguments, two, "--config.num_steps=2", code=code) as pair,  # told by variables alone
    ):
        finish(pair)
        finish(alone)
    with processes(1, 2, *arguments, two, code=code) as alone:
        assert "found a checkpoint of step 2" in finish(alone)[0][0]
    assert_ended_alike(one, two)
    filled = [saved(two, step)["pool"]["a"]["filled"] for step in (2, 4)]
    assert [np.flatnonzero(x).tolist() for x in filled] == [
        [0, 1, 12, 13, 24, 25, 36, 37],  # shares of 12 slots for 4 devices, 2 items each
        [0, 1, 2, 3, 4, 5, 12, 13, 24, 25, 26, 27, 28, 29, 36, 37],  # shares of 25 for 2, in which 4 items are stored
    ]


TINY = """
import jax, jax.numpy as jnp
from p2p_jax.objectives import DEVICE_AXIS, Objective

def make(config):
    def init(rng, batch):
        return {"step": jnp.int32(0), "params": {"mean": jnp.float32(0)}}

    def update(state, batch, rng):
        error = jax.lax.pmean(batch["real_a"].mean(), DEVICE_AXIS) - state["params"]["mean"]
        return {"step": state["step"] + 1, "params": {"mean": state["params"]["mean"] + error / 2}}, {"error": error}

    def evaluate(state, batch, rng):
        return {"l1": jnp.abs(batch["real_a"]).mean((1, 2, 3))}, {"real": batch["real_a"]}

    return Objective(init, update, lambda state, batch, rng: {}, evaluate)
"""


@contextlib.contextmanager
def endless_pair(tmp_path):
    """Start two processes that train for ever, and wait for their first checkpoint."""
    (tmp_path / "tiny.py").write_text(TINY)
    rarely = {"num_steps": 10**6, "eval_every": 10**6, "sample_every": 10**6}
    often = {"log_every": 100, "checkpoint_every": 100, "keep_checkpoints": 2}
    tiny = {"objective": "tiny:make", "generator": None, "discriminator": None, "loss": None}
    config = write_config(tmp_path / "config.py", {**SMALL, **tiny, **rarely, **often})
    arguments = ["--config", config, "--workdir", tmp_path / "run", "--config.distributed"]
    with processes(2, 2, *arguments, code=WITHOUT_TENSORFLOW, folders=[tmp_path] * 2) as pair:
        until = time.monotonic() + 300
        while not checkpoint.saved_steps(tmp_path / "run"):
            if any(process.poll() is not None for process in pair):
                finish(pair)
            assert time.monotonic() < until
            time.sleep(0.1)
        yield pair


@pytest.mark.slow
@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("who", [0, 1])
def test_the_end_of_one_process_ends_the_other_with_one_sentence(who, what, tmp_path):
    with endless_pair(tmp_path) as pair:
        pair[who].send_signal(what)
        _, err = pair[1 - who].communicate(timeout=60)
    assert pair[1 - who].returncode != 0
    (line,) = err.splitlines()  # and no stack of C++
    assert f"stopped: process {who} no longer answers" in line
    (step,) = re.findall(rf"run is saved at step ([\d,]+): {AGAIN}", line)
    assert int(step.replace(",", "")) >= 100


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_stopping_one_process_stops_all_in_order(signum, status, tmp_path):
    with endless_pair(tmp_path) as pair:
        pair[1].send_signal(signum)
        (out, err), (_, other) = finish(pair, status)
    (step,) = re.findall(r"stopped at step ([\d,]+); run the same command to resume", out)
    assert int(step.replace(",", "")) == checkpoint.saved_steps(tmp_path / "run")[-1]
    assert err == other == "" and not (tmp_path / "run" / ".lock").exists()


@pytest.mark.slow
def test_one_process_goes_on_as_two_where_the_batch_can_be_shared(tmp_path):
    options = SMALL | {
        "objective": "support.networks:linear",
        "generator": None,
        "discriminator": None,
        "loss": None,
        "extra": {"noise": 0.0},
        "optimizer": SGD,
    }
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ["--config", write_config(tmp_path / "config.py", options), "--workdir"]
    for folder, steps in ((one, 4), (two, 2)):
        with processes(1, 2, *arguments, folder, f"--config.num_steps={steps}", code=WITHOUT_TENSORFLOW) as alone:
            finish(alone)
    with processes(2, 1, *arguments, two, "--config.distributed", code=WITHOUT_TENSORFLOW) as pair:
        (out, err), _ = finish(pair)
    assert "found a checkpoint of step 2" in out and "processes 1 before, 2 now" in out and err == ""
    assert_ended_alike(one, two)
    odd = [*arguments, tmp_path / "odd", "--config.batch_size=3"]
    with processes(1, 1, *odd, "--config.num_steps=2", code=WITHOUT_TENSORFLOW) as alone:
        finish(alone)
    with processes(2, 1, *odd, "--config.distributed", code=WITHOUT_TENSORFLOW) as pair:
        for _, err in finish(pair, status=1):
            (line,) = err.splitlines()
            assert "config.batch_size=3 cannot be split over 2 devices; choose a multiple of 2" in line


CHECKS = """
    import json, pathlib, sys, support, jax
    from support.configs import small_config
    from p2p_jax.cluster import distributed
    from p2p_jax.errors import InputError
    distributed._SHARED_LIMIT = 2
    distributed._initialize()
    index, folder = jax.process_index(), pathlib.Path(sys.argv[1])
    checks = {
        "another data.dir": (distributed._require_same_config, small_config(data__dir=str(index))),
        "another seed": (distributed._require_same_config, small_config(seed=index)),
        "shared": (distributed._require_shared, folder / "new" / "run"),
        "not shared": (distributed._require_shared, folder / str(index)),
        "same": (distributed.require_same, "the text", "ä", "mend it"),
        "not same": (distributed.require_same, "the text", "ä" * (index + 1), "mend it"),
    }
    said = {}
    for name, (check, *arguments) in checks.items():
        try:
            check(*arguments)
        except InputError as error:
            said[name] = str(error)
    print(json.dumps(said))
    jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_what_must_be_the_same_for_all(tmp_path):
    with processes(2, 1, tmp_path, code=CHECKS) as pair:
        said = [json.loads(out.splitlines()[-1]) for out, _ in finish(pair)]
    for index, found in enumerate(said):
        assert list(found) == ["another seed", "not shared", "not same"]
        assert found["not same"] == "the text of process 1 differs from that of process 0; mend it"
        assert found["not shared"].startswith(f"{tmp_path / str(index)} is not shared by all processes: process 1")
        assert (
            "the config of process 1 differs from that of process 0; start all with the same" in found["another seed"]
        )
    assert said[1]["another seed"].endswith("\n  config.seed: process 0 has 0, this one 1")
    assert list((tmp_path / "new" / "run").iterdir()) == []


@pytest.mark.slow
def test_an_error_ends_all_processes_with_status_1(tmp_path):
    config = write_config(tmp_path / "config.py", SMALL)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    code = WITHOUT_TENSORFLOW.replace("_SILENCE_LIMIT = 5", "_SHARED_LIMIT = 1")
    with processes(
        2, 1, "--config", config, "--workdir", "run", "--config.distributed", code=code, folders=folders
    ) as pair:
        for _, err in finish(pair, status=1):
            assert "error: run is not shared by all processes: process 1 cannot see what process 0 writes" in err
            assert "Traceback" not in err


LATE = """
    import sys, support
    from pathlib import Path
    from support.configs import small_config
    from p2p_jax.cluster import distributed
    from p2p_jax.errors import InputError
    distributed._HOST_FAREWELL, distributed._FAREWELL = 1, 60
    with distributed.joined(small_config(distributed=True), Path(sys.argv[1])):
        raise InputError("a fault of all")
"""


@pytest.mark.slow
def test_a_process_that_leaves_last_says_no_more_than_its_error(tmp_path):
    with processes(2, 1, tmp_path, code=LATE) as pair:
        said = [process.communicate(timeout=50)[1] for process in pair]
    assert said == ["error: a fault of all\n"] * 2
    assert [process.returncode for process in pair] == [1, -signal.SIGABRT]  # JAX ended the second one


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"JAX_PROCESS_ID": "0"}, "JAX_PROCESS_ID is set, but not JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"),
        ({"JAX_COORDINATOR_ADDRESS": "host"}, "JAX_COORDINATOR_ADDRESS=host is not HOST:PORT"),
        (
            {"JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID=2 must be one of 0 to JAX_NUM_PROCESSES - 1, and JAX_NUM_PROCESSES is 2",
        ),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is two"),
    ],
)
def test_variables_that_cannot_be(given, message, monkeypatch):
    if len(given) == 1 and "JAX_PROCESS_ID" in given and given["JAX_PROCESS_ID"] == "0":
        rest = {}
    else:
        rest = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    for name, value in (rest | given).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=re.escape(message)):
        distributed._arguments()


def test_a_port_in_use_is_an_error(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", f"localhost:{taken.getsockname()[1]}")
        monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
        monkeypatch.setenv("JAX_PROCESS_ID", "0")
        with pytest.raises(InputError, match="cannot listen there .*; take another port"):
            distributed._arguments()


def test_slurm(monkeypatch):
    """A step of several tasks is joined without being asked; the script given to sbatch, which is no step, is not."""
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert distributed._slurm_tasks() == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert distributed._slurm_tasks() == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert distributed._arguments() == {}  # JAX's choice: GPU n for task n of a node
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "2")
    assert distributed._arguments() == {"local_device_ids": []}  # all those that are its own
    monkeypatch.delenv("SLURM_GPUS_PER_TASK")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert distributed._arguments() == {"local_device_ids": []}  # SLURM's choice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "4")
    assert distributed._arguments() == {"local_device_ids": []}  # all GPUs of a node for its only task


@pytest.mark.parametrize(
    ("variables", "hosts"),
    [
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, 1),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, 4),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1", "MEGASCALE_NUM_SLICES": "2"}, 4),
        ({"TPU_SKIP_MDS_QUERY": "1"}, 1),
        ({}, 2),
        ({"JAX_PLATFORMS": "cpu"}, 1),
        ({"JAX_PLATFORMS": ""}, 2),
    ],
)
def test_tpu_pods(variables, hosts, monkeypatch):
    assert distributed._tpu_hosts() == 1  # without a TPU
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(distributed.os.path, "exists", lambda path: path == "/dev/vfio/0")
    monkeypatch.setattr(distributed, "_ask_google", {"worker-network-endpoints": "a:1:x,b:2:y"}.get)
    for name in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed._tpu_hosts() == hosts


@pytest.mark.slow
def test_what_is_said_when_others_cannot_be_found(tmp_path):
    config = write_config(tmp_path / "config.py", SMALL)
    with processes(1, 1, "--config", config, "--workdir", tmp_path / "run", "--config.distributed") as started:
        ((_, err),) = finish(started, status=1)
    assert "set JAX_COORDINATOR_ADDRESS=HOST:PORT (of process 0, a free port), JAX_NUM_PROCESSES and" in err
    assert "Traceback" not in err
    code = "from p2p_jax import main; from p2p_jax.cluster import distributed; distributed._START_LIMIT = 1; main.run()"
    with processes(2, 1, "--config", config, "--config.distributed", code=code) as started:
        started[0].kill()
        ((_, err),) = finish(started[1:], status=1)
    assert err.startswith("error: not all processes started within 1 s: start one for each index")
    assert not (tmp_path / "run").exists()


DEATH = b"""E1127 17:32:36.736134   27846 coordination_service.cc:1549] [90] Use error polling to propagate the \
following error to all tasks: UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):
3
11
The tasks have crashed. Check the task logs for an earlier error, or scheduler events to debug further.
F1127 17:32:36.736792   27857 client.h:80] Terminating process because the JAX distributed service \
detected fatal errors.
*** Check failure stack trace: ***
    @     0x7f9780440634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""


@pytest.mark.parametrize(
    "words", [b"Failed to send RPC to coordination service", b"Socket closed", b"recvmsg:Connection reset by peer"]
)
def test_a_cut_connection_means_process_0_however_it_is_called(words, tmp_path):
    with (tmp_path / "out").open("wb") as target:
        filtered = witness.Filter(target.fileno())
        filtered.take(DEATH.splitlines()[-3] + b" UNAVAILABLE: " + words + b" if a task is unhealthy.\n")
    assert filtered.end().startswith("process 0 no longer answers")


def test_the_witness_passes_on_what_is_not_of_an_end(tmp_path):
    def passed_on(*parts, pause=False):
        with (tmp_path / "out").open("wb") as target:
            words = witness.Filter(target.fileno())
            for part in parts:
                words.take(part)
                if pause:
                    words.pause()
            cause = words.end()
        return (tmp_path / "out").read_bytes(), cause

    plain = b"warning: one\npart of a line"
    assert passed_on(plain, pause=True) == passed_on(plain) == (plain, "")
    own = b"F1127 17:32:36.7 27 gpu_timer.cc:80] Check failed\n*** Check failure stack trace: ***\n"
    assert passed_on(own) == (own, "")
    first = b"W1127 17:32:36.7 27 preemption_sync_manager.cc:147] Failed to retrieve preemption notice: Socket closed\n"
    gone = "process 3, 11 no longer answers (killed, stopped or cut off)"
    assert passed_on(plain + b"\n", DEATH) == (plain + b"\n", gone)
    assert passed_on(*(bytes([x]) for x in first + DEATH), pause=True) == (b"", gone)
    assert passed_on(first) == (first, "")
    said = DEATH.partition(b"F1127")[0]
    assert passed_on(said) == (said, "")  # the end did not come


def test_the_witness_speaks_only_for_those_who_cannot(tmp_path):
    steps = tmp_path / "checkpoints"
    assert f"{tmp_path} has no checkpoint yet: {AGAIN}." in witness.sentence(tmp_path)
    for step in ("900", "1000", "1100.orbax-checkpoint-tmp"):
        (steps / step / "config").mkdir(parents=True)
        (steps / step / "config" / "metadata").touch()
    for last_words, expected in ((witness.FINISHED, ""), ("", witness.sentence(tmp_path) + "\n")):
        watching = distributed._call_witness(tmp_path, stderr=subprocess.PIPE)
        assert watching.communicate(last_words, timeout=30)[1] == expected
    assert f"the run is saved at step 1,000: {AGAIN}." in expected
