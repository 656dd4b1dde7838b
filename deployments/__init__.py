"""Deployments as data: which flow runs where, when and how often."""
