"""Bundled forwards in plain torch: each module has a `forward`, inputs to trace it with and the rest if it trains."""
