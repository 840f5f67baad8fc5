"""The verb ``train`` under its old name: ``python -m p2p_jax.main --config FILE --workdir RUN``."""

from p2p_jax.commands import interrupts
from p2p_jax.commands.train import run

if __name__ == "__main__":
    interrupts.expect()
    run()
