"""`python -m sluice_worker` is the `sluice-worker` command."""

from sluice_worker.cli import main

if __name__ == "__main__":
    main()
