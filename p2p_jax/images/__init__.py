"""Images as files, as values with units, and as pictures to look at. No JAX, no TensorFlow."""
