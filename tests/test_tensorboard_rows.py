"""After any kill and resume ``metrics.csv`` and TensorBoard hold each row once; what a spreadsheet does costs none."""

import collections
import random
import shutil
import signal
import struct
import subprocess

import numpy as np
import pytest

from p2p_jax.commands import runs
from p2p_jax.errors import InputError
from p2p_jax.evaluation.report import read_panels
from p2p_jax.training import metrics_file
from p2p_jax.training.checkpoint import saved_steps
from p2p_jax.training.loop import train
from p2p_jax.training.monitoring import Log
from support.configs import small_config
from support.processes import environment, python
from support.runs import memory_data, rows_of

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


def events_of(folder):
    """Read event files as TensorBoard does: in the order of their names, with their checksums."""
    from tensorboardX.record_writer import masked_crc32c

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        assert path.name.startswith("events.out.tfevents."), path
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
            record = data[12 : 12 + length]
            assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(record)
            data = data[16 + length :]
            yield event_pb2.Event.FromString(record)


def scalars_of(workdir):
    """Return {(tag, step): [values]} of all that lies on the disk."""
    found = collections.defaultdict(list)
    for event in events_of(workdir / "tensorboard"):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found[value.tag, event.step].append(value.simple_value)
    return found


def images_of(workdir):
    return [
        event.step
        for event in events_of(workdir / "tensorboard")
        for value in event.summary.value
        if value.WhichOneof("value") == "image"
    ]


def shown_by_tensorboard(workdir):
    """Return what its reader keeps: a start drops what it is told to."""
    kept = []
    for event in events_of(workdir / "tensorboard"):
        if event.HasField("session_log") and event.session_log.status == 1:
            kept = [one for one in kept if one[1] < event.step]
        kept += [(value.tag, event.step) for value in event.summary.value]
    return kept


def assert_each_row_once(workdir):
    expected = {
        (name, int(row["step"])): np.float32(cell)
        for row in rows_of(workdir, timed=True)
        for name, cell in row.items()
        if name != "step" and cell
    }
    found = scalars_of(workdir)
    assert found.keys() == expected.keys()
    assert all(len(values) == 1 for values in found.values())
    np.testing.assert_array_equal([found[key][0] for key in expected], list(expected.values()))
    shown = shown_by_tensorboard(workdir)
    assert len(shown) == len(set(shown)) and expected.keys() <= set(shown)


def log_of(folder, step=0, columns=("train/a", "eval/b")):
    return Log(folder, list(columns), step, small_config())


def write(folder, steps, start=0, columns=("train/a", "eval/b")):
    log = log_of(folder, start, columns)
    for step in steps:
        log.metrics(step, {"train/a": step / 3} | ({"eval/b": 0.5} if step % 2 == 0 else {}))
        if step % 2 == 0:
            log.samples(step, {"input": np.zeros((1, 8, 8, 3), np.float32)})
    log.close()


def test_rows_after_the_checkpoint_are_written_once(tmp_path):
    write(tmp_path, range(1, 8))
    assert_each_row_once(tmp_path)
    write(tmp_path, range(5, 10), start=4)  # in the same second, as a rule
    assert_each_row_once(tmp_path)
    assert sorted(images_of(tmp_path)) == [2, 4, 6, 8]
    before = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    write(tmp_path, range(10, 12), start=9)  # nothing to mend
    assert before < {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert_each_row_once(tmp_path)
    assert len(rows_of(tmp_path)) == 11


@pytest.mark.parametrize("what", ["cut", "gone", "doubled", "noise", "emptied"])
def test_files_of_a_kill_are_mended(what, tmp_path, capsys):
    write(tmp_path, range(1, 7))
    (path,) = (tmp_path / "tensorboard").iterdir()
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-70])
    elif what == "gone":
        path.unlink()
    elif what == "emptied":
        path.write_bytes(b"")
    elif what == "noise":
        with path.open("ab") as file:
            file.write(b"\0" * 100)
    else:
        shutil.copy(path, path.with_name(path.name + ".copy"))
    write(tmp_path, range(7, 9), start=6)
    assert_each_row_once(tmp_path)
    assert len(rows_of(tmp_path)) == 8
    if what in ("cut", "doubled", "noise"):
        assert sorted(set(images_of(tmp_path)) | {6}) == [2, 4, 6, 8]
    told = "rows missing from TensorBoard were added from metrics.csv" in capsys.readouterr().out
    assert told == (what in ("cut", "gone", "emptied"))


