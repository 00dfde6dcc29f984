"""The models that are hosted."""
