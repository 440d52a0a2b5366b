"""The reference model, synthetic shapes, and how they are made."""
