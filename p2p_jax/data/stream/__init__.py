"""Images as a stream of batches. The only room that uses TensorFlow."""
