"""Where servers and agents meet: slots, claim barrier, pollers, the life of a task, recovery, delivery.

It keeps promises P1 to P6: a claim is in the journal before anything else happens with it, messages and the
offset they were read up to are committed together, a result is durable before its slot is given back, and
everything unfinished is taken up again before anything new is claimed.
"""
