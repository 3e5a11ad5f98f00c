"""A gallery: an index that sorts and filters, and a page a clip."""
