"""Code that stored configs may name and that must not be executed, and the many places where they may name it."""

EVIL = 'from pathlib import Path\n\nPath("{mark}").touch()\n\n\ndef make(*args, **kwargs):\n    raise SystemExit(9)\n'
POPEN = "subprocess:Popen"
# Sections of a stored config, and the names in them that are to be refused.
WAYS = {
    "a program as generator": ({"generator": {"network": POPEN, "args": ["touch", "MARK"]}}, [POPEN]),
    "a program as discriminator": ({"discriminator": {"network": POPEN, "args": ["touch", "MARK"]}}, [POPEN]),
    "a module of the current folder": ({"objective": "evil_here:make"}, ["evil_here:make"]),
    "a module of the run's folder": ({"objective": "run.evil_there:make"}, ["run.evil_there:make"]),
    "a loss": ({"loss": {"gan": "evil_here:make"}}, ["evil_here:make"]),
    "an optimizer": ({"optimizer": {"factory": "os:system", "command": "touch MARK"}}, ["os:system"]),
    "a source": ({"data": {"source": "evil_here:make"}}, ["evil_here:make"]),
    "a task": ({"task": {"input": "evil_here:make"}}, ["evil_here:make"]),
    "a metric": ({"metrics": "l1, evil_here:make ,ssim"}, ["evil_here:make"]),
    "features of distances": ({"distances": {"features": "evil_here:make"}}, ["evil_here:make"]),
    "in a list of a free section": ({"extra": {"deep": [{"judge": ["evil_here:make"]}]}}, ["evil_here:make"]),
    "with others in a text": ({"extra": {"judges": "l1, evil_here:make"}}, ["evil_here:make"]),
    "an attribute of our network": ({"generator": {"norm": "evil_here:make"}}, ["evil_here:make"]),
    "two at once": (
        {"objective": "evil_here:make", "generator": {"network": POPEN}},
        ["evil_here:make", POPEN],
    ),
    "a module that one of ours imports": ({"generator": {"network": "p2p_jax.nets.unet:nn"}}, ["p2p_jax.nets.unet:nn"]),
    "a function of ours that writes": (
        {"task": {"input": "p2p_jax.storage.writing:write_text"}},
        ["p2p_jax.storage.writing:write_text"],
    ),
    "a function of ours that resolves": (
        {"objective": "p2p_jax.config:resolve"},
        ["p2p_jax.config:resolve"],
    ),
    "a task of ours as objective": (
        {"objective": "p2p_jax.images.tasks:hed_edges"},
        ["p2p_jax.images.tasks:hed_edges"],
    ),
    "a module of optax": ({"optimizer": {"factory": "optax:chain"}}, ["optax:chain"]),
    "a network of Flax": ({"generator": {"network": "flax.linen:Dense"}}, ["flax.linen:Dense"]),
}
