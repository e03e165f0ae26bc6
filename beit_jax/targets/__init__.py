"""What a masked patch must predict. A new target is one file and one line here."""

from beit_jax.targets import hog, pixels, tokens

TARGETS = {"hog": hog.HOG, "pixels": pixels.Pixels, "tokens": tokens.Tokens}
