"""Flows: verbs of the product, each readable as the sentence it implements."""
