"""One run as one file: what was asked, what came when, in which circumstances; and whether it adds up."""
