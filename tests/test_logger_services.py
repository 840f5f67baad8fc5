"""W&B, MLflow and Trackio without a network hold the rows of metrics.csv, also after a kill.

MLflow and Trackio are asked through their own packages. W&B publishes no reader of its files: the records in them are
decoded by W&B's own messages, and found in the file by the code of the library.
"""

import json
import re
import signal
import subprocess

import pytest

from support.processes import environment, python, run_python
from support.runs import rows_of


def rows_of_wandb(workdir):
    """Read the files of all starts, each record a message of W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    from p2p_jax.training.loggers.weights_and_biases import _records

    found = []
    for path in sorted(workdir.glob("wandb/offline-run-*/run-*.wandb")):
        for record in map(Record.FromString, _records(path.read_bytes())):
            if record.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                found.append({key: json.loads(value) for key, value in items.items()})
    images = [row["_step"] for row in found if "samples/path" in row]
    metrics = [(row["_step"], {k: v for k, v in row.items() if not k.startswith(("_", "samples"))}) for row in found]
    return [(step, row) for step, row in metrics if row], images


def id_of(workdir, service):
    return json.loads((workdir / "loggers" / f"{service}.json").read_text())["id"]


def rows_of_mlflow(workdir):
    import mlflow

    client, run = mlflow.MlflowClient(), id_of(workdir, "mlflow")
    found = {}
    for name in client.get_run(run).data.metrics:
        for metric in client.get_metric_history(run, name):
            assert name not in found.setdefault(metric.step, {}), "a row twice"
            found[metric.step][name] = metric.value
    files = [file.path for file in client.list_artifacts(run, "images") if file.path.endswith(".png")]
    images = [int(re.search(r"samples.step.(\d+)", name)[1]) for name in files]
    return sorted(found.items()), sorted(images)


def rows_of_trackio(workdir):
    code = """
        import json, sys
        from trackio.sqlite_storage import SQLiteStorage
        print(json.dumps(SQLiteStorage.get_logs("p2p_jax", run=sys.argv[1])))
    """
    logs = json.loads(run_python(code, id_of(workdir, "trackio")))  # it reads TRACKIO_DIR when it is imported
    images = [log["step"] for log in logs if "samples" in log]
    metrics = [(log["step"], {k: v for k, v in log.items() if "/" in k}) for log in logs]
    return [(step, row) for step, row in metrics if row], images


READERS = {"wandb": rows_of_wandb, "mlflow": rows_of_mlflow, "trackio": rows_of_trackio}


@pytest.fixture(params=READERS)
def service(request, tmp_path, monkeypatch):
    pytest.importorskip(request.param, reason=f"pip install 'p2p_jax[{request.param}]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb_cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.chdir(tmp_path)
    if request.param == "mlflow":
        import mlflow

        mlflow.MlflowClient().search_experiments()  # makes the tables of the file, which takes seconds
    return request.param


TRAINING = """
    import sys
    import support
    from pathlib import Path
    from p2p_jax.training.loop import train
    from support.configs import small_config
    from support.runs import memory_data

    config = small_config(
        objective="support.networks:linear", generator=None, discriminator=None, loss=None, loggers=sys.argv[1],
        num_steps=int(sys.argv[2]), checkpoint_every=4, sample_every=4, eval_every=3, log_every=1,
    )
    data, kill_at = memory_data(config), int(sys.argv[3])

    def batches(first_step):
        for step, batch in enumerate(data.train(first_step), start=first_step):
            if step == kill_at and step:
                import os, signal, time
                time.sleep(float(sys.argv[4]))
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    train(config, Path("run"), data=data._replace(train=batches))
"""


@pytest.mark.slow
def test_a_service_holds_the_rows_of_metrics(service, tmp_path):
    """After a training that was killed, went on before its last rows, and was lengthened."""
    for steps, kill_at, status in [(20, 11, -signal.SIGKILL), (14, 0, 0), (16, 0, 0)]:
        command = python(TRAINING, service, steps, kill_at, 8)
        ended = subprocess.run(command, env=environment(1), capture_output=True, timeout=300, check=False)
        assert ended.returncode == status, ended.stderr[-2000:]
    workdir = tmp_path / "run"
    expected = [
        (int(row["step"]), {name: float(x) for name, x in row.items() if name != "step" and x})
        for row in rows_of(workdir, timed=True)
    ]
    found, images = READERS[service](workdir)
    assert [step for step, _ in expected] == list(range(1, 17))
    assert found == expected
    assert images == [0, 4, 8, 12, 14, 16]


@pytest.mark.slow
def test_a_service_that_is_chosen_later_gets_the_rows_before(service, tmp_path):
    for name, steps in [("", 4), (service, 6)]:
        run_python(TRAINING, name, steps, 0, 0, devices=1)
    found, _ = READERS[service](tmp_path / "run")
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6]
