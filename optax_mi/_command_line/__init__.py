"""The commands of `optax-mi`, of which `optax_mi.__main__` is the front."""
