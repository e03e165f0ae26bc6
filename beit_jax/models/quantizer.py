"""Vector quantization: every latent is replaced by the nearest code of a codebook."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
State = dict[str, Array]

# Codes must not depend on how an accelerator shortens float32 products.
EXACT = jax.lax.Precision.HIGHEST
KEPT = 2048  # latents that each batch of a k-means start leaves behind, at least
EMA_SETTINGS = ("decay", "kmeans_steps", "kmeans_batches", "restart_below")


class QuantizerOutput(NamedTuple):
    """What the quantizer returns for latents (B, h, w, C)."""

    z_q: Array  # (B, h, w, C) float32 codes; their gradient goes straight to z
    ids: Array  # (B, h, w) int32 in [0, V)
    loss: Array  # (B,) float32 of each image: see `Quantizer`


def nearest(z: Array, codes: Array) -> Array:
    """(B, h, w, C), (V, C) -> (B, h, w) int32, the code at the least distance."""
    squares = jnp.square(codes).sum(-1)

    def row(z: Array) -> Array:
        dots = jnp.matmul(z, codes.T, precision=EXACT)
        return jnp.argmin(squares - 2 * dots, axis=-1).astype(jnp.int32)

    # The products of all latents with all codes at once could fill the memory.
    return jax.lax.map(row, z.swapaxes(0, 1)).swapaxes(0, 1)


def uses(z: Array, ids: Array, weight: Array, vocab: int) -> tuple[Array, Array]:
    """Number (V,) and sum (V, C) of the latents z (B, h, w, C) that chose each code."""
    counts = jnp.zeros(vocab).at[ids].add(weight)
    sums = jnp.zeros((vocab, z.shape[-1])).at[ids].add(weight[..., None] * z)
    return counts, sums


def draw(key: Array, z: Array, weight: Array, count: int) -> Array:
    """(count, C) random ones of the latents z (B, h, w, C) of weight 1.

    None comes twice before all came once.
    """
    weight = weight.reshape(-1)
    score = jnp.where(weight > 0, jax.random.uniform(key, weight.shape), 2.0)
    real = jnp.maximum(jnp.sum(weight > 0), 1)
    picks = jnp.argsort(score)[jnp.arange(count) % real]
    return z.reshape(-1, z.shape[-1])[picks]


class Quantizer(nn.Module):
    """Replaces each latent by the nearest code (van den Oord et al., arXiv:1711.00937).

    The loss of an image is beta * mean((z - sg(code))^2), and how the codes learn is
    one of

    - "ema": without loss. In training each code follows the mean of the latents that
      chose it, averaged over steps and weighed by their number (appendix A.1 there).
      With `l2_norm` the average is over the batches' mean directions, and codes without
      latents stay: NormEMAVectorQuantizer of BEiT v2 (arXiv:2208.06366; unlike there,
      evaluation changes no state). State is in the collection "codebook": it changes
      only in training, and when `apply` is given `mutable=["codebook"]`. k-means and
      restarts draw from the rng "codebook".
    - "gradient": the codebook is a parameter, and mean((sg(z) - code)^2) joins the loss
      (eq. 3). With `l2_norm`, ViT-VQGAN's (arXiv:2110.04627).

    All means are over the global batch, whatever its sharding.

    Attributes:
      vocab: V, number of codes.
      dim: C, features of a code.
      learning: "ema" or "gradient"; what follows but `beta` and `l2_norm` is of "ema".
      decay: of the moving averages.
      beta: weight of the commitment loss.
      l2_norm: unit latents and codes.
      kmeans_steps: start from this many rounds of k-means on the first batch; 0 = from
        random codes.
      kmeans_batches: K, start from the first K batches: each of them leaves
        max(V, 2048) random latents, and does k-means on all that were left so far. With
        K > 1 these latents stay in the state.
      restart_below: a code used less than this share of what it would be if all were
        used alike (moving average) is dead and gets a random latent of the batch
        (after Jukebox, arXiv:2005.00341); 0 = never. Near 1 codes that live are
        replaced for ever.
    """

    vocab: int
    dim: int
    learning: str = "ema"
    decay: float = 0.99
    beta: float = 0.25
    l2_norm: bool = False
    kmeans_steps: int = 10
    kmeans_batches: int = 1
    restart_below: float = 0.05

    def setup(self):
        self._check()
        if self.learning == "gradient":
            self.embedding = self.param("embedding", self._random_codes)
            return

        def variable(name, value, *shape):
            return self.variable("codebook", name, value, *shape)

        self.embedding = variable(
            "embedding", lambda: self._random_codes(self.make_rng("params"))
        )
        self.cluster_size = variable("cluster_size", jnp.ones, self.vocab)
        if not self.l2_norm:
            self.embed_sum = variable("embed_sum", lambda: self.embedding.value)
        self.initted = variable("initted", jnp.zeros, (), bool)
        if self.kmeans_batches > 1:
            shape = (self.kmeans_batches, max(self.vocab, KEPT), self.dim)
            self.start_latents = variable("start_latents", jnp.zeros, shape)
            self.start_batches = variable("start_batches", jnp.zeros, (), int)

    def __call__(
        self, z: Array, train: bool = False, weight: Array | None = None
    ) -> QuantizerOutput:
        """Quantizes latents z (B, h, w, C); learns from those of `weight` (B,) 1."""
        if z.shape[-1] != self.dim:
            raise ValueError(f"latents have {z.shape[-1]} features, codes {self.dim}")
        z = self._normalize(z.astype(jnp.float32))
        fixed = jax.lax.stop_gradient(z)
        weight = jnp.ones(len(z)) if weight is None else weight
        weight = jnp.broadcast_to(weight[:, None, None], z.shape[:-1])
        learns = train and self.is_mutable_collection("codebook")
        learns = learns and self.learning == "ema" and not self.is_initializing()
        if learns and self.kmeans_steps:
            self._start(fixed, weight)
        codebook = self._codes()
        ids = nearest(fixed, jax.lax.stop_gradient(codebook))
        codes = codebook[ids]
        loss = self.beta * jnp.square(z - jax.lax.stop_gradient(codes))
        if self.learning == "gradient":
            loss += jnp.square(fixed - codes)
        if learns:
            self._follow(fixed, ids, weight)
        return QuantizerOutput(
            z_q=z + jax.lax.stop_gradient(codes - z),
            ids=ids,
            loss=jnp.mean(loss, axis=(1, 2, 3)),
        )

    def lookup(self, ids: Array) -> Array:
        """ids (...) int in [0, V) -> their codes (..., C)."""
        return self._codes()[ids]

    def _check(self) -> None:
        if self.learning not in ("ema", "gradient"):
            raise ValueError(f"learning={self.learning!r} must be 'ema' or 'gradient'")
        if min(self.vocab, self.dim) < 1:
            raise ValueError(
                f"vocab={self.vocab} codes of {self.dim} features: both must be >= 1"
            )
        changed = [
            name
            for name in EMA_SETTINGS
            if getattr(self, name) != getattr(Quantizer, name)
        ]
        if self.learning == "gradient" and changed:
            have = ", ".join(f"{name}={getattr(self, name)}" for name in changed)
            give = ", ".join(f"{name}={getattr(Quantizer, name)}" for name in changed)
            raise ValueError(
                f"learning='gradient' has no use for {have}: only the optimizer moves "
                f"its codes; leave it out (or set {give}), or set learning='ema'"
            )
        several = self.kmeans_batches > 1
        if self.kmeans_batches < 1 or (several and not self.kmeans_steps):
            raise ValueError(
                f"kmeans_batches={self.kmeans_batches} must be at least 1, and needs "
                f"kmeans_steps={self.kmeans_steps} above 0 if it is more"
            )

    def _random_codes(self, key: Array) -> Array:
        """Random directions; without `l2_norm` close to 0 for codes with a gradient.

        So directions decide which code is chosen first, whatever the latents' scale:
        VQGAN's start (arXiv:2012.09841).
        """
        shape = (self.vocab, self.dim)
        if self.learning == "gradient" and not self.l2_norm:
            limit = 1 / self.vocab
            return jax.random.uniform(key, shape, minval=-limit, maxval=limit)
        return self._normalize(jax.random.normal(key, shape))

    def _normalize(self, x: Array) -> Array:
        """Unit vectors with `l2_norm`; x itself without."""
        if not self.l2_norm:
            return x
        square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))

    def _codes(self) -> Array:
        """(V, C) as they are compared with latents."""
        if self.learning == "gradient":
            return self._normalize(self.embedding)
        return self.embedding.value

    def _start(self, z: Array, weight: Array) -> None:
        """k-means, unless the codebook has started or nothing is to be learnt from."""
        state, key = dict(self.variables["codebook"]), self.make_rng("codebook")
        self._set(
            jax.lax.cond(
                state["initted"] | ~jnp.any(weight > 0),
                lambda: state,
                lambda: self._started(state, key, z, weight),
            )
        )

    def _follow(self, z: Array, ids: Array, weight: Array) -> None:
        """One step of the moving averages, then new places for dead codes."""
        counts, sums = uses(z, ids, weight, self.vocab)
        state = self._averaged(dict(self.variables["codebook"]), counts, sums)
        if self.restart_below:
            least = self.restart_below * jnp.sum(weight) / self.vocab
            fresh = draw(self.make_rng("codebook"), z, weight, self.vocab)
            state = self._revived(state, least, fresh)
        self._set(state)

    def _set(self, state: State) -> None:
        for name, value in state.items():
            self.put_variable("codebook", name, value)

    def _started(self, state: State, key: Array, z: Array, weight: Array) -> State:
        """The codebook after k-means on this batch and what earlier ones left."""
        keep_key, key = jax.random.split(key)
        uses_per_batch = jnp.sum(weight)
        state = state | {"initted": jnp.ones((), bool)}
        if self.kmeans_batches > 1:
            batch, kept = state["start_batches"], state["start_latents"]
            kept = kept.at[batch].set(draw(keep_key, z, weight, kept.shape[1]))
            state |= {
                "start_latents": kept,
                "start_batches": batch + 1,
                "initted": batch + 1 == self.kmeans_batches,
            }
            z, real = kept[None], jnp.arange(self.kmeans_batches) <= batch
            weight = jnp.broadcast_to(real[None, :, None] * 1.0, z.shape[:-1])
        codes, counts = self._kmeans(key, z, weight)
        # In uses by one batch, as the averages have it; an empty one keeps its place.
        sizes = jnp.maximum(counts, 1) * (uses_per_batch / jnp.sum(weight))
        if not self.l2_norm:
            state["embed_sum"] = codes * sizes[:, None]
        return state | {"embedding": codes, "cluster_size": sizes}

    def _kmeans(self, key: Array, z: Array, weight: Array) -> tuple[Array, Array]:
        """Codes (V, C) from random latents on, and how many chose each (V,)."""

        def one_round(_, state):
            codes, _ = state
            counts, sums = uses(z, nearest(z, codes), weight, self.vocab)
            return self._means(counts, sums, codes), counts

        start = draw(key, z, weight, self.vocab), jnp.zeros(self.vocab)
        return jax.lax.fori_loop(0, self.kmeans_steps, one_round, start)

    def _means(self, counts: Array, sums: Array, codes: Array) -> Array:
        """(V, C) mean latent of each code (its direction with l2_norm), or the code."""
        means = self._normalize(sums / jnp.maximum(counts, 1)[:, None])
        return jnp.where(counts[:, None] > 0, means, codes)

    def _averaged(self, state: State, counts: Array, sums: Array) -> State:
        """Moving averages of how often codes were chosen, and of what chose them."""

        def average(old: Array, new: Array) -> Array:
            return self.decay * old + (1 - self.decay) * new

        sizes, codes = average(state["cluster_size"], counts), state["embedding"]
        state = state | {"cluster_size": sizes}
        if self.l2_norm:
            codes = average(codes, self._means(counts, sums, codes))
            return state | {"embedding": self._normalize(codes)}
        sums = average(state["embed_sum"], sums)
        total = sizes.sum()  # Laplace smoothing keeps unused codes finite
        smooth = (sizes + 1e-5) / (total + self.vocab * 1e-5) * total
        return state | {"embed_sum": sums, "embedding": sums / smooth[:, None]}

    def _revived(self, state: State, least: Array, fresh: Array) -> State:
        """Codes used less than `least` are those of `fresh` (V, C), used so often."""
        dead = state["cluster_size"] < least
        codes = jnp.where(dead[:, None], fresh, state["embedding"])
        state = state | {
            "embedding": codes,
            "cluster_size": jnp.where(dead, least, state["cluster_size"]),
        }
        if not self.l2_norm:
            sums = jnp.where(dead[:, None], codes * least, state["embed_sum"])
            state["embed_sum"] = sums
        return state
