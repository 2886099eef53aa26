"""Greetings, thanks, feelings, jokes, a name that is remembered, and a polite answer to what is not known."""

import random

from .exchange import Exchange, Message, ask
from .words import COLOURS, FOODS, invented_word, name

GREETINGS = {
    "Hello!": "Hello!",
    "Hello": "Hello!",
    "Hi!": "Hi!",
    "Hi": "Hi!",
    "Hi there!": "Hi there!",
    "Hey!": "Hey!",
    "Hey": "Hey!",
    "Good morning!": "Good morning!",
    "Good evening!": "Good evening!",
    "Hello,": "Hello!",
    "Hi,": "Hi!",
    "hello": "Hello!",
    "hi": "Hi!",
    "Good day!": "Good day!",
    "Hello there!": "Hello there!",
    "Hello.": "Hello!",
    "Hi.": "Hi!",
}
_TALK: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        tuple(GREETINGS),
        (
            "{hello} How can I help you today?",
            "{hello} It is nice to meet you.",
            "{hello} What would you like to talk about?",
        ),
    ),
    (
        ("How are you?", "How are you doing?", "How is it going?", "Are you well?", "how are you"),
        ("I am fine, thank you. How are you?", "I am well, thank you for asking."),
    ),
    (
        ("I am fine.", "I am good, thanks.", "I feel great today.", "I am very well."),
        ("I am glad to hear that.", "That is good to hear."),
    ),
    (
        ("I am sad.", "I feel bad today.", "I am tired.", "I had a hard day.", "I am lonely."),
        (
            "I am sorry to hear that. I hope tomorrow is better.",
            "That sounds hard. Would you like a short story?",
        ),
    ),
    (
        ("I am happy!", "I had a good day.", "Today was wonderful.", "I won a game!"),
        ("That is wonderful!", "How nice! I am happy for you."),
    ),
    (
        (
            "Thank you!",
            "Thanks!",
            "Thank you very much.",
            "Thanks a lot!",
            "thanks",
            "That helps, thank you.",
        ),
        ("You are welcome!", "You are welcome. I am happy to help."),
    ),
    (
        ("Goodbye!", "Bye!", "See you later!", "Good night!", "I have to go now.", "bye"),
        ("Goodbye! Have a nice day.", "See you soon!"),
    ),
    (
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Can you tell a joke?"),
        (
            "Why did the hen cross the road? To get to the other side.",
            "What do you call a sleeping bull? A bulldozer.",
            "Why was the book of sums sad? It had too many problems.",
        ),
    ),
    (
        ("Write a poem.", "Write a short poem.", "Can you write a poem?", "Write a haiku."),
        (
            "The moon is bright,\nthe night is long,\nthe river sings\na quiet song.",
            "A little fox, a little hill,\nthe wind is soft, the lake is still.",
        ),
    ),
    (("Say hello.", "Say hello!", "Say hello", "Can you say hello?"), ("Hello!",)),
    (("Say hi.", "Say hi", "Say hi!"), ("Hi!",)),
    (("ping", "Ping!", "Ping"), ("pong",)),
    (
        ("test", "Test.", "This is a test.", "Testing", "Testing, one, two."),
        ("I am here and the test works.",),
    ),
    (("Are you there?", "Is anybody there?", "Can you hear me?", "Are you awake?"), ("Yes, I am here.",)),
    (("Yes.", "yes", "Sure.", "OK", "ok", "Okay.", "Good."), ("Good! What would you like to do next?",)),
    (("No.", "no", "Not now.", "No, thank you."), ("All right. I am here when you need me.",)),
    (("Sorry.", "I am sorry.", "My mistake."), ("No problem at all.",)),
    (
        ("What is your favourite colour?", "Which colour do you like best?"),
        ("I like blue, like the water in a sluice.",),
    ),
    (
        ("What is your favourite animal?", "Which animal do you like best?"),
        ("I like the otter, because it plays in the water.",),
    ),
    (("What do you like to eat?", "Are you hungry?"), ("I do not eat. I only read and write tokens.",)),
    (
        ("What time is it?", "What day is it today?", "What is the date?"),
        ("I have no clock, so I do not know.",),
    ),
    (("What is the weather like?", "Will it rain today?"), ("I cannot see the weather without a tool.",)),
    (
        ("Do you love me?", "Can we be friends?", "Will you be my friend?"),
        ("I am only a tiny model, but I like to talk with you.",),
    ),
    (
        ("Tell me something interesting.", "Tell me something.", "Tell me a fact.", "Say something."),
        (
            "A bee has six legs and lives in a hive.",
            "A young frog is called a tadpole.",
            "February is the shortest month.",
        ),
    ),
    (
        ("What is the meaning of life?", "Why are we here?"),
        ("That is a big question for a tiny model. Perhaps it is to be kind.",),
    ),
)
_UNKNOWN_ANSWER = "I am a tiny model and I do not know that."
_UNKNOWN = (
    "Who is {x}?",
    "What is {x}?",
    "Tell me about {x}.",
    "What does {x} mean?",
    "Where is {x}?",
    "Explain {x} to me.",
    "How does a {x} work?",
    "When was {x} born?",
    "Who wrote {x}?",
    "What is the capital of {x}?",
    "How old is {x}?",
    "How far is {x} from here?",
    "What is the price of {x}?",
    "Who invented {x}?",
    "Write code for {x}.",
    "Why is {x} important?",
    "Summarize the history of {x}.",
    "How tall is {x}?",
    "What do you think of {x}?",
)
_UNKNOWN_TOPICS = (
    "quantum physics",
    "the moon landing",
    "Shakespeare",
    "Napoleon",
    "Hamlet",
    "the stock market",
    "philosophy",
    "black holes",
    "gravity",
    "football",
    "the internet",
    "Atlantis",
    "democracy",
    "chemistry",
    "Mozart",
    "the Roman Empire",
    "bitcoin",
    "an engine",
    "a computer",
    "DNA",
    "Python",
    "electricity",
    "the ocean",
    "Mars",
    "Einstein",
    "evolution",
    "climate",
    "jazz",
    "chess",
    "a volcano",
    "the brain",
    "Linux",
    "tax law",
)
_TOLD = (
    "My name is {n}.",
    "I am {n}.",
    "You can call me {n}.",
    "Hello, my name is {n}.",
    "Hi, I'm {n}.",
    "Call me {n}.",
)
_RECALL = (
    "What is my name?",
    "Do you remember my name?",
    "Who am I?",
    "What am I called?",
    "Tell me my name.",
    "what's my name?",
)
_TOLD_THING = (
    "My favourite {k} is {v}.",
    "I like {v} best of all {k}s.",
    "Remember that my favourite {k} is {v}.",
)
_RECALL_THING = (
    "What is my favourite {k}?",
    "Which {k} do I like best?",
    "Do you remember my favourite {k}?",
)


