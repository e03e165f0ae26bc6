"""What a masked patch must predict. A new target is one file and one line here."""

from beit_jax.targets import pixels, vqvae

TARGETS = {"pixels": pixels.Pixels, "vqvae": vqvae.VQVAETokens}
