"""``python -m magicbert`` runs the command line."""

from magicbert.cli import main

if __name__ == "__main__":
    main()
