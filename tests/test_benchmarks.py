"""What the benchmarks count and how they report it; nothing here is timed."""

import json
import os
import sys

import jax
import numpy as np
import pytest

from benchmarks import accelerator, cost, lab, memory, trace, train_step, turns
from benchmarks.experiments import make_config
from p2p_jax.config import complete
from p2p_jax.nets import PatchGAN
from p2p_jax.nets.layers import Conv
from support.environment import CHEAP_COMPILATION


@pytest.mark.parametrize(
    ("objective", "identity", "gmac"), [("pix2pix", True, 43.5), ("cyclegan", False, 643.5), ("cyclegan", True, 939.6)]
)
def test_multiply_adds_of_the_published_experiments(objective, identity, gmac):
    config = make_config(objective, identity=identity)
    assert round(cost.multiply_adds(cost.find_passes(config)) / 1e9, 1) == gmac


def test_parameters_of_the_published_experiments():
    unet, patchgan, patchgan_alone, resnet = 54_413_955, 2_768_705, 2_764_737, 11_378_179
    assert cost.count_parameters(make_config("pix2pix")) == unet + patchgan
    assert cost.count_parameters(make_config("cyclegan")) == 2 * (resnet + patchgan_alone)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_counts_its_kernel_at_every_place(transposed):
    (layer,) = cost.find_layers(_One(transposed), (2, 8, 8, 3))
    side = 8 if transposed else 4  # where the kernel is laid: on the input of a transposed one
    out = 16 if transposed else 4
    assert layer.multiply_adds == 2 * side**2 * 4 * 4 * 3 * 5
    assert layer.numbers == 2 * 8 * 8 * 3 + 4 * 4 * 3 * 5 + 2 * out**2 * 5


class _One:
    def __init__(self, transposed):
        self.conv = Conv(features=5, transposed=transposed)

    def init(self, rng, x, train):
        return self.conv.init(rng, x)


def test_passes_are_those_that_somebody_needs():
    first, second = cost.Layer(1, 0), cost.Layer(10, 0)

    def count(**needs):
        return cost.multiply_adds(cost.passes((first, second), **needs))

    assert count(kernel=False, image=False) == 11
    assert count(kernel=True, image=False) == 11 + 11 + 10
    assert count(kernel=True, image=True) == 33
    assert count(kernel=False, image=True) == 22


def test_what_a_loss_leaves_out_is_not_counted():
    def gmac(objective, batch=1, **loss):
        config = make_config(objective, 32, batch, width=4)
        return cost.multiply_adds(cost.find_passes(complete({**config.to_dict(), "loss": loss})))

    disc = cost.find_layers(PatchGAN(base_width=4), (1, 32, 32, 6))
    of_disc = 8 * cost.multiply_adds(disc) - 2 * disc[0].multiply_adds
    assert gmac("pix2pix") - gmac("pix2pix", lambda_gan=0.0) == of_disc
    assert gmac("pix2pix", batch=3) == 3 * gmac("pix2pix")
    both, forward = gmac("cyclegan"), gmac("cyclegan", cycle="forward")
    assert both - forward == forward - gmac("cyclegan", lambda_cycle=0.0)
    with pytest.raises(ValueError, match=r"the cost of my_lab\.variant:make is not known"):
        cost.find_passes(complete({**make_config("pix2pix", 32).to_dict(), "objective": "my_lab.variant:make"}))


@pytest.mark.slow
def test_roofline_is_arithmetic_or_memory():
    config = make_config("pix2pix", 64, 4, width=8)
    work = cost.find_passes(config)
    by_arithmetic = cost.roofline(config, cost.Peak({"float32": 1e9}, np.inf))
    assert by_arithmetic == pytest.approx(2 * cost.multiply_adds(work) / 1e9)
    by_memory = cost.roofline(config, cost.Peak({"float32": np.inf}, 1e9))
    assert by_memory == pytest.approx(cost.traffic(config, work) / 1e9)
    assert cost.traffic(config, []) == 28 * cost.count_parameters(config)
    peak = cost.Peak({"float32": 1e9}, 1e9)
    assert max(by_arithmetic, by_memory) <= cost.roofline(config, peak) <= by_arithmetic + by_memory
    assert cost.share_of_peak(config, by_arithmetic, peak) == pytest.approx(1)
    assert cost.share_of_peak(config, by_arithmetic, peak, num_devices=4) == pytest.approx(1 / 4)
    found = cost.describe(config, peak, seconds=2 * by_arithmetic)
    assert found["share_of_peak"] == pytest.approx(0.5)
    assert found["gmac"] == cost.multiply_adds(work) / 1e9


