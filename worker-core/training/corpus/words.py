"""The controlled vocabulary: the closed word lists that every skill draws its slots from."""

import random


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _split(
    "Mira Tom Anna Leo Nora Ben Ida Max Lena Omar Sara Finn Ruby Hugo Maya Ivan Zoe Paul Nina Carl Elsa "
    "Yuki Amir Rosa Karl Emma Noah Olivia Liam Sofia Jonas Clara Felix Alice Bob Eve Dana Erik Greta "
    "Henry Iris Jack Kate Lucas Marta Oscar Petra Quinn Rita Sam Tina Umar Vera Walter Xenia Yara Zack "
    "Aisha Bruno Chloe David Ella Frank Gina Hana Igor Julia Kofi Lily Marco Nadia Otto Priya Ravi "
    "Selma Theo Uma Victor Wendy John Mary Peter Susan James Linda Robert Laura Daniel Grace Arthur "
    "Molly Simon Hazel Peggy Edith Agnes"
)

JOBS = _split(
    "teacher baker doctor pilot farmer painter nurse cook driver gardener writer singer plumber dentist "
    "lawyer tailor sailor builder librarian carpenter engineer designer student fisher musician "
    "scientist"
)

CITIES = _split(
    "Paris London Berlin Rome Madrid Lisbon Vienna Prague Warsaw Athens Oslo Helsinki Dublin Tokyo "
    "Cairo Delhi Lima Quito Havana Ottawa Boston Chicago Seattle Denver Toronto Sydney Melbourne Munich "
    "Hamburg Milan Naples Porto Kyoto Osaka Mumbai Nairobi Lagos Accra Dakar Geneva Zurich Basel Lyon "
    "Ghent Bergen Malmo Dallas Austin Miami Boise Leeds York Bath Oxford Seoul Hanoi Manila Bogota "
    "Santiago Ankara"
)

ANIMALS = _split(
    "fox bear rabbit owl mouse hedgehog duck frog cat dog horse cow sheep goat pig hen wolf deer "
    "squirrel otter turtle fish snail bee ant lion tiger elephant giraffe monkey penguin parrot whale "
    "dolphin badger beaver donkey swan crow mole"
)

COLOURS = _split("red blue green yellow orange purple brown black white pink grey golden silver")

OBJECTS = _split(
    "lantern kite boat drum bell basket ladder map ball hat scarf cup spoon book key box stone feather "
    "shell button ribbon mirror clock flute rope bucket candle blanket broom chair table lamp pencil "
    "whistle wagon coin"
)

FOODS = _split(
    "apples pears plums bread milk cheese eggs honey soup rice carrots onions beans berries nuts tea "
    "cake butter lemons grapes potatoes tomatoes salt sugar flour coffee pasta peas corn melons"
)

COUNTABLE = _split(
    "apples pears plums eggs carrots onions berries nuts lemons grapes potatoes tomatoes melons books "
    "pencils coins stones shells buttons kites boats balls hats cups spoons keys boxes marbles stickers "
    "cards stamps flowers"
)

PLACES = _split(
    "forest village garden river hill meadow lake harbour mill orchard valley island market barn bridge "
    "beach castle cave school library"
)

DAYS = _split("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _split("January February March April May June July August September October November December")

WORDS = tuple(sorted({*ANIMALS, *COLOURS, *OBJECTS, *FOODS, *PLACES}))

_STARTS = _split("b d f g h k l m n p r s t v z br dr fl gr kr pl st tr th sh")
_MIDDLES = _split("a e i o u ai ea oo ar or el in")
_ENDS = _split("n r l m t s k nd x sh ck")


def invented_word(rng: random.Random) -> str:
    """Return a pronounceable word in no list, so that copying is learnt for any string."""
    syllables = [rng.choice(_STARTS) + rng.choice(_MIDDLES) for _ in range(rng.randint(1, 3))]
    return "".join(syllables) + rng.choice(_ENDS)


def name(rng: random.Random) -> str:
    """Return a first name, one in six of them invented."""
    return invented_word(rng).capitalize() if rng.random() < 1 / 6 else rng.choice(NAMES)


def city(rng: random.Random) -> str:
    """Return a city, one in six of them invented."""
    return invented_word(rng).capitalize() if rng.random() < 1 / 6 else rng.choice(CITIES)


def word(rng: random.Random) -> str:
    """Return a common noun or adjective, one in five of them invented."""
    return invented_word(rng) if rng.random() < 1 / 5 else rng.choice(WORDS)


def article(noun: str) -> str:
    """Return the noun with `a` or `an` in front."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def join(items: list[str] | tuple[str, ...], last: str = "and") -> str:
    """Return the items as an English list: `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"
