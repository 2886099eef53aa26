"""Going on elsewhere with a stream whose engine died amid its answer.

transcript.py    keeps what the client got, cheaply: it is asked for every event of every stream
templates.py     how one event of a stream tells what the next ones look like
delivered.py     reads a transcript, once a stream is cut
rest.py          the request for the rest: the same body with the text behind its prompt
splice.py        the second engine's events as a continuation of the first one's
resumptions.py   puts these together; whether it is safe is `sluice_router/resumption.py`'s to say
"""
