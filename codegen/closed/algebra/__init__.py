"""Rules on expressions: finite sums, facts, masks and choices, common factors."""
