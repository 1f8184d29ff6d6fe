"""The command lines, each a module of its own."""
