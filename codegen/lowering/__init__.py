"""From index notation to torch: expressions of elements as expressions of tensors."""
