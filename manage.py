#!/usr/bin/env python
"""Tacit's commands. `up` starts everything; the others need it running (or servers of your own)."""

import sys


def main() -> None:
    if sys.argv[1:2] == ["up"]:
        # Before Django: the settings need the addresses of the services that `up` starts.
        from workers import supervisor

        supervisor.main(sys.argv[2:])
        return
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))  # a sentence about a setting; the way to it helps nobody


if __name__ == "__main__":
    main()
