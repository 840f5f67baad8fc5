"""Configs: completeness, checking, references, comparison."""

import re

import pytest

from make_config_fixtures import FIXTURES, NAMES, resolved
from p2p_jax import published
from p2p_jax.config import (
    complete,
    complete_experiment,
    differences,
    find,
    flat,
    from_json,
    load,
    load_with_overrides,
    override,
    resolve,
    to_json,
)
from p2p_jax.config.options import OPTIONS
from p2p_jax.errors import InputError
from p2p_jax.images.palettes import find_palette
from p2p_jax.training.loop import train
from support.configs import small_config
from support.runs import memory_data


@pytest.mark.slow
def test_all_published_experiments_are_there():
    pix2pix = {"quickstart", "facades", "maps", "edges2shoes", "edges2handbags", "cityscapes", "night2day"}
    pix2pix |= {"colorization", "edges_to_photos", "inpainting", "super_resolution", "denoising", "bands"}
    pix2pix |= {"facades_modern", "facades_modern_small", "facades_small", "maps_modern"}
    cyclegan = {"quickstart_cyclegan", "horse2zebra", "apple2orange", "summer2winter", "maps_unpaired"}
    cyclegan |= {"facades_unpaired", "iphone2dslr", "horse2zebra_modern", "horse2zebra_modern_small"}
    cyclegan |= {f"{x}2photo" for x in ("monet", "cezanne", "ukiyoe", "vangogh")}
    cut = {"quickstart_cut", "horse2zebra_cut", "horse2zebra_fast_cut"}
    for names, objective in ((pix2pix, "p2p_jax:pix2pix"), (cyclegan, "p2p_jax:cyclegan"), (cut, "p2p_jax:cut")):
        assert names == {name for name in NAMES if load(name).objective == objective}


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_what_differs_and_resolves_to_what_it_did(name):
    """What it resolves to is recorded: after a change on purpose, run make_config_fixtures.py."""
    config = complete_experiment(load(name))
    assert resolved(name) == (FIXTURES / f"{name}.json").read_text()
    text = find(name).read_text()
    assert len(text.splitlines()) <= 30
    started_from = re.search(r'load_config\("(\w+)"\)', text)
    base = complete_experiment(load(started_from[1])) if started_from else published.base_of(config)
    assert 0 < len(differences(base, config)) <= 16
    docstring = text.split('"""')[1]
    assert f"python -m p2p_jax.main --config configs/{name}.py" in docstring
    for words in (r"Hardware: \w+", r"Time: \w+", r"Expect\w*:? \S+ \S+"):
        assert re.search(words, docstring)


@pytest.mark.parametrize("name", NAMES)
def test_json_round_trip(name):
    config = complete_experiment(load(name))
    assert differences(config, from_json(to_json(config))) == {}


def test_partial_config_takes_the_published_values():
    config = complete_experiment({"data": {"dir": "photos"}})
    assert (config.optimizer.learning_rate, config.optimizer.b1) == (2e-4, 0.5)
    published = {"gan": "vanilla", "lambda_gan": 1.0, "lambda_l1": 100.0, "conditional": True, "distance": "l1"}
    beyond = {name: value for name, value in config.loss.items() if name not in published}
    assert config.loss.to_dict() == published | beyond
    assert beyond.pop("penalty_every") == 1 and not any(beyond.values())  # all that is newer is off
    assert (config.generator.network, config.generator.num_downs) == ("p2p_jax.nets:UNet", 8)
    assert config.generator.keys() == load("facades").generator.keys()


def test_another_reader_does_not_inherit_what_it_lacks(capsys):
    """In a copy of ours and on the command line; what was chosen, and is not known, is an error."""
    config = load("facades")
    config.optimizer.factory, config.generator.network = "optax:sgd", "p2p_jax.nets:ResNet"
    config = complete_experiment(config)
    assert set(config.optimizer) == {"factory", "learning_rate", "momentum", "nesterov", "accumulator_dtype"}
    assert config.generator.num_blocks == 9 and "num_downs" not in config.generator
    told = load_with_overrides(
        "quickstart", ["--config.generator.network=p2p_jax.nets:ResNet", "--config.optimizer.factory", "optax:sgd"]
    )
    assert told.generator.base_width == 32 and "num_downs" not in told.generator
    assert told.optimizer.learning_rate == 4e-4 and told.optimizer.momentum is None
    told = load_with_overrides("facades", ["--config.objective=p2p_jax:cyclegan", "--config.loss.lambda_identity=0.5"])
    assert told.loss.lambda_identity == 0.5 and "lambda_l1" not in told.loss
    other = load_with_overrides("quickstart", ["--config.loss.lambda_l1=50."])
    capsys.readouterr()
    override(other, ["--config.objective=p2p_jax:cyclegan"])
    assert capsys.readouterr().out == "config.loss: p2p_jax:cyclegan does not have lambda_l1=50.0; dropped\n"


