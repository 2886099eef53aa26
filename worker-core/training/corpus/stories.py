"""Short coherent stories in a controlled vocabulary, and the requests that ask for one.

A story fixes its hero, friend, place, wish and trouble first and only then tells them, so that names, places
and objects agree from the first sentence to the last.
"""

import random
from dataclasses import dataclass

from .exchange import Exchange, ask
from .words import ANIMALS, COLOURS, OBJECTS, PLACES, article, name

_TRAITS = (
    "small",
    "brave",
    "shy",
    "clever",
    "kind",
    "young",
    "old",
    "curious",
    "quiet",
    "merry",
    "gentle",
    "lazy",
    "proud",
    "hungry",
    "careful",
)
_WEATHER = (
    "The sun was shining",
    "A soft rain was falling",
    "The wind was cold",
    "Snow lay on the ground",
    "The sky was clear and blue",
    "Fog hung over the grass",
    "The first stars came out",
)
_OPENINGS = (
    "Once upon a time there was a {trait} {hero} named {name} who lived near the {place}.",
    "In a {place} far away lived a {trait} {hero} called {name}.",
    "{name} was a {trait} {hero} who had a little house by the {place}.",
    "Long ago, a {trait} {hero} named {name} lived close to the {place}.",
    "There once was a {hero} called {name}. Everybody at the {place} said that {name} was very {trait}.",
)
_DAYS = (
    "{weather} when {name} woke up one morning.",
    "One day {name} went out for a walk. {weather}.",
    "{weather}, and {name} had nothing to do.",
    "It was early, and {weather_low}.",
)
_WISHES = (
    "More than anything, {name} wanted {thing}.",
    "{name} had always dreamed of {thing}.",
    "Every night {name} thought about {thing}.",
    "{name} wanted to find {thing} before the evening.",
)
_TROUBLES = (
    (
        "But the {object} was high up in a tree.",
        "{friend} stood on a stone, and {name} climbed up and took it.",
    ),
    ("But the {object} had fallen into deep water.", "{friend} could swim, so they pulled it out together."),
    (
        "But the {object} belonged to {friend}, a {friend_kind}.",
        "{name} asked politely, and {friend} was happy to share it.",
    ),
    ("But nobody knew where the {object} was.", "They looked behind every stone until {friend} found it."),
    ("But the {object} was broken.", "{friend} brought some string, and soon it was as good as new."),
    ("But the way was long and dark.", "{friend} carried a light, and together they were not afraid."),
    (
        "But {name} was too small to lift the {object}.",
        "{friend} pushed and {name} pulled, and at last it moved.",
    ),
    (
        "But a strong wind carried the {object} away.",
        "They ran after it, and {friend} caught it at the last moment.",
    ),
)
_MEETINGS = (
    "Then {name} met {friend}, a {friend_trait} {friend_kind}.",
    "On the way {name} saw a {friend_trait} {friend_kind} whose name was {friend}.",
    "Just then {friend} came along. {friend} was a {friend_trait} {friend_kind}.",
)
_TALK = (
    '"Can you help me?" asked {name}. "Of course," said {friend}.',
    '"Why do you look so sad?" asked {friend}. {name} told the whole story.',
    '"Do not worry," said {friend}. "We will do it together."',
    '"I have an idea," said {friend}, and {name} listened.',
)
_JOYS = (
    "{name} was so happy that the two of them danced around the {object}.",
    "{name} laughed and thanked {friend} again and again.",
    "They shared some bread and honey and looked at the {object} until it was dark.",
    "{name} smiled all the way home.",
)
_ENDINGS = (
    "From that day on {name} and {friend} were the best of friends.",
    "And {name} learned that a friend makes every task easier.",
    "That night {name} slept well and dreamed of the {place}.",
    "After that they met at the {place} every day.",
    "And if you walk by the {place}, you may still see the two of them there.",
)
_SECOND_PART = (
    (
        'The next morning {friend} knocked at the door. "Come with me to the {place2}," said {friend}. '
        "They walked for an hour and talked about the {object}. At the {place2} they found {thing2} under "
        'a tree. "It is for both of us," said {name}, and they carried it home together.'
    ),
    (
        "A week later {name} wanted to thank {friend}. So {name} went to the {place2} and looked for "
        "{thing2}. It took the whole day. When {friend} saw the present, the {friend_kind} could not "
        'speak for joy. "This is the best day of my life," said {friend} at last.'
    ),
    (
        "Soon everybody at the {place2} heard what had happened. They wanted to see the {object} too. "
        "{name} and {friend} made a big table with {thing2} in the middle, and they all ate and sang "
        "until the moon came up."
    ),
)
_REQUESTS = (
    (
        "Tell me a story.",
        "Tell me a short story.",
        "Can you tell me a story?",
        "I would like to hear a story.",
        "Write a story.",
        "Write a short story for children.",
        "tell me a story please",
    ),
    (
        "Tell me a story about a {hero}.",
        "Write a short story about a {hero}.",
        "I want a story about a {hero}.",
        "Can you tell me a story about a {hero}?",
        "Please tell me something about a {hero}.",
    ),
    (
        "Tell me a story about a {hero} named {name}.",
        "Write a story about {name} the {hero}.",
        "Tell me about a {hero} called {name}.",
    ),
    (
        "Tell me a story about a {hero} and a {object}.",
        "Write a story with a {hero} and a {object}.",
        "Tell a story in which a {hero} finds a {object}.",
    ),
)
_LONG_REQUESTS = (
    "Tell me a long story.",
    "Write a long story about a {hero}.",
    "Tell me a long story about a {hero} named {name}.",
    "Write a longer story with a {hero} and a {object}.",
)


