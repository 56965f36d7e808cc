"""`python -m fedvlr_plugin.cli`: the command `fedvlr`."""

from fedvlr_plugin.cli.main import main

main()
