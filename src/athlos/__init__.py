"""Athlos: twelve published language-model methods as stackable parts on one trainer."""

__version__ = "0.1.0"
