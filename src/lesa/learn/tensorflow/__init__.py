"""The authors' TensorFlow checkpoints, read without TensorFlow."""
