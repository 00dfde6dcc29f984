"""Part of training."""
