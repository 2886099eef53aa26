"""Does a server do the work it is measured by? Cached answers, short outputs, ignored seeds, chunk counts."""
