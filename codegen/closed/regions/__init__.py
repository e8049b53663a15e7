"""The forward as cells, and runs of cells that are closed together."""