OWN = "support.networks:Pointwise"


@pytest.mark.parametrize(
    ("base", "section", "reader", "dropped"),
    [
        ("facades_small", "generator.network", OWN, "base_width=32, num_downs=6"),
        ("facades_small", "generator.network", "p2p_jax.nets:ResNet", "num_downs=6"),
        ("facades_small", "discriminator.network", "support.terms:Linear", "base_width=32, receptive_field=34"),
        ("quickstart_cut", "generator.network", "p2p_jax.nets:MobileResNet", None),
        ("quickstart", "optimizer.factory", "optax:sgd", "b1=0.7"),
    ],
)
def test_what_another_reader_was_given_is_dropped_and_named(base, section, reader, dropped, capsys):
    """The same in a config file and on the command line."""
    name, _, naming = section.partition(".")
    config = load(base)
    if name == "optimizer":
        config.optimizer.b1 = 0.7
    changed = load(base)
    changed.update(config)
    changed[name][naming] = reader
    capsys.readouterr()
    in_a_file = complete_experiment(changed)
    told = [capsys.readouterr().out]
    typed = override(config, [f"--config.{section}={reader}"])
    told.append(capsys.readouterr().out)
    assert in_a_file == typed and typed[name][naming] == reader
    lost = {key for key in config[name] if key not in typed[name]}
    assert set(re.findall(r"(\w+)=", dropped or "")) <= lost
    if dropped:
        assert told == [f"config.{name}: {reader} does not have {dropped}; dropped\n"] * 2
    else:
        assert told[0] == told[1]
    capsys.readouterr()
    complete_experiment(in_a_file)
    assert capsys.readouterr().out == ""


def test_an_option_that_no_reader_or_the_default_one_lacks_is_an_error():
    """Who sets an option of the ResNet with the default network has forgotten to name the ResNet."""
    config = load("facades_small")
    config.generator.network, config.generator.nrom = OWN, "instance"
    with pytest.raises(InputError, match=rf"generator.nrom; did you mean generator.norm\? \({OWN} has no such"):
        complete_experiment(config)
    for network in (OWN, "p2p_jax.nets:UNet"):  # follows from the data
        config = load("facades_small")
        config.generator.update(network=network, out_channels=4)
        with pytest.raises(InputError, match="unknown option config.generator.out_channels; the options are"):
            complete_experiment(config)
    config = load("quickstart_cyclegan")
    config.generator.network = "p2p_jax.nets:UNet"
    with pytest.raises(InputError) as caught:
        complete_experiment(config)
    way = 'config.generator = {"network": "p2p_jax.nets:UNet"}'
    assert str(caught.value) == (
        "unknown option config.generator.num_blocks; p2p_jax.nets:ResNet has it, p2p_jax.nets:UNet does not; "
        f"if the config that you started from set it, {way} starts afresh"
    )
    exec(way)
    assert complete_experiment(config).generator.num_downs == 8
    config = load("facades")
    config.objective = "p2p_jax:cyclegan"
    with pytest.raises(InputError, match=r"config.loss.conditional; .* config.loss = {} starts afresh"):
        complete_experiment(config)
    config.loss = {}
    assert complete_experiment(config).loss.lambda_cycle == 10


