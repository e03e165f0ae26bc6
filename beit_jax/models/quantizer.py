"""Vector quantization with a codebook that follows its latents by moving averages."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

# Codes must not depend on how an accelerator shortens float32 products.
EXACT = jax.lax.Precision.HIGHEST


class QuantizerOutput(NamedTuple):
    """What the quantizer returns for latents (B, h, w, C)."""

    z_q: Array  # (B, h, w, C) float32 codes; their gradient goes straight to z
    ids: Array  # (B, h, w) int32 in [0, V)
    loss: Array  # (B,) float32 commitment of each image, beta * mean((z - code)^2)
    counts: Array  # (V,) float32 uses of each code in this batch


class Quantizer(nn.Module):
    """Replaces each latent by the nearest code; the codebook is learned without loss.

    In training each code follows the mean of the latents that chose it, averaged over
    steps and weighed by their number (van den Oord et al., arXiv:1711.00937, appendix
    A.1). With `l2_norm` latents and codes are unit vectors, the average is over the
    batches' mean directions, and codes without latents stay: NormEMAVectorQuantizer of
    BEiT v2 (arXiv:2208.06366; unlike there, evaluation changes no state).

    All means are over the global batch, whatever its sharding. State is in the
    collection "codebook": it changes only in training, and when `apply` is given
    `mutable=["codebook"]`. k-means and restarts draw from the rng "codebook".

    Attributes:
      vocab: V, number of codes.
      dim: C, features of a code.
      decay: of the moving averages.
      beta: weight of the commitment loss.
      l2_norm: unit latents and codes.
      kmeans_steps: start from this many rounds of k-means on the first batch; 0 = from
        random codes.
      restart_below: a code used less than this share of what it would be if all were
        used alike (moving average) is dead and gets a random latent of the batch
        (after Jukebox, arXiv:2005.00341); 0 = never.
    """

    vocab: int
    dim: int
    decay: float = 0.99
    beta: float = 0.25
    l2_norm: bool = False
    kmeans_steps: int = 10
    restart_below: float = 0.0

    def setup(self):
        shape = (self.vocab, self.dim)
        self.embedding = self.variable("codebook", "embedding", self._init_codes, shape)
        self.cluster_size = self.variable(
            "codebook", "cluster_size", jnp.ones, shape[:1]
        )
        if not self.l2_norm:
            self.embed_sum = self.variable(
                "codebook", "embed_sum", lambda: self.embedding.value
            )
        self.initted = self.variable("codebook", "initted", jnp.zeros, (), bool)

    def __call__(
        self, z: Array, train: bool = False, weight: Array | None = None
    ) -> QuantizerOutput:
        """Quantizes latents z (B, h, w, C); learns from those of `weight` (B,) 1."""
        if z.shape[-1] != self.dim:
            raise ValueError(f"latents have {z.shape[-1]} features, codes {self.dim}")
        z = self._normalize(z.astype(jnp.float32))
        latents = jax.lax.stop_gradient(z.reshape(-1, self.dim))
        weight = jnp.ones(len(z)) if weight is None else weight
        weight = jnp.repeat(weight, len(latents) // len(z))
        learns = train and self.is_mutable_collection("codebook")
        learns = learns and not self.is_initializing()
        if learns and self.kmeans_steps:
            self._start(latents, weight)
        ids = self._nearest(latents, self.embedding.value)
        codes = self.lookup(ids).reshape(z.shape)
        chosen = jax.nn.one_hot(ids, self.vocab) * weight[:, None]
        counts = chosen.sum(0)
        if learns:
            self._follow(latents, chosen, counts, weight)
        return QuantizerOutput(
            z_q=z + jax.lax.stop_gradient(codes - z),
            ids=ids.reshape(z.shape[:-1]),
            loss=self.beta * jnp.mean(jnp.square(codes - z), axis=(1, 2, 3)),
            counts=counts,
        )

    def lookup(self, ids: Array) -> Array:
        """ids (...) int in [0, V) -> their codes (..., C)."""
        return self.embedding.value[ids]

    def _init_codes(self, shape: tuple[int, int]) -> Array:
        return self._normalize(jax.random.normal(self.make_rng("params"), shape))

    def _normalize(self, x: Array) -> Array:
        """Unit vectors with `l2_norm`; x itself without."""
        if not self.l2_norm:
            return x
        square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))

    def _nearest(self, latents: Array, codes: Array) -> Array:
        """(M, C), (V, C) -> (M,) the code at the smallest Euclidean distance."""
        dots = jnp.matmul(latents, codes.T, precision=EXACT)
        return jnp.argmin(jnp.square(codes).sum(-1) - 2 * dots, axis=-1)

    def _start(self, latents: Array, weight: Array) -> None:
        """On the first batch: random latents as codes, then rounds of k-means."""
        key = self.make_rng("codebook")

        def kmeans_round(_, state):
            codes, _ = state
            chosen = jax.nn.one_hot(self._nearest(latents, codes), self.vocab)
            chosen = chosen * weight[:, None]
            counts = chosen.sum(0)
            return self._means(latents, chosen, counts, codes), counts

        def kmeans():
            repeat = len(latents) < self.vocab
            picks = jax.random.choice(key, len(latents), (self.vocab,), repeat)
            picks = self._real(picks, weight)
            start = latents[picks], jnp.zeros(self.vocab)
            codes, counts = jax.lax.fori_loop(0, self.kmeans_steps, kmeans_round, start)
            return codes, jnp.maximum(counts, 1)  # an empty one keeps its place

        def keep():
            return self.embedding.value, self.cluster_size.value

        codes, counts = jax.lax.cond(self.initted.value, keep, kmeans)
        if not self.l2_norm:
            was = self.embed_sum.value
            now = codes * counts[:, None]
            self.embed_sum.value = jnp.where(self.initted.value, was, now)
        self.embedding.value, self.cluster_size.value = codes, counts
        self.initted.value = jnp.ones((), bool)

    def _real(self, picks: Array, weight: Array) -> Array:
        """Indices of latents, those of weight 0 replaced by others of weight 1."""
        order = jnp.argsort(weight == 0, stable=True)  # weight 1 first
        count = jnp.maximum(jnp.sum(weight > 0), 1)
        return order[picks % count]

    def _means(self, latents: Array, chosen: Array, counts: Array, codes: Array):
        """(V, C) mean latent of each code (its direction with l2_norm), or the code."""
        sums = jnp.matmul(chosen.T, latents, precision=EXACT)
        means = self._normalize(sums / jnp.maximum(counts, 1)[:, None])
        return jnp.where(counts[:, None] > 0, means, codes)

    def _follow(
        self, latents: Array, chosen: Array, counts: Array, weight: Array
    ) -> None:
        """One step of the moving averages, then new places for dead codes."""

        def average(old: Array, new: Array) -> Array:
            return self.decay * old + (1 - self.decay) * new

        sizes = average(self.cluster_size.value, counts)
        if self.l2_norm:
            codes = self.embedding.value
            means = self._means(latents, chosen, counts, codes)
            codes = self._normalize(average(codes, means))
        else:
            sums = jnp.matmul(chosen.T, latents, precision=EXACT)
            sums = average(self.embed_sum.value, sums)
            total = sizes.sum()  # Laplace smoothing keeps unused codes finite
            smooth = (sizes + 1e-5) / (total + self.vocab * 1e-5) * total
            codes = sums / smooth[:, None]
        if self.restart_below:
            key = self.make_rng("codebook")
            picks = jax.random.randint(key, (self.vocab,), 0, len(latents))
            picks = self._real(picks, weight)
            least = self.restart_below * len(latents) / self.vocab
            dead = sizes < least
            sizes = jnp.where(dead, least, sizes)
            codes = jnp.where(dead[:, None], latents[picks], codes)
            if not self.l2_norm:
                sums = jnp.where(dead[:, None], codes * least, sums)
        if not self.l2_norm:
            self.embed_sum.value = sums
        self.embedding.value, self.cluster_size.value = codes, sizes
