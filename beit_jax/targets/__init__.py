"""What a masked patch must predict. A new target is one file and one line here."""

from beit_jax.targets import features, hog, pixels, tokens

TARGETS = {
    "features": features.Features,
    "hog": hog.HOG,
    "pixels": pixels.Pixels,
    "tokens": tokens.Tokens,
}