def test_what_others_write_beside_it_stays(tmp_path):
    write(tmp_path, range(1, 5))
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(tmp_path / "tensorboard"), filename_suffix=".mine") as writer:
        writer.add_text("note", "of my own", 2)
        writer.add_scalar("mine", 1.5, 3)
    write(tmp_path, range(3, 5), start=2)
    found = scalars_of(tmp_path)
    assert ("mine", 3) not in found  # it is after the checkpoint
    tags = {value.tag for event in events_of(tmp_path / "tensorboard") for value in event.summary.value}
    assert tags == {"train/a", "eval/b", "samples", "note/text_summary"}


TABLE = "step,train/a,eval/b\n1,0.25,\n2,0.5,0.125\n3,1e-05,nan\n4,-0.75,0.0625\n"


def excel_german(text):
    return "\ufeff" + text.replace(",", ";").replace(".", ",").replace("\n", "\r\n")


REWRITTEN = {
    "line ends": lambda text: text.replace("\n", "\r\n"),
    "a byte order mark": lambda text: "\ufeff" + text,
    "semicolons": lambda text: text.replace(",", ";"),
    "tabs": lambda text: text.replace(",", "\t"),
    "decimal commas": excel_german,
    "decimal commas in quotes": lambda text: "\n".join(
        ",".join(f'"{x.replace(".", ",")}"' if "." in x else x for x in line.split(",")) for line in text.split("\n")
    ),
    "told separator": lambda text: "sep=;\r\n" + text.replace(",", ";"),
    "quotes": lambda text: "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in text.strip().split("\n")
    ),
    "empty lines and columns": lambda text: text.replace("\n", ",,\n") + ",,,,\n",
    "another order": lambda text: "eval/b,step,train/a\r\n,1,0.25\r\n0.125,2,0.5\r\nnan,3,1e-05\r\n0.0625,4,-0.75\r\n",
    "sorted the other way": lambda text: text[:20] + "".join(reversed(text[20:].splitlines(keepends=True))),
}


@pytest.mark.parametrize("how", REWRITTEN)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_a_spreadsheet_wrote_is_read_and_kept(how, encoding, tmp_path, capsys):
    path = tmp_path / "metrics.csv"
    path.write_bytes(REWRITTEN[how](TABLE).encode(encoding))
    before = path.read_bytes()
    log_of(tmp_path, 3).close()
    assert path.read_text() == TABLE.replace("4,-0.75,0.0625\n", "")
    assert (tmp_path / "metrics.csv.aside-1").read_bytes() == before
    told = [line for line in capsys.readouterr().out.splitlines() if "set aside as metrics.csv.aside-1" in line]
    assert len(told) == 1 and "3 of its rows are kept" in told[0]
    assert_each_row_once(tmp_path)


@pytest.mark.parametrize(
    ("contents", "kept", "why"),
    [
        (b"", [], "it is empty"),
        (b"\r\n\r\n", [], "it is empty"),
        (bytes(range(256)) + b"\n\n", [], "it is"),
        (b"a,b\n1,2\n", [], "does not name the columns"),
        (b"step,train/a,train/a\n1,2,3\n", [], "does not name the columns"),
        (b"PK\x03\x04\x14\0\x06\0 an xlsx file", [], "it is not a text file"),
        (b"step,train/a,eval/b\n1,0.25,\n2,01. Mai,\n3,0.5,\n", [1, 3], "1 could not be read with certainty"),
        (b"step;train/a;eval/b\n1;1.234;\n2;0,5;\n", [2], "1 could not be read with certainty"),  # 1234 or 1.234?
        (b'step,train/a,eval/b\n1,"1,234",\n2,0.5,\n', [2], "1 could not be read with certainty"),  # the same
        (b"step,train/a,eval/b\n1.0,0.25,\n2,0.5,\n", [2], "1 could not be read with certainty"),
        (b"step,train/a,eval/b\n1,0.25,\nmy note\n3,0.5,\n", [1, 3], "1 could not be read with certainty"),
        (b"step,train/a,eval/b\n1,0.25,\n1,0.5,\n", [1], "1 could not be read with certainty"),
        (b"step,train/a,eval/b\n1,0.25,,\n2,0.5,,7\n", [1], "1 could not be read with certainty"),
    ],
)
def test_what_cannot_be_read_with_certainty_is_set_aside(contents, kept, why, tmp_path, capsys):
    path = tmp_path / "metrics.csv"
    path.write_bytes(contents)
    log_of(tmp_path, 9).close()
    assert [int(row["step"]) for row in rows_of(tmp_path)] == kept
    assert (tmp_path / "metrics.csv.aside-1").read_bytes() == contents
    told = capsys.readouterr().out
    assert why in told and told.count("set aside") == 1
    path.write_bytes(contents)
    log_of(tmp_path, 9).close()
    assert (tmp_path / "metrics.csv.aside-2").read_bytes() == contents


