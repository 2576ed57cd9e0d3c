"""The two far ends of a call, simulated over real sockets on loopback: the carrier and the assistant.

`carrier` is Twilio, `assistant` is Vapi. Nothing in the product knows that it talks to a simulation. In
return the sandbox imports nothing from the product: it reads and writes both protocols with its own few
lines, because a mirror proves nothing.
"""
