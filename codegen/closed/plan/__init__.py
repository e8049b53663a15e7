"""A region's backward: which cotangents are statements, what names their products, and what that costs."""
