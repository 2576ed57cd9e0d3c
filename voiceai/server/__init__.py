"""The production server (`./manage.py serve`): uvicorn with limits for strangers, and a drain for calls.

Anyone can reach the port, and one process carries the audio of all its calls. So a request is limited before
the application sees it: the size and the time of its headers and its body, and how many connections there are
in all and for each address. What is refused is counted, and logged once a second.
"""