@dataclass(frozen=True)
class Plot:
    """What a story is about, fixed before the first sentence is written."""

    values: dict[str, str]

    def tell(self, template: str) -> str:
        """Fill a template, with the articles corrected."""
        text = template.format(**self.values)
        for vowel in "aeiou":
            text = text.replace(f" a {vowel}", f" an {vowel}")
        return text


def _plot(rng: random.Random) -> Plot:
    hero, friend_kind = rng.sample(ANIMALS, 2)
    first, second = rng.sample(OBJECTS, 2)
    place, place2 = rng.sample(PLACES, 2)
    trait, friend_trait = rng.sample(_TRAITS, 2)
    who, friend = name(rng), name(rng)
    while friend == who:
        friend = name(rng)
    weather = rng.choice(_WEATHER)
    return Plot(
        {
            "hero": hero,
            "friend_kind": friend_kind,
            "object": first,
            "place": place,
            "place2": place2,
            "name": who,
            "trait": trait,
            "friend_trait": friend_trait,
            "friend": friend,
            "weather": weather,
            "weather_low": weather[0].lower() + weather[1:],
            "thing": article(f"{rng.choice(COLOURS)} {first}"),
            "thing2": article(f"{rng.choice(COLOURS)} {second}"),
        }
    )


def _tell(rng: random.Random, plot: Plot, long: bool) -> str:
    trouble, rescue = rng.choice(_TROUBLES)
    parts = [_OPENINGS, _DAYS, _WISHES, (trouble,), _MEETINGS, _TALK, (rescue,), _JOYS]
    if "belongs" in trouble or "belonged" in trouble:
        parts.remove(_MEETINGS)
    elif rng.random() < 0.3:
        parts.remove(_DAYS)
    first = " ".join(plot.tell(rng.choice(choices)) for choices in parts)
    ending = plot.tell(rng.choice(_ENDINGS))
    if not long:
        return f"{first} {ending}"
    return "\n\n".join(
        (first, *(plot.tell(part) for part in rng.sample(_SECOND_PART, rng.randint(1, 2))), ending)
    )


def story(rng: random.Random) -> str:
    """Return one story as plain text; one in four is long."""
    return _tell(rng, _plot(rng), long=rng.random() < 0.25)


def story_request(rng: random.Random) -> Exchange:
    """Return a request for a story and a story that fits it."""
    plot, long = _plot(rng), rng.random() < 0.25
    request = rng.choice(_LONG_REQUESTS if long else rng.choice(_REQUESTS))
    values = (plot.values["hero"], plot.values["name"], plot.values["object"])
    return ask("stories", ("story", *values), plot.tell(request), _tell(rng, plot, long))
