"""What the library does with a disk: files whole or not at all, locks, and what a disk refuses. No JAX."""