@pytest.mark.parametrize(
    ("kind", "tflops", "bandwidth"),
    [
        ("NVIDIA H200", 989.4, 4.8),
        ("NVIDIA A100-SXM4-80GB", 312, 2.039),
        ("NVIDIA A100-SXM4-40GB", 312, 1.555),
        ("TPU v5 lite", 197, 0.819),
        ("TPU v5p", 459, 2.765),
    ],
)
def test_peaks_are_found_by_the_name_of_the_device(kind, tflops, bandwidth):
    peak = cost.find_peak(kind)
    assert peak.flops["bfloat16"] == tflops * 1e12
    assert peak.bandwidth == bandwidth * 1e12


def test_a_cpu_has_no_known_peak():
    assert cost.find_peak("cpu") is None


@pytest.mark.slow
def test_xla_counts_what_the_networks_do():
    config = make_config("pix2pix", 16, width=8, loss={"lambda_gan": 0.0})
    found = cost.ask_xla(config)
    counted = 2 * cost.multiply_adds(cost.find_passes(config)) / 1e9
    assert counted / 4 < found["gigaflop"] < 4 * counted  # it sees zeros that pad, and the norms, but not all products


WORKER = """
import sys
from benchmarks import turns

def fail():
    raise MemoryError("the device is full\\nand more")

def prepare():
    if "refuse" in sys.argv:
        raise RuntimeError("no compiler")
    print("not an answer")
    return {"work": lambda: {"more": 3}, "fail": fail, "die": lambda: sys.exit(9)}, {"device": "abacus"}

turns.serve(prepare)
"""


@pytest.fixture
def worker(tmp_path):
    (tmp_path / "a_worker.py").write_text(WORKER)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    return lambda *args: turns.Worker(["a_worker", *args], {**os.environ, "PYTHONPATH": path})


@pytest.mark.slow
def test_workers_take_turns_and_one_that_fails_is_left_out(worker):
    workers = {"good": worker(), "full": worker(), "dead": worker(), "refused": worker("refuse")}
    assert workers["good"].facts == {"device": "abacus"}
    ways = {"good": "work", "full": "fail", "dead": "die", "refused": "work"}
    answers = turns.take_turns({name: (workers[name], way) for name, way in ways.items()}, rounds=3, warm_up=1)
    assert list(answers) == ["good"]
    assert [answer["more"] for answer in answers["good"]] == [3, 3, 3]
    assert turns.end(workers) == {
        "full": "MemoryError: the device is full",
        "dead": "the process ended with 9",
        "refused": "RuntimeError: no compiler",
    }


@pytest.mark.parametrize(("given", "together"), [([], 3), (["--alone"], 1)])
def test_train_step_can_give_each_all_memory(given, together, monkeypatch):
    facts = {"platform": "gpu", "device": "abacus", "num_peaks": 1, "steps_per_dispatch": 1, "steps_per_turn": 2}
    running, most, told = set(), [], {}

    class Worker:
        error = ""

        def __init__(self, arguments, environment):
            self.name = next(x.removeprefix("--worker=") for x in arguments if x.startswith("--worker="))
            self.facts = {**facts, "cost": {"gmac": 50.0, "peak_tflops": 1.0}} if self.name == "jax" else {}
            told[self.name] = arguments
            running.add(self.name)
            most.append(len(running))

        def run(self, way):
            return {"seconds": 0.5, "peak_gib": {"host": 1.0, "device": 2.0}}

        def end(self):
            running.remove(self.name)

    monkeypatch.setattr(turns, "Worker", Worker)
    result = train_step.measure(train_step.parse(["--twins=eager,best", "--repeats=2", *given]))
    assert max(most) == together and not running
    assert list(result["ratios"]) == ["jax/eager", "jax/best"] and not result["left_out"]
    assert all({"--platform=gpu", "--steps_per_turn=2"} <= set(told[twin]) for twin in ("eager", "best"))


def test_ratios_are_of_the_same_round():
    answers = {"jax": [{"seconds": x} for x in (1, 2, 9)], "eager": [{"seconds": x} for x in (2, 4, 6)]}
    found = turns.ratio(answers, "jax", "eager")
    assert found == {"median": 0.5, "quartiles": [0.5, 1.0]}
    assert turns.told(found) == "0.50 (quartiles 0.50 to 1.00)"


