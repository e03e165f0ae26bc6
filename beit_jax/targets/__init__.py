"""What a masked patch must predict. A new target is one file and one line here."""

from beit_jax.targets import pixels, tokens

TARGETS = {"pixels": pixels.Pixels, "tokens": tokens.Tokens}
