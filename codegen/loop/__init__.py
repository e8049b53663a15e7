"""The emitted training loop: the closed program recorded at sizes, rewritten by identities, planned, and written out."""
