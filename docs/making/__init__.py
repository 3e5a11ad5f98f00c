"""Makes the pages of the documentation site that follow from the code, and its drawings."""
