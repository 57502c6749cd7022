"""Values merged into files that others own: spliced in where they belong, and every other byte stays."""

from hpo_service.cli.merge.selection import Selection, included, missed, select, unneeded
from hpo_service.cli.merge.splice import Change, Merged, Setting, Unwritten, look_up, merge

__all__ = [
    "Change",
    "Merged",
    "Selection",
    "Setting",
    "Unwritten",
    "included",
    "look_up",
    "merge",
    "missed",
    "select",
    "unneeded",
]
