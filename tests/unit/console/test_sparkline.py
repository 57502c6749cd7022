"""The course of the lowest loss."""

from xml.etree import ElementTree

from hpo_service.console.sparkline import sparkline
from hpo_service.storage.queries.overview import Lowest


def path(lowest: Lowest) -> str:
    picture = sparkline(lowest)
    assert picture is not None
    found = ElementTree.fromstring(picture).find("{*}path")
    return "" if found is None else found.attrib["d"]


def test_it_falls_in_steps_and_goes_on_to_the_last_loss() -> None:
    assert path(Lowest(((1, 3.0), (3, 2.0), (5, 1.0)), told=9)) == "M3 3H29.5V13H56V23H109"


def test_a_single_loss_and_losses_that_never_fell() -> None:
    assert path(Lowest(((1, 3.0),), told=1)) == "M3 23H3"
    assert path(Lowest(((1, 3.0),), told=4)) == "M3 23H109"
    assert sparkline(Lowest()) is None