def test_what_a_training_wrote_is_not_set_aside(tmp_path, capsys):
    path = tmp_path / "metrics.csv"
    path.write_text(TABLE + "5,0.2")  # cut short by a kill
    log_of(tmp_path, 4).close()
    assert path.read_text() == TABLE
    path.unlink()
    log_of(tmp_path, 4).close()
    assert capsys.readouterr().out.endswith(f"{path} is missing: a new one begins after step 4\n")
    write(tmp_path / "new", [1])
    assert [path.name for path in tmp_path.rglob("*aside*")] == []


def test_columns_that_are_written_no_more_are_kept_aside(tmp_path, capsys):
    (tmp_path / "metrics.csv").write_text(TABLE)
    log_of(tmp_path, 4, columns=["train/a", "eval/c"]).close()
    assert "it has columns that are no longer written (eval/b)" in capsys.readouterr().out
    assert (tmp_path / "metrics.csv.aside-1").read_text() == TABLE
    assert (tmp_path / "metrics.csv").read_text().startswith("step,train/a,eval/c\n1,0.25,\n")


def test_others_that_read_metrics_bear_a_spreadsheet_too(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(excel_german(TABLE).encode())
    assert runs._evaluated(path, "b")[-1][1] == 0.0625
    assert [panel["title"] for panel in read_panels(path)[0]] == ["b", "a"]
    path.write_bytes(b"\0\0")
    assert runs._evaluated(path, "b") == []
    with pytest.raises(InputError, match="is not a table of metrics"):
        read_panels(path)
    assert metrics_file.read(path) == ([], {}, "it is not a text file", 0)


@pytest.mark.slow
def test_rows_are_on_the_disk_before_a_checkpoint_counts(tmp_path, monkeypatch):
    from p2p_jax.training.saving import Checkpoints

    config = small_config(
        objective="support.networks:linear", generator=None, discriminator=None, loss=None, checkpoint_every=1
    )
    seen, save = [], Checkpoints.save

    def look(self, step, *args):
        seen.append((step, {at for _, at in scalars_of(tmp_path)}, {int(row["step"]) for row in rows_of(tmp_path)}))
        save(self, step, *args)

    monkeypatch.setattr(Checkpoints, "save", look)
    train(config, tmp_path, data=memory_data(config))
    assert seen == [(step, set(range(1, step + 1)), set(range(1, step + 1))) for step in (1, 2, 3, 4)]
    assert_each_row_once(tmp_path)


KILLED = """
    import os, random, signal, sys, threading
    import support
    from pathlib import Path
    from p2p_jax.training.loop import train
    from support.configs import small_config
    from support.runs import memory_data

    config = small_config(
        objective="support.networks:linear", generator=None, discriminator=None, loss=None,
        num_steps=int(sys.argv[2]), checkpoint_every=5, eval_every=7, sample_every=5, log_every=1, keep_checkpoints=2,
    )
    data, kill_at = memory_data(config), float(sys.argv[3])

    def batches(first_step):
        for step, batch in enumerate(data.train(first_step), start=first_step):
            if kill_at and step == first_step + int(kill_at):
                threading.Timer(kill_at % 1, os.kill, (os.getpid(), signal.SIGKILL)).start()
            yield batch

    train(config, Path(sys.argv[1]), data=data._replace(train=batches))
"""


@pytest.mark.slow
def test_kills_lose_and_double_no_row(tmp_path):
    """At random moments, again and again, in one run."""
    rng, steps = random.Random(0), 0
    for _ in range(8):
        kill_at = rng.randrange(4, 12) + rng.random() * 0.2
        ended = subprocess.run(
            python(KILLED, tmp_path / "run", 10**6, kill_at),
            env=environment(1),
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    last = saved_steps(tmp_path / "run")[-1]
    ended = subprocess.run(
        python(KILLED, tmp_path / "run", last + 9, 0), env=environment(1), capture_output=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    steps = [int(row["step"]) for row in rows_of(tmp_path / "run")]
    assert steps == list(range(1, last + 10))
    assert_each_row_once(tmp_path / "run")
