"""What sits on the encoder. A new head is one file and one line here."""

from beit_jax.heads import aggregation, linear, tokens

HEADS = {
    "aggregation": aggregation.AggregationHead,
    "linear": linear.LinearHead,
    "tokens": tokens.TokenHead,
}
