"""`python -m podtool`: the same as the `podtool` command."""

from importlib import import_module

if __name__ == "__main__":
    import_module("podtool.commands").main()
