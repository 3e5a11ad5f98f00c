"""Commands of experts and their targets: from `coat experts` to `coat extract` and `coat inspect`."""
