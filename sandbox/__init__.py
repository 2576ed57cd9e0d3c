"""Simulators of Twilio and Vapi, over real sockets on loopback.

`sandbox.twilio` simulates Twilio, `sandbox.vapi` simulates Vapi. The product cannot tell that it talks to a
simulator. The sandbox imports nothing from the product: it implements both protocols independently, so that
a mistake in the product's own reading of a protocol shows.
"""