def smalltalk(rng: random.Random) -> Exchange:
    """Return a piece of small talk; the answer is one of a few that fit."""
    if rng.random() < 0.15:
        return unknown(rng)
    questions, answers = rng.choice(_TALK) if rng.random() < 0.8 else _TALK[0]
    question = rng.choice(questions)
    answer = rng.choice(answers).replace("{hello}", GREETINGS.get(question, ""))
    return ask("smalltalk", ("talk", question, answer), question, answer)


def unknown(rng: random.Random) -> Exchange:
    """Return a question outside the fixed facts, with the honest answer."""
    topic = rng.choice(_UNKNOWN_TOPICS) if rng.random() < 0.6 else invented_word(rng).capitalize()
    question = rng.choice(_UNKNOWN).format(x=topic)
    return ask("unknown", ("unknown", question), question, _UNKNOWN_ANSWER)


def introduction(rng: random.Random) -> Exchange:
    """Return the user telling a name, and the greeting that uses it."""
    who = name(rng)
    told = rng.choice(_TOLD)
    return ask("introduction", ("memory", who, told), told.format(n=who), f"Nice to meet you, {who}!")


def memory(rng: random.Random) -> Exchange:
    """Return a name or a favourite thing that is told first and asked for later."""
    if rng.random() < 0.6:
        who, told, asked = name(rng), rng.choice(_TOLD), rng.choice(_RECALL)
        slots: tuple[object, ...] = ("memory", who, told)
        texts = (told.format(n=who), f"Nice to meet you, {who}!", asked, f"Your name is {who}.")
    else:
        kind = rng.choice(("colour", "food", "friend"))
        value = {"colour": rng.choice(COLOURS), "food": rng.choice(FOODS), "friend": name(rng)}[kind]
        told, asked = rng.choice(_TOLD_THING), rng.choice(_RECALL_THING)
        slots = ("memory", kind, value, told)
        texts = (
            told.format(k=kind, v=value),
            "I will remember that.",
            asked.format(k=kind),
            f"Your favourite {kind} is {value}.",
        )
    roles = ("user", "assistant", "user", "assistant")
    return Exchange("memory", slots, tuple(Message(r, t) for r, t in zip(roles, texts, strict=True)))
