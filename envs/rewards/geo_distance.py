"""How far an answer lies from the place: its own coordinates, or those of the place that it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from agentenv.envs.rewards.geo_text import Guess, Mode, read_place
from agentenv.reward import Component, EpisodeReward
from agentenv.trajectory import Trajectory
from agentenv.types import Task

EARTH_KM = 6371.0088
"""Mean radius of the Earth (IUGG); GeoBench's `utils_geocode.py` has the same."""


class Spot(NamedTuple):
    """A point in degrees, and how it came about: the answer's own coordinates, or the level of the place it names."""

    lat: float
    lng: float
    way: Literal["given", "city", "state", "country"]


Geocoder = Callable[[Guess], "Spot | None"]
"""Finds the coordinates of a place by its names; None for what it does not know."""


def haversine(a: Sequence[float], b: Sequence[float]) -> float:
    """Great-circle distance in kilometres of two points (latitude, longitude) in degrees.

    >>> round(haversine((52.52, 13.405), (48.8566, 2.3522)))
    877
    """
    (lat1, lng1), (lat2, lng2) = (map(math.radians, point) for point in (a, b))
    square = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lng2 - lng1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, max(0.0, square))))


FARTHEST_KM = math.pi * EARTH_KM
"""Half the Earth's circumference: the distance that an answer without coordinates counts as, where it must count."""


def median_km(distances: Iterable[float | None], mode: Mode = "strict") -> float | None:
    """The median of distances; one that is not known counts as `FARTHEST_KM`. None without any.

    "strict" is the usual median; "upstream" the element at ceil(n / 2) - 1, the lower of the two in the middle, which
    is what GeoBench reports (where what is not known becomes the distance to a fixed town).
    """
    known = sorted(FARTHEST_KM if one is None else float(one) for one in distances)
    if not known:
        return None
    low, high = known[math.ceil(len(known) / 2) - 1], known[len(known) // 2]
    return low if mode == "upstream" else (low + high) / 2


def share_within(distances: Iterable[float | None], km: float = 3.0) -> float | None:
    """The share of distances below `km`, what is not known among the rest; None without any."""
    known = list(distances)
    return sum(one is not None and one < km for one in known) / len(known) if known else None


def spot_of(text: str | None, geocoder: Geocoder | None = None) -> Spot | None:
    """Where an answer says that it is: by its own coordinates, else where the place that it names lies."""
    guess = read_place(text)
    if guess.lat is not None and guess.lng is not None:
        return Spot(guess.lat, guess.lng, "given")
    return None if geocoder is None else geocoder(guess)


# ---- components ------------------------------------------------------------------------------------------------------


def distance_km(geocoder: Geocoder | None = None) -> EpisodeReward:
    """A component: kilometres between the answer's place and the task's; `FARTHEST_KM` where the answer has none.

    None where the task's coordinates are not known. Without a geocoder only coordinates count that the answer holds.
    """

    def component(task: Task, trajectory: Trajectory) -> float | None:
        place = _point(task)
        if place is None:
            return None
        spot = spot_of(trajectory.answer, geocoder)
        return FARTHEST_KM if spot is None else haversine((spot.lat, spot.lng), place)

    return component


def within_km(km: float = 3.0, geocoder: Geocoder | None = None) -> EpisodeReward:
    """A component: 1.0 where the answer's place lies less than `km` from the task's; see `distance_km`."""
    distance = distance_km(geocoder)

    def component(task: Task, trajectory: Trajectory) -> float | None:
        found = distance(task, trajectory)
        return None if found is None else float(found < km)

    return component


def located(geocoder: Geocoder | None, *ways: str) -> EpisodeReward:
    """A component: 1.0 where the coordinates that a distance was measured from came about in one of these ways.

    None where the task's coordinates are not known, so that nothing was measured.
    """

    def component(task: Task, trajectory: Trajectory) -> float | None:
        if _point(task) is None:
            return None
        spot = spot_of(trajectory.answer, geocoder)
        return float(spot is not None and spot.way in ways)

    return component


def distances(geocoder: Geocoder | None) -> tuple[Component, ...]:
    """What is recorded of distances: `distance_km`, `within_3km`, and how the coordinates came about."""
    parts = {
        "within_3km": within_km(3.0, geocoder),
        "distance_km": distance_km(geocoder),
        "coordinates_given": located(geocoder, "given"),
        **({} if geocoder is None else {"geocoded": located(geocoder, "city", "state", "country")}),
    }
    return tuple(Component(name, part, weight=0.0) for name, part in parts.items())


def _point(task: Task) -> tuple[float, float] | None:
    place = task.metadata.get("place") or {}
    if place.get("lat") is None or place.get("lng") is None:
        return None
    return float(place["lat"]), float(place["lng"])
