"""`python -m nann`: the command, for processes that cannot rely on PATH."""

from nann.cli.main import main

main()
