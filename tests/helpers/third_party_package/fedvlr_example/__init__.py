"""What a package outside can add to fedvlr-plugin, one file each."""
