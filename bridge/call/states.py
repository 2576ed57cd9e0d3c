"""The states of a call, and the transitions between them that are allowed. Pure."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    WAITING = "waiting for Twilio's start message"
    CONNECTING = "connecting to the assistant"
    LIVE = "both legs connected"
    ENDING = "playing the assistant's remaining audio"
    ENDED = "ended"


TRANSITIONS = {
    State.WAITING: {State.CONNECTING, State.ENDED},
    State.CONNECTING: {State.LIVE, State.ENDED},
    State.LIVE: {State.ENDING, State.ENDED},
    State.ENDING: {State.ENDED},
    State.ENDED: set[State](),
}


class IllegalTransition(Exception):
    """A transition that the table does not allow: a bug in our code. The state is unchanged."""
