"""Programs that train with optax_mi."""
