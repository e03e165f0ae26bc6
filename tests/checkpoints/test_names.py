from beit_jax.checkpoints import names


def test_many_names_are_told_by_what_they_begin_with():
    every = [f"neck/bn_{i}/{leaf}" for i in range(3) for leaf in ("scale", "bias")]
    every += ["head/bias", "head/kernel", "encoder/a", "encoder/b"]
    told = names.brief([*every[:8], "encoder/b"], every)
    assert told == "neck/…, head/bias, head/kernel, encoder/b"
