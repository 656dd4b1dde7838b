"""The demo: the whole product on one machine, everything real, told as a story."""