def test_an_incomplete_config_is_overridden_in_every_section(tmp_path):
    file = tmp_path / "short.py"
    file.write_text('def get_config():\n    return {"data": {"source": "toy_facades"}, "task": {}}\n')
    options = {
        "num_steps": 5,
        "data.crop_size": 64,
        "augment.vflip": True,
        "generator.upsampling": "resize",
        "discriminator.receptive_field": 16,
        "loss.lambda_l1": 7.0,
        "optimizer.eps_root": 1e-6,
        "schedule.kind": "linear_decay",
        "inference.norm": "running",
    }
    config = load_with_overrides(str(file), [f"--config.{name}={value}" for name, value in options.items()])
    for name, value in options.items():
        assert flat(config)[name] == value
    assert config.loss.gan == "vanilla"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_value_of_another_type_is_refused(option):
    """For every option of the table; in silence "no" would mirror, and "off" would keep dropout on."""
    for value in ("three" if option.type is not str else 3, None, [1]):
        given = value
        for key in reversed(option.name.split(".")):
            given = {key: given}
        with pytest.raises(InputError, match=rf"config\.{option.name} is {re.escape(repr(value))}; "):
            complete(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batchsize": 4}, "did you mean batch_size"),
        ({"data": {"crop": 4}}, "did you mean data.crop_size"),
        ({"batch_size": 0}, "config.batch_size is 0"),
        ({"num_steps": 1.5}, "config.num_steps is 1.5"),
        ({"num_samples": 0}, "config.num_samples is 0"),
        ({"data": {"crop_size": 64.0}}, "config.data.crop_size is 64.0"),
        ({"data": {"direction": "BtoC"}}, "choose AtoB or BtoA"),
        ({"data": {"crop_size": 300}}, "crop must fit"),
        ({"data": {"input": {"channels": 0}}}, "input.channels is 0; it must be a whole number in"),
        ({"data": {"input": {"kind": "uint32"}}}, "input.kind is 'uint32'; choose uint8, uint16, int16, float, labels"),
        ({"data": {"output": {"kind": "lab_ab"}}}, "output.channels is 3; it must be 2, as lab_ab need"),
        ({"data": {"input": {"kind": "labels", "palette": "cityscapes"}}}, "input.channels is 3; it must be 19"),
        (
            {"data": {"input": {"palette": "cityscapes"}}},
            "input.palette is for labels; config.data.input.kind is uint8",
        ),
        ({"data": {"input": {"range": "0-255"}}}, "write LOW:HIGH, such as 0:4095"),
        ({"data": {"input": {"range": (0, 4095)}}}, r"input.range is \(0, 4095\); it must be text"),
        ({"augment": {"scale_jitter": 0.1}, "data": {"preprocess": "none"}}, "scale_jitter needs a crop"),
        ({"task": {"sigma": 2.0}}, "config.task has sigma but no input"),
        ({"data": {"input": {"range": "5:5"}}}, "5 is not less than 5"),
        ({"data": {"input": {"range": "0:1,0:2"}}}, "has 2 ranges for 3 channels"),
        ({"data": {"input": {"kind": "lab_l", "channels": 1, "range": "0:1"}}}, "lab_l have a fixed range"),
        (
            {"data": {"preprocess": "resize"}},
            "crop, scale_shortside_and_crop, scale_width_and_crop, scale_width or none",
        ),
        ({"data": {"crop_width": 300}}, "crop must fit"),
        ({"data": {"crop_width": -1}}, "crop_width is -1; it must be a whole number in"),
        ({"data": {"crop_width": 128}, "augment": {"quarter_turns": True}}, "needs square crops"),
        ({"augment": {"scale_jitter": 1.0}}, r"must be a number in \[0, 1\)"),
        (
            {"augment": {"photometric": 0.1}, "data": {"input": {"kind": "labels"}}},
            "needs a numeric input; this one is labels",
        ),
        ({"seed": True}, "config.seed is True; it must be a whole number"),
        ({"num_samples": 100_000}, r"num_samples is 100000; it must be a whole number in \[1, 256\]"),
        ({"schedule": {"decay_over": 0}}, "decay_over is 0; it must be a whole number of at least 1"),
        ({"schedule": {"kind": "step"}}, "choose constant, linear_decay or cosine"),
        ({"schedule": {"unit": "images"}}, "choose auto, epochs or steps"),
        ({"augment": {"photometric": float("nan")}}, r"it must be a number in \[0, 1\)"),
        ({"data": "photos"}, "config.data is 'photos'; it must be a section"),
        ({"loss": 3}, "config.loss is 3; it must be a section"),
        ({"generator": {"network": 5}}, "config.generator.network is 5; it must be text"),
        ({"best_mode": "low"}, "choose min or max"),
        ({"inference": {"norm": "none"}}, "choose auto, batch or running"),
        ({"dtype": "half"}, "dtype is 'half'; choose float32, bfloat16 or float64"),
    ],
)
def test_wrong_options_are_named(given, message):
    with pytest.raises(InputError, match=message):
        complete(given)


