"""Athlos: twelve published language-model methods as stackable parts on one trainer."""

from athlos.auto_config import register_when_imported

__version__ = "0.1.0"

register_when_imported()