def test_workers_see_as_many_devices_as_they_are_given():
    found = turns.environment(2, {"CUDA_VISIBLE_DEVICES": "5,7,8", "XLA_FLAGS": "--a"})
    assert found["CUDA_VISIBLE_DEVICES"] == "5,7"
    assert found["XLA_FLAGS"] == "--a --xla_force_host_platform_device_count=2"
    assert turns.environment(3, {})["CUDA_VISIBLE_DEVICES"] == "0,1,2"


def test_train_step_reports_ratios_and_the_share_of_peak(capsys):
    args = train_step.parse(["--batch=4", "--twins=eager,best", "--repeats=2"])
    facts = {
        "platform": "gpu",
        "device": "abacus",
        "num_peaks": 1,
        "steps_per_dispatch": 1,
        "steps_per_turn": 2,
        "cost": {"gmac": 50.0, "peak_tflops": 1.0},
    }
    peak = {"host": 1.0, "device": 2.0}
    answers = {
        "jax": [{"seconds": 0.4, "peak_gib": peak}] * 2,
        "eager": [{"seconds": 0.8, "peak_gib": peak}] * 2,
    }
    result = train_step.summarise(args, facts, answers, {"best": "no compiler"})
    assert result["ratios"] == {"jax/eager": {"median": 0.5, "quartiles": [0.5, 0.5]}}
    assert result["images_per_s"] == {"jax": 20.0, "eager": 10.0}
    assert result["share_of_peak"] == {"jax": 0.5, "eager": 0.25}  # 100 GFLOP in 0.2 s of 1,000 GFLOP/s
    train_step.tell(result)
    printed = capsys.readouterr().out
    assert "best left out: no compiler" in printed and "50.0% of peak" in printed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--twins=slow"], "there is no slow; choose of eager, best, graphs"),
        (["--devices=2"], "PyTorch's twins run on one device: add --twins= to time only JAX"),
        (["--batch=3", "--devices=2", "--twins="], "--batch 3 does not divide over 2 devices"),
    ],
)
def test_train_step_refuses(given, message, capsys):
    with pytest.raises(SystemExit):
        train_step.parse(given)
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "num_train"), [("pix2pix", 64), ("cyclegan", 64)])
def test_resident_images_for_the_step(objective, num_train, tmp_path):
    data = train_step.resident_data(make_config(objective, 32, 2), tmp_path)
    assert data.num_train == num_train
    assert {x.shape for x in data.resident.draw(data.resident.arrays, np.arange(2, dtype=np.uint32)).values()} == {
        (2, 32, 32, 3)
    }


@pytest.mark.parametrize("objective", ["pix2pix", "cyclegan"])
def test_twins_have_the_same_parameters(objective):
    pytest.importorskip("torch")
    from benchmarks import torch_steps

    twins = torch_steps.make_networks(objective, 64, width=8)
    count = sum(weight.numel() for twin in twins for weight in twin.parameters())
    assert count == cost.count_parameters(make_config(objective, 64, width=8))


def test_tuned_twin_takes_the_same_step(monkeypatch):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_steps

    torch.set_num_threads(1)
    monkeypatch.setitem(torch_steps.VARIANTS, "tuned", torch_steps.Variant(tuned=True))
    # Not one image: PyTorch 2.13's instance norm has wrong gradients for one, channels last, uncompiled, on CPUs.
    pair = train_step.random_pair(32, 2)
    losses = {}
    for name, dtype in (("eager", "float32"), ("tuned", "float32"), ("eager", "bfloat16")):
        step = torch_steps.make_step("cyclegan", name, pair, dtype=dtype, width=4)
        losses[name, dtype] = [{key: value.item() for key, value in step().items()} for _ in range(2)]
    (first, second), tuned, rounded = losses.values()
    assert tuned[0] == pytest.approx(first, rel=1e-4) and tuned[1] == pytest.approx(second, rel=1e-3)
    assert rounded[0] == pytest.approx(first, rel=0.05, abs=0.01) and rounded[0] != first


def test_torch_translates_bytes_to_bytes():
    pytest.importorskip("torch")
    from benchmarks import torch_steps
    from benchmarks.translate import smooth_images

    images = smooth_images(2, 32)
    fakes = torch_steps.make_translator("pix2pix", "eager", 32, width=4, running=True)(images)
    assert fakes.shape == images.shape and fakes.dtype == np.uint8
    assert np.abs(fakes.astype(int) - 127.5).max() < 64  # untrained outputs are near zero
    with pytest.raises(RuntimeError, match="cannot use the tpu that JAX runs on"):
        torch_steps.find_device("tpu")


