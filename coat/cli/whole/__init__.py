"""The whole job in one command: `coat run`, and the recipe that `coat quickstart` is."""
