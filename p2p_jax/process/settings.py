"""Settings of the whole process, which the commands make for themselves and a program makes if it wants them."""


def prepare_process() -> None:
    """Make this process fast at training and translating; the commands do so, ``p2p_jax.train`` leaves it to you.

    Compiled programs are kept on disk from one start to the next (``p2p_jax.process.compiled_programs``), and on CPUs
    the C library keeps memory that a step gives back, and JAX's asynchronous dispatch is off
    (``p2p_jax.process.freed_memory``). To be called once, before JAX or TensorFlow computes anything.
    """
    from p2p_jax.process.compiled_programs import use_compilation_cache
    from p2p_jax.process.freed_memory import keep_freed_memory

    keep_freed_memory()
    use_compilation_cache()
