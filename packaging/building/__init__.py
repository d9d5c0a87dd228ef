"""Makes what people install: the payload, the launcher, and the installers around them."""