def test_parts_of_the_accelerator_run():
    names = list(accelerator.parts("eager"))
    assert names[:3] == ["facades float32", "facades bfloat16", "pix2pix float32 batch 1"]
    assert len(names) == 2 + 2 * 2 * 3
    for name, (module, *given) in accelerator.parts("eager").items():
        if module == "benchmarks.train_step":
            args = train_step.parse(given)
            assert name == f"{args.objective} {args.dtype} batch {args.batch}"


def test_speed_is_read_from_the_lines_of_a_run():
    lines = [(9.0, "compiling ..."), (20.0, "step 100/80,000  gen/l1 0.3"), (29.0, "step 1,000/80,000  gen/l1 0.2")]
    found = accelerator.speed([*lines, (31.0, "Finished: 1,000 steps")])
    assert found == {"seconds_total": 31.0, "steps_per_s": 100.0, "seconds_to_first_step": pytest.approx(20 - 0.99)}
    assert accelerator.speed(lines[:2]) == {"seconds_total": 20.0}


def test_quality_is_compared_where_both_runs_are_there():
    parts = {
        "facades float32": {"evaluations": [{"eval/l1": 0.2}, {"eval/l1": 0.4}]},
        "facades bfloat16": {"evaluations": [{"eval/l1": 0.3}, {"eval/l1": 0.5}]},
    }
    found = accelerator.compare_quality(parts)
    assert found["bfloat16_over_float32"] == 1.25
    assert (found["float32_best_l1"], found["bfloat16_final_l1"]) == (0.2, 0.5)
    assert accelerator.compare_quality({"facades float32": parts["facades float32"]}) == {}


def test_a_part_that_fails_or_takes_too_long_is_told(tmp_path):
    log = tmp_path / "log"
    lines, error = accelerator.follow([sys.executable, "-c", "print('one'); raise SystemExit('full')"], log, 30)
    assert [line for _, line in lines] == ["one", "full"] and error == "ended with 1: full"
    assert log.read_text().split()[1::2] == ["one", "full"]
    assert accelerator.follow(["sleep", "60"], log, 0.2)[1] == "stopped after 0 s: the time was used up"


def test_accelerator_tells_the_figures_of_a_part(capsys):
    peak = {"host": 1.0, "device": 2.0}
    run = {
        "num_steps": 1000,
        "resumed_at": 0,
        "seconds_total": 31.0,
        "share_of_peak": 0.25,
        "peak_gib": peak,
        "evaluations": [{"eval/l1": 0.5}],
    }
    accelerator.tell("facades float32", run)
    step = {
        "images_per_s": {"jax": 20.0, "eager": 10.0},
        "share_of_peak": {"jax": 0.5, "eager": 0.25},
        "peak_gib": {"jax": peak, "eager": peak},
        "ratios": {"jax/eager": {"median": 0.5, "quartiles": [0.4, 0.6]}},
        "left_out": {"best": "no compiler"},
    }
    accelerator.tell("pix2pix float32 batch 1", step)
    printed = capsys.readouterr().out.splitlines()
    assert "1,000 steps in 31 s" in printed[0] and "25.0% of peak, 2.00 GiB, validation L1 0.5000" in printed[0]
    assert printed[2].endswith("eager: 10 images/s, 25.0% of peak, 2.00 GiB; jax/eager 0.50 (quartiles 0.40 to 0.60)")
    assert printed[3] == "pix2pix float32 batch 1, best left out: no compiler"


def test_parts_without_time_are_left_out_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["accelerator", "--smoke", f"--output={tmp_path}", "--minutes=0"])
    accelerator.main()
    result = json.loads((tmp_path / "accelerator.json").read_text())
    assert result["parts"] == {} and list(result["left_out"]) == list(accelerator.parts("eager", smoke=True))
    assert result["versions"]["jax"] == jax.__version__


