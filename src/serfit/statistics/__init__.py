"""How sure one can be of a CCC, and of the difference between two, on speech that comes in speakers and dialogues."""
