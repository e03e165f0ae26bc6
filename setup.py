"""Packaging of beit_jax; the exact tested set is in launch/constraints.txt."""

import pathlib

from setuptools import find_packages, setup

HUB = "huggingface_hub>=1,<3"
TENSORFLOW = ">=2.18,<2.22"  # feeds data only
LINUX_X86 = "sys_platform == 'linux' and platform_machine == 'x86_64'"
NOT_LINUX_X86 = "sys_platform != 'linux' or platform_machine != 'x86_64'"

setup(
    name="beit_jax",
    version="0.1.0",
    description="BEiT in JAX, whole: tokenizers, masked image modelling, fine-tuning",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The recipes lie beside the package here, and in it where it is installed.
    packages=[*find_packages(include=["beit_jax", "beit_jax.*"]), "beit_jax.configs"],
    package_dir={"beit_jax.configs": "configs"},
    entry_points={"console_scripts": ["beit = beit_jax.__main__:main"]},
    python_requires=">=3.11",
    classifiers=[f"Programming Language :: Python :: 3.{n}" for n in (11, 12, 13)],
    install_requires=[
        "absl-py>=2.1,<3",
        "chex>=0.1.90,<0.2",
        "filelock>=3.12,<5",  # JAX bounds the cache of compiled programs with it
        "flax>=0.12,<0.13",
        "fsspec>=2024.6",  # files in buckets; Orbax brings it
        "google-crc32c>=1.5,<2",  # checksums of TFRecord and safetensors files
        "jax>=0.10,<0.12",
        "matplotlib>=3.9,<4",
        "ml-collections>=1.1,<2",
        "numpy>=2.0,<3",
        "optax>=0.2.6,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "pillow>=11",  # decodes and augments images as the official code does
        "rich>=14,<16",  # progress bar and tables
        "safetensors>=0.6.1,<1",  # checks such files' headers, and writes them
        "scikit-learn>=1.5,<2",  # carries the digits of the first run
        "scipy>=1.13,<2",
        "tensorboardX>=2.6,<3",  # writes TensorBoard files without TensorFlow
        "tensorflow-datasets>=4.9.8,<5",
        f"tensorflow-cpu{TENSORFLOW}; {LINUX_X86}",
        f"tensorflow{TENSORFLOW}; {NOT_LINUX_X86}",
    ],
    extras_require={
        "datasets": ["datasets>=3,<6"],  # the source "huggingface"
        "mlflow": ["mlflow-skinny>=3,<4"],  # log.writers=("mlflow",)
        "gs": ["gcsfs>=2024.6"],  # gs:// for work directories, checkpoints and data
        "s3": ["s3fs>=2024.6"],  # s3:// for the same
        "wandb": ["wandb>=0.19,<1"],  # log.writers=("wandb",)
        "parquet": ["pyarrow>=17"],  # the source "parquet"
        "cuda": ["jax[cuda13]>=0.10,<0.12"],
        "hub": [HUB],  # checkpoints by their names on the Hugging Face hub
        "tpu": ["jax[tpu]>=0.10,<0.12"],
        "torch": [  # peers that the parity tests compare with
            "torch>=2.6",
            "transformers>=5.23,<6",
            "timm>=1.0.31,<2",
            "DALL-E>=0.1,<0.2",
        ],
        "test": ["pytest>=8", "pytest-xdist>=3.6", HUB],
        "dev": ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.9", HUB],
    },
)
