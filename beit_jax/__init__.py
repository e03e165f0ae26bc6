"""BEiT in JAX: image tokenizers, masked image modelling, fine-tuning, evaluation."""

__version__ = "0.1.0"
