"""The image tokenizers by name. Each has `vocab`, `patch_size`, `encode`, `decode`."""

from beit_jax.models.discrete_vae import DiscreteVAE
from beit_jax.models.dvae import DVAE
from beit_jax.models.vqkd import VQKD
from beit_jax.models.vqvae import VQVAE

TOKENIZERS = {"discrete_vae": DiscreteVAE, "dvae": DVAE, "vqkd": VQKD, "vqvae": VQVAE}
