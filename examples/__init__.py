"""Bundled forwards in ordinary torch. Each module is a recipe: a `forward`, inputs to trace it with and, if it trains, its parameters."""
