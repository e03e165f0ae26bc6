"""NVIDIA's cards as XLA wants them described where none is here."""

from typing import NamedTuple


class Card(NamedTuple):
    """What the driver tells of a card; sizes in bytes."""

    name: str
    capability: int  # the major number; the minor is 0
    feature: str
    cores: int
    fpus: int  # of a core
    clock: float  # GHz
    bandwidth: int  # bytes a second
    memory: int
    cache: int
    shared: int  # memory of a core
    shared_optin: int  # of it, for one block


ACCELERATED = "ACCELERATED_FEATURES"
# fmt: off
CARDS = {
    "a100": Card("NVIDIA A100-SXM4-80GB", 8, "NONE", 108, 64, 1.41, 2039 * 10**9,
                 85100068864, 41943040, 167936, 166912),
    "h100": Card("NVIDIA H100 80GB HBM3", 9, ACCELERATED, 132, 128, 1.98, 3352 * 10**9,
                 84942979072, 52428800, 233472, 232448),
    "h200": Card("NVIDIA H200", 9, ACCELERATED, 132, 128, 1.98, 4800 * 10**9,
                 151397597184, 52428800, 233472, 232448),
    "b200": Card("NVIDIA B200", 10, ACCELERATED, 148, 128, 1.965, 7672 * 10**9,
                 191514411008, 132644864, 233472, 232448),
}
# fmt: on


def described(card: Card) -> str:
    """A `GpuTargetConfigProto` as text."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {card.shared}
  shared_memory_per_block_optin: {card.shared_optin}
  threads_per_core_limit: 2048
  core_count: {card.cores}
  fpus_per_core: {card.fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {card.bandwidth}
  device_memory_size: {card.memory}
  l2_cache_size: {card.cache}
  clock_rate_ghz: {card.clock}
  cuda_compute_capability {{
    major: {card.capability}
    feature_extension: {card.feature}
  }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{card.name}"
"""
