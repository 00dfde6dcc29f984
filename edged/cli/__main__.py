"""`python -m edged.cli`: the same as the command `edged`."""

from edged.cli.main import main

raise SystemExit(main())
