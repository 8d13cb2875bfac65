"""Rendered prompts of made-up readers, for the tests and the benchmark of the student."""

import random

PLACES = ("Lisbon", "Denver", "Osaka", "Leeds", "Quito", "Oslo", "Perth", "Tampa")
TOPICS = ("flights", "measles outbreak", "school board vote", "heat pump prices", "marathon route", "wildfire smoke")
TASKS = ("how to train for a marathon", "best home ev charger", "lower back pain stretches", "mortgage rates today")
HEAD = (
    "Write the news searches that each reader would make.\n\n"
    "Pages: Weber gas grill; Brisket rub recipe\nSearches: smoked pork shoulder; kansas city chiefs schedule\n"
    "News searches: Weber gas grill; brisket recipe; smoked pork; Kansas City Chiefs\n\n"
    "Searches: tesla model y range winter; flights to lisbon\n"
    "News searches: Tesla Model Y; flights to Lisbon\n\n"
    "Pages: The Best Trails in Yosemite; Osprey backpack size guide\nSearches: bear spray rules\n"
    "News searches: Yosemite trails; Osprey backpack; bear spray\n\n"
)


def reader_prompts(count: int, seed: int = 0) -> list[str]:
    """Distinct prompts behind one common head, the same for the same seed."""
    draw = random.Random(seed)
    return [HEAD + _signals(draw) for _ in range(count)]


def _signals(draw: random.Random) -> str:
    pages = "; ".join(f"{topic.capitalize()} in {draw.choice(PLACES)}" for topic in draw.sample(TOPICS, 2))
    searches = "; ".join([draw.choice(TASKS), f"{draw.choice(PLACES)} {draw.randint(2, 99)} day forecast"])
    return f"Pages: {pages}\nSearches: {searches}\nNews searches:"