@pytest.mark.slow
def test_rehearsal_without_tensorflow(tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('there is no TensorFlow')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setenv("XLA_FLAGS", CHEAP_COMPILATION)  # one device
    output = tmp_path / "results"
    arguments = ["--smoke", f"--output={output}", "--parts=facades float32,nothing else", "--num_steps=4"]
    monkeypatch.setattr(sys, "argv", ["accelerator", *arguments])
    accelerator.main()
    result = json.loads((output / "accelerator.json").read_text())
    assert result["left_out"] == {} and list(result["parts"]) == ["facades float32"]
    part = result["parts"]["facades float32"]
    assert (part["num_steps"], part["resumed_at"], part["devices"]) == (4, 0, 1)
    assert [row["step"] for row in part["evaluations"]] == [4]
    assert 0 < part["evaluations"][-1]["eval/l1"] < 1
    assert (output / "facades_float32_step_0000004.png").is_file()


def test_memory_is_a_line_in_pixels():
    points = [(make_config("pix2pix", 64, batch), memory.Memory(1, 2, 1000 + 3 * batch * 64**2)) for batch in (2, 4)]
    line = memory.fit(points)
    assert line == (1000, 3)
    config = make_config("pix2pix", 128, 5, width=8)
    found = memory.predict(line, config)
    assert found.temporary == 1000 + 3 * 5 * 128**2
    assert found.images == 2 * 5 * 128**2 * 3 * 4
    assert found.state > 3 * 4 * cost.count_parameters(config)  # parameters, Adam's two moments, statistics


def test_lab_tries_what_is_missing(tmp_path, monkeypatch, capsys):
    output = tmp_path / "lab.json"
    output.write_text(json.dumps({"pix2pix 1 float32": {"as it is": {"ms": 2.0}}}))
    child = tmp_path / "child.py"
    child.write_text(
        "import json, sys, time\n"
        "for name in json.loads(sys.argv[-1]):\n"
        "    print(json.dumps({'begins': name}), flush=True)\n"
        "    if name == 'cuDNN fusions': sys.exit(3)\n"
        "    if name == 'channels first': time.sleep(60)\n"
        "    print('a library speaks', flush=True)\n"
        "    told = {'ms': 1.0, 'share_of_peak': 0.5, 'peak_gib': 1.0, 'compile_s': 2.0}\n"
        "    print(json.dumps({'ends': name, 'result': told}), flush=True)\n"
    )
    popen = lab.subprocess.Popen
    monkeypatch.setattr(
        lab.subprocess, "Popen", lambda command, **rest: popen([sys.executable, str(child), command[-1]], **rest)
    )
    given = ["--settings=pix2pix 1 float32", "--variants=as it;cuDNN;channels;true", "--seconds=4", "--minutes=1"]
    monkeypatch.setattr(sys, "argv", ["lab", f"--output={output}", *given])
    lab.main()
    found = json.loads(output.read_text())["pix2pix 1 float32"]
    assert found.pop("as it is") == {"ms": 2.0}  # not again
    assert found.pop("cuDNN fusions") == {"error": "its process ended with 3"}
    assert found.pop("channels first") == {"error": "not done after 4 s"}
    assert {name: result["ms"] for name, result in found.items()} == {"true float32": 1.0, "as it is, again": 1.0}
    assert "true float32: 1.00 ms a step, 0.50 of the first, 50.0% of peak" in capsys.readouterr().out


@pytest.mark.slow
def test_lab_rehearses(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", CHEAP_COMPILATION)
    output = tmp_path / "lab.json"
    given = [
        "--settings=pix2pix 2 float32",
        "--variants=as it is;every convolution by cuDNN;larger maps as matrix products",
        "--smoke",
        "--profile",
    ]
    monkeypatch.setattr(sys, "argv", ["lab", f"--output={output}", *given])
    lab.main()
    found = json.loads(output.read_text())["pix2pix 2 float32"]
    first = found["as it is"]["losses"]
    assert len(found) == 6 and first["gen/l1"] > 0
    for name in set(found) - {"profile"}:
        assert found[name]["ms"] > 0
        np.testing.assert_allclose(found[name]["losses"]["gen/l1"], first["gen/l1"], rtol=1e-4)
    assert found["profile"]["kernels"][0].startswith("all kernels: ")


def test_kernels_of_a_trace_are_summed_by_name():
    names = [
        {"name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"name": "thread_name", "pid": 1, "tid": 2, "args": {"name": "Stream #1(Compute)"}},
        {"name": "thread_name", "pid": 1, "tid": 3, "args": {"name": "XLA Ops"}},
    ]
    spans = [("loop_add_fusion_1", 2, 300), ("loop_add_fusion_12", 2, 500), ("conv", 2, 3200), ("conv", 3, 9999)]
    events = [{"ph": "X", "name": name, "pid": 1, "tid": tid, "ts": 0, "dur": dur} for name, tid, dur in spans]
    assert trace.kernels(names + events, num_steps=2) == [
        "all kernels: 2.000 ms a step, 2 of them",
        " 80.0%    1.600 ms a step,     0 times: conv",
        " 20.0%    0.400 ms a step,     1 times: loop_add_fusion",
    ]
