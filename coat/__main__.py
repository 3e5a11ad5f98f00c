"""`python -m coat`."""

from coat.cli.main import main

if __name__ == "__main__":
    main()
