"""The console script: hides what must not be on a command line before the program proper is imported."""

from __future__ import annotations

from harbor_satellite.argv import hide_token


def main() -> None:
    """Run the command line."""
    hide_token()
    from harbor_satellite.cli import main as run  # noqa: PLC0415  (a third of a second in which `ps` would show it)

    run()


if __name__ == "__main__":
    main()
