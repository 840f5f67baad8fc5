"""The ways to a translator: a run's directory, a model file, a repository on a hub."""

from pathlib import Path
from typing import Any, Self

from p2p_jax.config.paths import expanded
from p2p_jax.config.stored import Trust
from p2p_jax.errors import InputError
from p2p_jax.inference.run import open_run
from p2p_jax.objectives import Objective
from p2p_jax.sharing import hub
from p2p_jax.training import model_file


class Opened:
    """What is made of an opened run, ``cls(run, direction=..., batch_size=..., ...)``, by one of these."""

    @classmethod
    def from_workdir(
        cls,
        workdir: str | Path,
        checkpoint: str | int = "latest",
        direction: str | None = None,
        norm: str | None = None,
        dropout: bool | None = None,
        *,
        batch_size: int = 8,
        tile: int | None = None,
        overlap: int | None = None,
        objective: Objective | None = None,
        trust: Trust = (),
        raw: bool = False,
    ) -> Self:
        """Open a run's directory, or a model file.

        Args:
          workdir: the run's directory, or a file that ``p2p_jax.interop.pack`` has made of it.
          checkpoint: "latest", "best" or a step.
          direction: "AtoB" or "BtoA", in the words of the folders that the run was trained on; by default the run's own
            ``config.data.direction``. Runs of CycleGAN know both.
          norm: "batch" normalises by the statistics of the translated image, "running" by those of training; by default
            as ``config.inference.norm`` says.
          dropout: keep the noise of training; by default as ``config.inference.dropout`` says.
          batch_size: images translated at a time, over all devices of this host.
          tile: images with a side longer than this are translated in tiles of this side, in pixels; None: never.
          overlap: pixels that neighbouring tiles share; a quarter of `tile` by default.
          objective: what was trained, if it was given to ``p2p_jax.train`` in place of ``config.objective``.
          trust: code outside the library that the run's config may name, "module:name" or several: it is executed. Code
            that is not here is loaded from the run's directory, where training has stored it.
          raw: take the generator as it was after the step, where the run has an average of it (``config.ema``).

        Raises:
          InputError: no such run, checkpoint or direction, a setting that does not fit, or a config that names code
            which is not trusted.
        """
        run = open_run(workdir, checkpoint, norm, dropout, objective, trust, raw)
        make: Any = cls
        return make(run, direction=direction, batch_size=batch_size, tile=tile, overlap=overlap)

    @classmethod
    def from_file(cls, path: str | Path, direction: str | None = None, **settings: Any) -> Self:
        """Open a model file, which ``p2p_jax.interop.pack`` makes of a run.

        It translates as the run does, to the bit where the weights were packed in float32.

        Args:
          path: of the file.
          direction: "AtoB" or "BtoA"; by default the run's own, if the file holds it.
          **settings: see ``from_workdir``: norm, dropout, batch_size, tile, overlap, objective, trust.

        Raises:
          InputError: it is not a model file, is damaged, or names code that is not trusted.
        """
        path = expanded(path)
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        model_file.require_form(path)
        return cls.from_workdir(path, direction=direction, **settings)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        revision: str | None = None,
        direction: str | None = None,
        *,
        filename: str = hub.FILENAME,
        token: str | None = None,
        **settings: Any,
    ) -> Self:
        """Open a model file of the Hugging Face hub, fetched where it is not in the cache yet.

        It is opened as any file of a stranger: it is data, and executes nothing.

        Args:
          name: of the repository, "user/name".
          revision: a branch, a tag or the hash of a commit; the newest of the main branch by default.
          direction: "AtoB" or "BtoA"; by default the run's own, if the file holds it.
          filename: of the file in the repository.
          token: of the hub, for private repositories; by default that of this machine's login, if any.
          **settings: see ``from_workdir``: norm, dropout, batch_size, tile, overlap, objective, trust.

        Raises:
          InputError: there is no such repository or file, it may not be read, the hub cannot be reached,
            ``huggingface_hub`` is not installed, or the file cannot be used; see ``from_file``.
        """
        return cls.from_file(hub.fetch(name, revision, filename, token), direction, **settings)
