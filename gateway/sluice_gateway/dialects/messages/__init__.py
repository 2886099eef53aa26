"""Anthropic's Messages API in front of engines that speak only chat completions.

`facts` reads the routing fields, `request` and `conversation` turn a request into a chat request, `answer`
and `stream` turn the answer back, `translation` puts them together for one attempt. Pure: bytes in, bytes
out.
"""
