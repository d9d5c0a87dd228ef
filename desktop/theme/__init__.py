"""How Ostler looks: colours, type and spacing as tokens, the palette made of them, mark and glyphs."""
