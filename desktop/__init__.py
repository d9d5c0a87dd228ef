"""The Ostler desktop application (Qt). It talks to the daemon through the control API's client alone."""
