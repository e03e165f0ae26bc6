"""What sits on the encoder. A new head is one file and one line here."""

from beit_jax.heads import (
    aggregation,
    decoder,
    linear,
    segmentation,
    setr,
    tokens,
    upernet,
)

HEADS = {
    "aggregation": aggregation.AggregationHead,
    "decoder": decoder.Decoder,
    "linear": linear.LinearHead,
    "tokens": tokens.TokenHead,
    "linear_maps": segmentation.LinearMaps,
    "upernet": upernet.UPerNet,
    "setr_pup": setr.PUP,
    "setr_naive": setr.Naive,
    "setr_mla": setr.MLA,
    "deconvolution": setr.Deconvolution,
}
