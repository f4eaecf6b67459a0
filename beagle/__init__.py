"""The command: one file per sub-command, and the wiring that joins the rooms."""

__version__ = "0.1.0"
