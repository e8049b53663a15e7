"""Random forwards in both modes against autograd: `python -m tests.fuzz --count 10000`, and a short run in the suite."""
