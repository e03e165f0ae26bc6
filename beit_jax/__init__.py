"""BEiT in JAX: image tokenizers, masked image modelling, fine-tuning, evaluation."""

import os

__version__ = "0.1.0"

# TensorFlow only feeds data here; without these it greets every process.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