def test_options_without_bounds_are_finite():
    task = {"input": "p2p_jax.images.tasks:gaussian_noise", "sigma": float("inf")}
    with pytest.raises(InputError, match="config.task.sigma is inf; it must be a number"):
        complete_experiment({"task": task, "data": {"source": "photos"}})
    assert complete_experiment({"task": {**task, "sigma": 3}, "data": {"source": "photos"}}).task.sigma == 3.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator__base_widht": 8}, "unknown option config.generator.base_widht; did you mean generator.base_width"),
        ({"generator__dropout_rate": 2.0}, r"config.generator.dropout_rate is 2.0; it must be a number in \[0, 1\)"),
        ({"generator__norm": "layer"}, "config.generator.norm is 'layer'; choose batch, instance"),
        ({"discriminator__receptive_field": 71}, "receptive_field is 71; choose 1, 16, 34, 70, 142 or 286"),
        ({"optimizer__learning_rate": float("nan")}, "config.optimizer.learning_rate is nan; it must be a number"),
        ({"optimizer__learning_rate": -1e-3}, "config.optimizer.learning_rate is -0.001"),
        ({"optimizer__learning_rate": float("inf")}, "config.optimizer.learning_rate is inf"),
        ({"optimizer__b1": 1.5}, r"config.optimizer.b1 is 1.5; it must be a number in \[0, 1\)"),
        ({"loss__lambda_l1": -100.0}, "config.loss.lambda_l1 is -100.0; it must be a number of at least 0"),
        ({"loss__conditional": "no"}, "config.loss.conditional is 'no'; it must be True or False"),
        ({"generator__network": "p2p_jax.nets:UNett"}, "did you mean 'UNet'"),
        ({"generator__network": "UNet"}, "package.module:name"),
        ({"objective": "no_such_module:make"}, "no module 'no_such_module'"),
        ({"optimizer__factory": "optax:adam", "optimizer__momentum": 0.9}, "optax:adam has no such optimizer option"),
        ({"loss__gan": "wgan"}, "choose one of vanilla, lsgan"),
        ({"loss__lambda_gan": 0.0, "loss__lambda_l1": 0.0}, "no loss"),
        ({"data__source": "unpaired"}, "pix2pix learns from pairs"),
        ({"loss__lambda_L2": 4}, "did you mean loss.lambda_l1"),
        ({"best_metric": "fid"}, "the objective has l1, psnr, ssim"),
        ({"data__crop_size": 18}, r"config.data.crop_size=18 \(width 18\): a U-Net .* multiples of 8"),
        ({"batch_size": 3}, "cannot be split over 2 devices"),
        ({"dtype": "float64"}, "JAX_ENABLE_X64=1"),
    ],
)
def test_wrong_experiments_fail_before_anything_is_written(changes, message, tmp_path):
    config = small_config(**changes)
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run", data=memory_data(config))
    assert not (tmp_path / "run").exists()


def test_find_and_load(tmp_path, monkeypatch):
    assert find("facades") == find("facades.py")
    (tmp_path / "configs").mkdir()
    mine = tmp_path / "configs" / "mine.py"
    mine.write_text("def get_config():\n    return {'seed': 3}\n")
    monkeypatch.chdir(tmp_path)
    assert find("mine").read_text() == mine.read_text()
    assert load("configs/mine.py") == {"seed": 3}
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(InputError, match=r"empty.py has no function get_config"):
        load("empty.py")
    for wrong, hint in (("nowhere", "p2p_jax has"), ("no/such/folder/facades.py", r"did you mean facades\?")):
        with pytest.raises(InputError, match=f"no config file {wrong}; {hint} .*facades"):
            find(wrong)
    with pytest.raises(InputError, match=r"no config file facade_small; did you mean facades_small\? p2p_jax has"):
        find("facade_small")


def test_resolve_finds_files_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_lab_for_resolve.py").write_text("value = 42\nimport math\n")
    monkeypatch.chdir(tmp_path)
    assert resolve("my_lab_for_resolve:value") == 42
    (tmp_path / "broken_for_resolve.py").write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):  # its own error, not hidden by ours
        resolve("broken_for_resolve:value")


def test_differences():
    a, b = small_config(), small_config(seed=3, loss__lambda_l1=10.0)
    assert differences(a, b) == {"seed": (0, 3), "loss.lambda_l1": (100.0, 10.0)}
    assert differences(a, small_config(extra={"mine": 1})) == {"extra.mine": (None, 1)}
    assert differences(small_config(extra={"mine": 1}), a) == {"extra.mine": (1, None)}
    with_tuples = small_config(extra={"sizes": ((1, 2), (3, 4))})
    assert differences(with_tuples, from_json(to_json(with_tuples))) == {}


def test_a_palette_file_is_kept_in_the_config_itself(tmp_path):
    file = tmp_path / "palette.json"
    file.write_text('{"wall": [255, 0, 0], "door": [0, 16, 255], "void": [[0, 0, 0]]}')
    config = complete({"data": {"input": {"kind": "labels", "channels": 2, "palette": str(file)}}})
    file.unlink()
    palette = find_palette(from_json(to_json(config)).data.input.palette)
    assert (palette.names, palette.void.tolist()) == (("wall", "door"), [[0, 0, 0]])
    assert palette.colors.tolist() == [[255, 0, 0], [0, 16, 255]]
