"""The Responses API's memory: stored responses, the conversations they form, background runs, their paths."""
