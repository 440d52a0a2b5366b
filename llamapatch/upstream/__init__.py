"""Where llama.cpp comes from, and proof of what it is."""
