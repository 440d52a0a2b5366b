"""llamapatch: keep a llama.cpp fork as a series of small patches, and prove each of them."""

__version__ = "0.1.0"
