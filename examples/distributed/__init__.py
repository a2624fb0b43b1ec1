"""Training over many devices and processes, each layer's rate from a sharded probe."""
