"""What sits on the encoder. A new head is one file and one line here."""

from beit_jax.heads import decoder, linear, tokens

HEADS = {
    "decoder": decoder.Decoder,
    "linear": linear.LinearHead,
    "tokens": tokens.TokenHead,
}
