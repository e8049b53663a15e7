"""Rules on the forward's definitions, before a region is closed: what its tensors may be written as."""
